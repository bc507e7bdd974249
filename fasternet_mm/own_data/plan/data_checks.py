"""What is wrong with data beyond what reading them shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmcv.image.geometric import rescale_size

from ..layouts.annotated_data import DetectionData, Fault, Problem, SegmentationData
from .decoded_images import DecodedImage, decode_images
from .image_descriptions import ImageDescription, describe_images
from .recipe import JITTER, choose_scale


@dataclass(frozen=True)
class CheckedData:
    """Data that were read, looked at as training will.

    Attributes:
        problems: all of them, those of reading the data first; the ``severe`` ones must be mended before training.
        images: the sound ones, of all splits.
        scale: longer and shorter side that training resizes images to fit into.
        scale_reason: why, for people.
    """

    problems: list[Problem]
    images: dict[Path, DecodedImage]
    scale: tuple[int, int] | None
    scale_reason: str


def check_own_data(
    data: DetectionData | SegmentationData, scale: tuple[int, int] | None = None, scale_reason: str = 'as you say'
) -> CheckedData:
    """Find all that is wrong with data, by decoding every image and resizing each on paper.

    Args:
        data: as `layouts.read_own_data` gave them.
        scale: longer and shorter side that training resizes images to fit into. Default: chosen by the images of train,
            or None where there are none.
        scale_reason: why, for people.
    """
    images, unreadable = decode_images(data.root, [image for part in data.image_paths.values() for image in part])
    if scale is None:
        scale, scale_reason = _scale_of(data, images)
    problems = [*data.problems, *_check_classes(data)]
    if isinstance(data, DetectionData):
        problems += _check_background(data)
    problems += [*_check_splits(data, images), *unreadable]
    if scale:
        problems += _check_resizing(data, images, scale)
    return CheckedData(problems, images, scale, scale_reason)


def _scale_of(
    data: DetectionData | SegmentationData, images: Mapping[Path, DecodedImage]
) -> tuple[tuple[int, int] | None, str]:
    if isinstance(data, DetectionData):
        task, descriptions = 'detection', describe_images(data, 'train')
    else:
        known = [images[path] for path in data.image_paths['train'] if path in images]
        task, descriptions = 'segmentation', [ImageDescription(image.size, ()) for image in known]
    return choose_scale(task, descriptions) if descriptions else (None, '')


def _check_classes(data: DetectionData | SegmentationData) -> Iterable[Problem]:
    counts = data.class_counts['train']
    if not any(counts):
        ignored = len(data.ignored_regions['train']) if isinstance(data, DetectionData) else 0
        what = (
            f'all {ignored} objects of train are crowds, difficult or of an unusable outline, which are not trained'
            if ignored
            else 'has no sound annotation in train'
        )
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


def _check_splits(data: DetectionData | SegmentationData, images: Mapping[Path, DecodedImage]) -> Iterable[Problem]:
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


def _check_resizing(
    data: DetectionData | SegmentationData, images: Mapping[Path, DecodedImage], scale: tuple[int, int]
) -> Iterable[Problem]:
    """Images of which a resized one would have no height or no width."""
    smallest = JITTER['detection' if isinstance(data, DetectionData) else 'segmentation'][0]
    for split, paths in data.image_paths.items():
        ratio = smallest if split == 'train' else 1
        within = tuple(int(side * ratio) for side in scale)  # as mmcv's RandomResize
        for path in paths:
            if path in images and min(resized := rescale_size(images[path].size, within)) < 1:
                what = (
                    '{}x{} is resized to {}x{} where images have to fit into {}x{}: crop it to what matters, leave it '
                    'out, or train at a larger --size'
                ).format(*images[path].size, *resized, *within)
                yield Problem(str(path), what, Fault.TOO_THIN)
