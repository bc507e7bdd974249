"""Every image decoded once, as training will, and remembered for the next time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
import PIL
from PIL import Image

from ...datasets.image_files import last_change, size_as_read
from ...files import write_atomically
from ...parallel import in_threads
from ..layouts.content import Kind, Problem

DECODERS = [1, cv2.__version__, PIL.__version__]
"""By which images were decoded: the version of these checks, and of the libraries. Others decode them again."""


LARGE = 1 << 25
"""Pixels above which images are decoded one after the other, since each takes more than 100 MB of memory."""

_ONE_AT_A_TIME = Lock()

State = tuple[str, int, int]
"""Of a file: its path in the data folder, its size in bytes, the time of its last change in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image that was decoded to its end.

    Attributes:
        size: width and height as training reads it.
        sha256: of the file's content, in hexadecimal.
    """

    size: tuple[int, int]
    sha256: str


def decode_images(root: Path, paths: Iterable[Path]) -> tuple[dict[Path, Decoded], list[Problem]]:
    """Decode images, on all CPUs, except those that were sound before and have not changed since.

    Sound ones are remembered in a file for each data folder, in ``fasternet_mm`` of the user's cache folder
    (``XDG_CACHE_HOME``, or ``~/.cache``; without a home they are not), by path, size in bytes and time of the last
    change.

    Args:
        root: the folder of the data.
        paths: of the images.

    Returns:
        What is known of each sound image, in the order of ``paths``, and what is wrong with the others.
    """
    paths = list(dict.fromkeys(paths))
    cache = _cache_file(root)
    remembered = _read_cache(cache) if cache else {}
    keys = {path: (path.relative_to(root).as_posix(), *_state(path)) for path in paths}
    sound = {key: remembered[key] for key in keys.values() if key in remembered}
    unknown = [path for path, key in keys.items() if key not in sound]
    problems = []
    try:
        for path, result in zip(unknown, in_threads(_decode, unknown, 'decoding images')):
            if isinstance(result, Problem):
                problems.append(result)
            else:
                sound[keys[path]] = result
    finally:  # also what was decoded before an interruption
        if unknown and cache:
            _write_cache(cache, sound)
    return {path: sound[key] for path, key in keys.items() if key in sound}, problems


def _state(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # `_decode` says why
        return -1, -1
    return status.st_size, last_change(status)


def _decode(path: Path) -> Decoded | Problem:
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as image:
            size = size_as_read(image)[::-1]
            with _ONE_AT_A_TIME if size[0] * size[1] > LARGE else nullcontext():
                pixels = _pixels(image, content)
    except Exception as error:  # decoders raise whatever they stumble over
        reason = ' '.join(str(error).split()) or type(error).__name__
        return Problem(str(path), f'is cut off or broken ({reason})', Kind.UNREADABLE)
    if pixels is None:
        return Problem(
            str(path), 'cannot be read by OpenCV, as training does: save it as PNG or JPEG of 8 bits', Kind.UNREADABLE
        )
    decoded = pixels.shape[1::-1]
    if decoded != size:
        what = 'has {}x{} pixels by its header, {}x{} decoded'.format(*size, *decoded)
        return Problem(str(path), what, Kind.WRONG_SIZE)
    return Decoded(size, hashlib.sha256(content).hexdigest())


def _pixels(image: Image.Image, content: bytes) -> np.ndarray | None:
    """What training gets by mmcv's ``imread``; None where that cannot be.

    Pillow, which raises an error where a file ends too early, decodes it first: OpenCV may give gray there.
    """
    image.draft('L', (1, 1))  # of a JPEG all is read, little computed
    image.load()
    image.close()  # which frees its memory
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def _cache_file(root: Path) -> Path | None:
    # A relative XDG_CACHE_HOME counts for nothing (XDG Base Directory Specification); without a home '~' stays.
    folders = os.environ.get('XDG_CACHE_HOME', ''), os.path.expanduser('~/.cache')
    caches = next(filter(os.path.isabs, folders), None)
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return Path(caches, 'fasternet_mm', 'decoded', f'{name}.json') if caches else None


def _read_cache(file: Path) -> Mapping[State, Decoded]:
    """What was remembered; nothing where the file is missing, broken, or of other decoders."""
    try:
        content = json.loads(file.read_bytes())
        if content['decoders'] != DECODERS:
            return {}
        return {
            (path, int(size), int(changed)): Decoded((int(width), int(height)), str(sha256))
            for path, (size, changed, width, height, sha256) in content['images'].items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def _write_cache(file: Path, images: Mapping[State, Decoded]) -> None:
    content = {path: [size, changed, *image.size, image.sha256] for (path, size, changed), image in images.items()}
    # In a home that cannot be written, or has no room, nothing is remembered: they are decoded again the next time.
    with suppress(OSError):
        write_atomically(file, json.dumps(dict(decoders=DECODERS, images=content)).encode())
