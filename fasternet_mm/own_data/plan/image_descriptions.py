"""What decisions about training need to know of each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...datasets.image_files import image_size, labels_in, read_label_map
from ...parallel import in_threads
from ..layouts.content import Instances, LabelMaps


@dataclass(frozen=True)
class ImageDescription:
    """One image and its annotations in brief.

    Attributes:
        size: width and height.
        labels: indices of classes: one for each object that is trained, or those that the label map has.
        sides: of each such object, the square root of its box's area in pixels; none for label maps.
    """

    size: tuple[int, int]
    labels: tuple[int, ...]
    sides: tuple[float, ...] = ()


def describe_images(data: Instances | LabelMaps, split: str) -> list[ImageDescription]:
    """A `ImageDescription` for each of a split, in its order. Label maps are read, which takes a while, on all CPUs."""
    if isinstance(data, LabelMaps):
        return list(in_threads(_reader(len(data.classes)), data.splits[split], f'reading {split}'))
    content = data.splits[split]
    index = {category['id']: number for number, category in enumerate(content['categories'])}
    objects: dict[int, list[dict]] = {image['id']: [] for image in content['images']}
    for obj in data.objects[split]:
        objects[obj['image_id']].append(obj)
    return [
        ImageDescription(
            (image['width'], image['height']),
            tuple(index[obj['category_id']] for obj in objects[image['id']]),
            tuple((obj['bbox'][2] * obj['bbox'][3]) ** 0.5 for obj in objects[image['id']]),
        )
        for image in content['images']
    ]


def _reader(classes: int) -> Callable[[tuple[Path, Path]], ImageDescription]:
    def read(pair: tuple[Path, Path]) -> ImageDescription:
        image, label_map = pair
        height, width = image_size(image)
        labels = labels_in(read_label_map(label_map))
        return ImageDescription((width, height), tuple(sorted(label for label in labels if label < classes)))

    return read
