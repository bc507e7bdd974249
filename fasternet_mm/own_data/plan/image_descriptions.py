"""The sizes, classes and objects of images, by which decisions about training are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ...datasets.image_files import labels_in, size_as_read
from ...parallel import in_threads
from ..layouts.annotated_data import OwnData, SegmentationData


@dataclass(frozen=True)
class ImageDescription:
    """One image and its annotations in brief.

    Attributes:
        size: height and width.
        labels: the indices of its classes: one for each object that is trained, or those that the label map has.
        sides: the square root of each such object's box area, in pixels; none for label maps.
    """

    size: tuple[int, int]
    labels: tuple[int, ...]
    sides: tuple[float, ...] = ()


def describe_images(data: OwnData, split: str) -> list[ImageDescription]:
    """A `ImageDescription` for each of a split, in its order. Label maps are read, which takes a while, on all CPUs."""
    if isinstance(data, SegmentationData):

        def describe(pair: tuple[Path, Path]) -> ImageDescription:
            return _describe(*pair, len(data.classes))

        return list(in_threads(describe, data.splits[split], f'reading {split}'))
    content = data.splits[split]
    index = {category['id']: number for number, category in enumerate(content['categories'])}
    objects: dict[int, list[dict]] = {image['id']: [] for image in content['images']}
    for obj in data.objects[split]:
        objects[obj['image_id']].append(obj)
    return [
        ImageDescription(
            (image['height'], image['width']),
            tuple(index[obj['category_id']] for obj in objects[image['id']]),
            tuple((obj['bbox'][2] * obj['bbox'][3]) ** 0.5 for obj in objects[image['id']]),
        )
        for image in content['images']
    ]


def _describe(image: Path, labels: Path, class_count: int) -> ImageDescription:
    with Image.open(image) as opened:
        width, height = size_as_read(opened)
    with Image.open(labels) as label_map:
        classes = sorted(label for label in labels_in(label_map) if label < class_count)
    return ImageDescription((height, width), tuple(classes))
