"""What is wrong with data beyond what reading them shows."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..data.parallel import in_threads
from ..data.picture_files import size_as_read
from .content import Instances, Kind, LabelMaps, Problem


def check_own_data(data: Instances | LabelMaps, thorough: bool) -> list[Problem]:
    """All that is wrong with data.

    Args:
        data: as `layouts.read_own_data` gave them: their own ``problems`` come first.
        thorough: also decode every picture, with all cores. Without that, files that are cut off after their first
            bytes pass.

    Returns:
        The problems; those that are ``severe`` must be mended before training.
    """
    found = [*data.problems, *_check_classes(data)]
    if isinstance(data, Instances):
        found += _check_background(data)
    found += _check_splits(data)
    if thorough:
        pictures = list(dict.fromkeys(picture for part in data.pictures.values() for picture in part))
        found += [problem for problem in in_threads(_decode, pictures, 'decoding pictures') if problem]
    return found


def _check_classes(data: Instances | LabelMaps) -> Iterable[Problem]:
    counts = data.class_counts['train']
    if not any(counts):
        ignored = len(data.ignored_regions['train']) if isinstance(data, Instances) else 0
        what = (
            f'all {ignored} objects of train are crowds, difficult or of an unusable outline, which are not trained'
            if ignored
            else 'has no sound annotation in train'
        )
        yield Problem(str(data.root), what, Kind.NOTHING_TO_LEARN)
        return
    for name, count in zip(data.classes, counts):
        if not count:
            yield Problem(str(data.root), f'the class {name!r} has no samples in train', Kind.NO_SAMPLES)


def _check_background(data: Instances) -> Iterable[Problem]:
    """Many images without objects may be meant, or not be labelled yet."""
    for split, objects in data.objects.items():
        count = len(data.splits[split]['images'])
        without = count - len({one['image_id'] for one in objects})
        if without > count / 2:
            what = f'{without} of the {count} images of {split} have no objects to train on: are all labelled?'
            yield Problem(str(data.root), what, Kind.MOSTLY_EMPTY)


def _check_splits(data: Instances | LabelMaps) -> Iterable[Problem]:
    """Pictures of equal content in two splits, which makes figures too good. Only files of equal size are read."""
    by_size = defaultdict(list)
    for split, pictures in data.pictures.items():
        for picture in pictures:
            by_size[picture.stat().st_size].append((split, picture))
    alike = [entry for entries in by_size.values() if len({split for split, _ in entries}) > 1 for entry in entries]
    hashes = in_threads(lambda entry: hashlib.sha256(entry[1].read_bytes()).digest(), alike, 'comparing pictures')
    first: dict[bytes, tuple[str, Path]] = {}
    for (split, picture), content in zip(alike, hashes):
        other_split, other = first.setdefault(content, (split, picture))
        if other_split != split:
            what = f'is in {split}, and in {other_split} as {other}'
            yield Problem(str(picture), what, Kind.IN_TWO_SPLITS)


def _decode(path: Path) -> Problem | None:
    """What is wrong with a picture that is decoded to its end; training reads pictures with OpenCV."""
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as image:
            size = size_as_read(image)
            # Pillow notices where a file ends too early, OpenCV does not. Of a JPEG all is read, little is computed.
            image.draft('L', (1, 1))
            image.load()
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except Exception as error:  # decoders raise whatever they stumble over
        return Problem(str(path), f'is cut off or broken ({error})', Kind.UNREADABLE)
    if picture is None:
        return Problem(str(path), 'cannot be read by OpenCV, as training does', Kind.UNREADABLE)
    if picture.shape[1::-1] != size:
        what = 'has {}x{} pixels by its header, {}x{} decoded'.format(*size, *picture.shape[1::-1])
        return Problem(str(path), what, Kind.WRONG_SIZE)
    return None
