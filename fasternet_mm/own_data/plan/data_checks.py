"""What is wrong with data beyond what reading them shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mmcv.image.geometric import rescale_size

from ..layouts.annotated_data import DetectionData, OwnData, SegmentationData
from ..layouts.problems import Fault, Problem
from .decoded_images import DecodedImage, decode_images
from .recipe import JITTER, choose_size


@dataclass(frozen=True)
class CheckedData:
    """What checks found in data that were read, as training will read them.

    Attributes:
        problems: all of them, those of reading the data first; the ``severe`` ones must be mended before training.
        images: the sound images of all splits.
        size: height and width that training resizes images to fit into; None where there is no image to train on.
        size_reason: why, for people.
    """

    problems: list[Problem]
    images: dict[Path, DecodedImage]
    size: tuple[int, int] | None
    size_reason: str


def check_own_data(
    data: OwnData,
    size: tuple[int, int] | None = None,
    size_reason: str = 'as you say',
    tile: tuple[int, int] | None = None,
) -> CheckedData:
    """Find all that is wrong with data: decode every image, and compute the size of each after resizing.

    Args:
        data: as `layouts.recognition.read_own_data` gave them.
        size: height and width that training resizes images to fit into. Default: chosen by the images of train.
        size_reason: why, for people.
        tile: height and width that larger images are cut to before they are resized. Default: they are not.
    """
    images, unreadable = decode_images(data.root, [image for part in data.image_paths.values() for image in part])
    seen = images
    if tile:
        seen = {path: replace(image, size=tuple(map(min, image.size, tile))) for path, image in images.items()}
    if size is None:
        sizes = [seen[path].size for path in data.image_paths['train'] if path in seen]
        size, size_reason = choose_size(data.task, sizes, object_sides(data)) if sizes else (None, '')
    problems = [*data.problems, *_check_classes(data)]
    if isinstance(data, DetectionData):
        problems += _check_background(data)
    problems += [*_check_splits(data, images), *unreadable]
    if size:
        problems += _check_resizing(data, seen, size)
    return CheckedData(problems, images, size, size_reason)


def object_sides(data: OwnData) -> list[float]:
    """The square root of the area, in pixels, of each box that is trained; none for label maps."""
    if isinstance(data, SegmentationData):
        return []
    return [math.sqrt(obj['bbox'][2] * obj['bbox'][3]) for obj in data.objects['train']]


def _check_classes(data: OwnData) -> Iterable[Problem]:
    counts = data.class_counts['train']
    if not any(counts):
        ignored = len(data.ignored_regions['train']) if isinstance(data, DetectionData) else 0
        what = 'has no sound annotation in train'
        if ignored:
            what = f'all {ignored} objects of train are crowds, difficult or of an unusable outline: none is trained'
        yield Problem(str(data.root), what, Fault.NOTHING_TO_LEARN)
        return
    for name, count in zip(data.classes, counts):
        if not count:
            yield Problem(str(data.root), f'the class {name!r} has no samples in train', Fault.NO_SAMPLES)


def _check_background(data: DetectionData) -> Iterable[Problem]:
    """Many images without objects may be meant, or not be labeled yet."""
    for split, objects in data.objects.items():
        count = len(data.splits[split]['images'])
        without = count - len({obj['image_id'] for obj in objects})
        if without > count / 2:
            what = f'{without} of the {count} images of {split} have no objects to train on: are all labeled?'
            yield Problem(str(data.root), what, Fault.MOSTLY_EMPTY)


def _check_splits(data: OwnData, images: Mapping[Path, DecodedImage]) -> Iterable[Problem]:
    """Images of equal content in two splits, which makes figures too good."""
    first: dict[str, tuple[str, Path]] = {}
    for split, paths in data.image_paths.items():
        for path in paths:
            if path not in images:
                continue
            other_split, other = first.setdefault(images[path].sha256, (split, path))
            if other_split != split:
                what = f'is in {split}, and in {other_split} as {other}'
                yield Problem(str(path), what, Fault.IN_TWO_SPLITS)


def _check_resizing(data: OwnData, images: Mapping[Path, DecodedImage], size: tuple[int, int]) -> Iterable[Problem]:
    """Images that would have no height or no width after resizing."""
    smallest = JITTER[data.task][0]
    for split, paths in data.image_paths.items():
        ratio = smallest if split == 'train' else 1
        height, width = (int(side * ratio) for side in size)  # as mmcv's RandomResize
        for path in paths:
            if path not in images:
                continue
            resized = rescale_size(images[path].size[::-1], (width, height))[::-1]
            if min(resized) < 1:
                what = (
                    '{}x{} (H x W) is resized to {}x{}, since images have to fit into {}x{}: crop it to what matters, '
                    'leave it out, or train at a larger --size'
                ).format(*images[path].size, *resized, height, width)
                yield Problem(str(path), what, Fault.TOO_THIN)
