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
from ..layouts.problems import Fault, Problem

DECODERS = [2, cv2.__version__, PIL.__version__]
"""The versions of these checks, of OpenCV and of Pillow. What other versions decoded is decoded again."""

LARGE = 1 << 25
"""The number of pixels above which images are decoded one after the other: each takes more than 100 MB of memory."""

_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image that was decoded to its end.

    Attributes:
        size: height and width as training reads it.
        sha256: of the file's content, in hexadecimal.
    """

    size: tuple[int, int]
    sha256: str


def decode_images(root: Path, paths: Iterable[Path]) -> tuple[dict[Path, DecodedImage], list[Problem]]:
    """Decode images, on all CPUs, except those that were sound before and have not changed since.

    Sound ones are remembered in a file for each data folder, in ``fasternet_mm`` of the user's cache folder
    (``XDG_CACHE_HOME``, or ``~/.cache``; without a home they are not), by path, size in bytes and time of the last
    change.

    Args:
        root: the folder of the data.
        paths: of the images.

    Returns:
        Each sound image, in the order of ``paths``, and what is wrong with the others.
    """
    paths = list(dict.fromkeys(paths))
    cache = _cache_file(root)
    remembered = _read_cache(cache) if cache else {}
    keys = {path: _key(root, path) for path in paths}
    sound = {key: remembered[key] for key in keys.values() if key in remembered}
    unknown = [path for path, key in keys.items() if key not in sound]
    problems = []
    try:
        for result, path in zip(in_threads(_decode, unknown, 'decoding images'), unknown):
            if isinstance(result, Problem):
                problems.append(result)
            else:
                sound[keys[path]] = result
    finally:  # also what was decoded before an interruption
        if unknown and cache:
            _write_cache(cache, sound)
    return {path: sound[key] for path, key in keys.items() if key in sound}, problems


def _key(root: Path, path: Path) -> str:
    """The size of a file in bytes, the time of its last change in nanoseconds, and its path in the data folder."""
    try:
        status = path.stat()
    except OSError:  # `_decode` says why
        return f'missing {path}'
    return f'{status.st_size} {last_change(status)} {path.relative_to(root).as_posix()}'


def _decode(path: Path) -> DecodedImage | Problem:
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as image:
            height, width = size_as_read(image)
            with _ONE_AT_A_TIME if width * height > LARGE else nullcontext():
                pixels = _pixels(image, content)
    except Exception as error:  # decoders raise whatever they stumble over
        reason = ' '.join(str(error).split()) or type(error).__name__
        return Problem(str(path), f'is cut off or broken ({reason})', Fault.UNREADABLE)
    if pixels is None:
        return Problem(
            str(path), 'cannot be read by OpenCV, as training does: save it as PNG or JPEG of 8 bits', Fault.UNREADABLE
        )
    size = pixels.shape[:2]
    if size != (height, width):
        what = 'has {}x{} pixels (H x W) by its header, but {}x{} when it is decoded'.format(height, width, *size)
        return Problem(str(path), what, Fault.WRONG_SIZE)
    return DecodedImage(size, hashlib.sha256(content).hexdigest())


def _pixels(image: Image.Image, content: bytes) -> np.ndarray | None:
    """The pixels that training gets by mmcv's ``imread``; None where OpenCV cannot decode them.

    Pillow, which raises an error where a file ends too early, decodes it first: OpenCV may give gray there.
    """
    image.draft('L', (1, 1))  # reads all of a JPEG, and computes little
    image.load()
    image.close()  # which frees its memory
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def _cache_file(root: Path) -> Path | None:
    # A relative XDG_CACHE_HOME counts for nothing (XDG Base Directory Specification); without a home '~' stays.
    folders = os.environ.get('XDG_CACHE_HOME', ''), os.path.expanduser('~/.cache')
    caches = next(filter(os.path.isabs, folders), None)
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return Path(caches, 'fasternet_mm', 'decoded', f'{name}.json') if caches else None


def _read_cache(file: Path) -> Mapping[str, DecodedImage]:
    """The images that were remembered; none where the file is missing, broken, or of other decoders."""
    try:
        content = json.loads(file.read_bytes())
        if content['decoders'] != DECODERS:
            return {}
        return {
            key: DecodedImage((int(height), int(width)), str(sha256))
            for key, (height, width, sha256) in content['images'].items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def _write_cache(file: Path, images: Mapping[str, DecodedImage]) -> None:
    content = {key: [*image.size, image.sha256] for key, image in images.items()}
    # In a home that cannot be written, or has no room, nothing is remembered: they are decoded again the next time.
    with suppress(OSError):
        write_atomically(file, json.dumps(dict(decoders=DECODERS, images=content)).encode())
