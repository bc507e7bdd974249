"""People's own data after reading, whatever their layout: objects with boxes and masks, or label maps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .problems import Problem

Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

Value = int | Color
"""What a pixel of a label map holds: a label, or a color."""


@dataclass
class DetectionData:
    """Images with objects that have boxes, and maybe masks.

    Attributes:
        layout: for people: 'COCO', 'Pascal VOC', 'YOLO', 'LabelMe' or 'VIA'.
        root: the folder of the data. The file names of images are relative to it, with '/' between their parts.
        splits: 'train' and, where the data have them, 'val' and 'test'. Each is the content of a COCO annotation file,
            as `normal_form.to_normal_form` describes it.
        problems: what reading found wrong.
    """

    task: ClassVar[str] = 'detection'
    layout: str
    root: Path
    splits: dict[str, dict[str, Any]]
    problems: list[Problem] = field(default_factory=list)

    @property
    def objects(self) -> dict[str, list[dict[str, Any]]]:
        """The annotations that are trained and scored, by split: those that MMDetection's loader hands to a model."""
        return self._annotations(ignored=False)

    @property
    def ignored_regions(self) -> dict[str, list[dict[str, Any]]]:
        """The annotations that are neither trained nor scored, by split: crowds and difficult objects."""
        return self._annotations(ignored=True)

    def _annotations(self, ignored: bool) -> dict[str, list[dict[str, Any]]]:
        return {
            split: [annotation for annotation in content['annotations'] if annotation['iscrowd'] == ignored]
            for split, content in self.splits.items()
        }

    @property
    def with_masks(self) -> bool:
        """Whether every object that is trained has a segmentation."""
        objects = [obj for annotations in self.objects.values() for obj in annotations]
        return bool(objects) and all('segmentation' in obj for obj in objects)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their ids."""
        return [category['name'] for category in self.splits['train']['categories']]

    @property
    def class_counts(self) -> dict[str, list[int]]:
        """The number of objects of each class that are trained and scored, by split."""
        counts = {}
        for split, objects in self.objects.items():
            numbers = Counter(obj['category_id'] for obj in objects)
            counts[split] = [numbers[category['id']] for category in self.splits[split]['categories']]
        return counts

    @property
    def image_classes(self) -> dict[str, list[set[int]]]:
        """The indices of the classes whose objects are trained and scored, of each image, by split."""
        classes = {}
        for split, objects in self.objects.items():
            by_image: dict[int, set[int]] = {image['id']: set() for image in self.splits[split]['images']}
            for obj in objects:
                by_image[obj['image_id']].add(obj['category_id'] - 1)
            classes[split] = list(by_image.values())
        return classes

    @property
    def without_annotations(self) -> dict[str, int]:
        """The number of images without any annotation, by split."""
        return {
            split: len(content['images']) - len({annotation['image_id'] for annotation in content['annotations']})
            for split, content in self.splits.items()
        }

    @property
    def image_paths(self) -> dict[str, list[Path]]:
        """The files of all images, by split."""
        return {
            split: [self.root / image['file_name'] for image in content['images']]
            for split, content in self.splits.items()
        }


@dataclass
class SegmentationData:
    """Images with label maps, which give each pixel a class.

    Attributes:
        layout: for people: 'index PNGs', 'palette PNGs' or 'RGB colors'.
        root: the folder of the data.
        splits: 'train' and, where the data have them, 'val' and 'test'. Each is a sorted list of images with their
            label maps.
        classes: names, in the order of their numbers.
        palette: a color for each class.
        labels: what a label map's pixels mean: the number of a class, or 255 for what does not count, by their value.
        fits: whether the label maps hold these numbers already, in 8 bits; `label_maps.write_label_maps` makes it so.
        problems: what reading found wrong.
        classes_in: the numbers of the classes in each image's label map, by image.
    """

    task: ClassVar[str] = 'segmentation'
    layout: str
    root: Path
    splits: dict[str, list[tuple[Path, Path]]]
    classes: list[str]
    palette: list[Color]
    labels: dict[Value, int]
    fits: bool
    problems: list[Problem] = field(default_factory=list)
    classes_in: dict[Path, set[int]] = field(default_factory=dict)

    @property
    def image_classes(self) -> dict[str, list[set[int]]]:
        """The numbers of the classes in the label map of each image, by split."""
        return {split: [self.classes_in[image] for image, _ in pairs] for split, pairs in self.splits.items()}

    @property
    def class_counts(self) -> dict[str, list[int]]:
        """The number of label maps that have each class, by split."""
        counts = {}
        for split, images in self.image_classes.items():
            numbers = Counter(label for classes in images for label in classes)
            counts[split] = [numbers[label] for label in range(len(self.classes))]
        return counts

    @property
    def image_paths(self) -> dict[str, list[Path]]:
        """The files of all images, by split."""
        return {split: [image for image, _ in pairs] for split, pairs in self.splits.items()}


OwnData = DetectionData | SegmentationData
