"""What is read of people's own data, whatever their layout, and what was found wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

Value = int | Color
"""What a pixel of a label map is: a label, or a color."""


class Fault(Enum):
    """Kinds of problems: a name for people, and whether it must be mended before training.

    What is not severe costs at most a stray object, or may be intended.
    """

    UNREADABLE = 'unreadable image', True
    MISSING_IMAGE = 'missing image', True
    WRONG_SIZE = 'wrong size', True
    TOO_THIN = 'too thin to be resized', True
    MALFORMED = 'malformed annotation', True
    OUTSIDE_FOLDER = 'path out of the folder', True
    NOT_A_NUMBER = 'not a number', True
    OUTSIDE_IMAGE = 'outside the image', True
    UNKNOWN_ID = 'unknown id', True
    DUPLICATE = 'duplicate', True
    MISSING_LABELS = 'missing label map', True
    UNKNOWN_LABEL = 'unknown label', True
    LABEL_NOTATION = 'notation of label maps', True
    NOTHING_TO_LEARN = 'nothing to learn from', True
    NOTATION = 'numbers that seem to mean something else', True
    EMPTY = 'empty object', False
    SWAPPED = 'swapped corners', False
    BAD_BOX = 'box that cannot be used', False
    BAD_OUTLINE = 'outline that cannot be used', False
    FEW_POINTS = 'polygon of under three points', False
    BRUSH_MASKS = 'crowds taken as objects', False
    OVER_EDGE = "over the image's edge", False
    DUPLICATE_OBJECT_ID = 'duplicate annotation id', False
    NO_SAMPLES = 'class without samples', False
    NEVER_THERE = 'label that no label map has', False
    MOSTLY_EMPTY = 'images without annotations', False
    MISSING_SPLIT = 'missing split', False
    IN_TWO_SPLITS = 'image in two splits', False
    NOT_USED = 'unused file', False
    NOT_LISTED = 'image in no list', False
    SPLITS_DIFFER = 'two splits for one image', False
    UNLIKELY_FOLDER = 'images in a folder of another kind', False
    ORPHAN_LABELS = 'labels without an image', False
    NAMES_CHANGED = 'class names', False
    ASSUMED = 'assumed', False

    def __init__(self, title: str, severe: bool):
        self.title = title
        self.severe = severe


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        file: where it is, as the user would find it.
        what: what is wrong there: with the file's name before it, a sentence.
        kind: what other problems it is like.
    """

    file: str
    what: str
    kind: Fault

    @property
    def severe(self) -> bool:
        """Whether it must be mended before training."""
        return self.kind.severe

    def __str__(self) -> str:
        return f'{self.file}: {self.what}'


Report = Callable[..., None]
"""Is told what is wrong, as in `Problem`, and its `Fault`. Default: malformed."""


@dataclass
class DetectionData:
    """Objects with boxes, and maybe masks.

    Attributes:
        layout: for people: 'COCO', 'Pascal VOC', 'YOLO', 'LabelMe' or 'VIA'.
        root: the folder that the file names of images are relative to, with '/' between their parts.
        splits: those of 'train', 'val' and 'test' that were found, only 'train' where the data are not split. Each is
            the content of a COCO annotation file, as `normal_form.to_instances` describes it.
        problems: what was found while reading.
    """

    layout: str
    root: Path
    splits: dict[str, dict[str, Any]]
    problems: list[Problem] = field(default_factory=list)

    @property
    def objects(self) -> dict[str, list[dict[str, Any]]]:
        """The annotations that are trained and scored, by split: those that MMDetection's loader hands to a model."""
        return {split: [obj for obj in self._annotations(split) if not obj['iscrowd']] for split in self.splits}

    @property
    def ignored_regions(self) -> dict[str, list[dict[str, Any]]]:
        """The annotations that are neither trained nor scored, by split: crowds and difficult objects."""
        return {split: [obj for obj in self._annotations(split) if obj['iscrowd']] for split in self.splits}

    def _annotations(self, split: str) -> list[dict[str, Any]]:
        return self.splits[split]['annotations']

    @property
    def with_masks(self) -> bool:
        """Whether every object that is trained has a segmentation."""
        objects = [annotation for annotations in self.objects.values() for annotation in annotations]
        return bool(objects) and all('segmentation' in annotation for annotation in objects)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their ids."""
        return [category['name'] for category in self.splits['train']['categories']]

    @property
    def class_counts(self) -> dict[str, list[int]]:
        """The number of objects of each class that are trained and scored, by split."""
        counts = {}
        for split, objects in self.objects.items():
            numbers = Counter(annotation['category_id'] for annotation in objects)
            counts[split] = [numbers[category['id']] for category in self.splits[split]['categories']]
        return counts

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
    """A class for each pixel.

    Attributes:
        layout: for people: 'index PNGs', 'palette PNGs' or 'RGB colors'.
        root: the folder of the data.
        splits: those of 'train', 'val' and 'test' that were found, only 'train' where the data are not split: each
            image with its label map, sorted.
        classes: names, in the order of their numbers.
        palette: RGB of each class.
        labels: the number of the class by what pixels are in the files, and 255 for what does not count.
        fits: whether the files have these numbers already, in 8 bits; `label_maps.write_label_maps` makes it so.
        problems: what was found while reading.
        class_counts: the number of label maps that have each class, by split.
    """

    layout: str
    root: Path
    splits: dict[str, list[tuple[Path, Path]]]
    classes: list[str]
    palette: list[Color]
    labels: dict[Value, int]
    fits: bool
    problems: list[Problem] = field(default_factory=list)
    class_counts: dict[str, list[int]] = field(default_factory=dict)

    @property
    def image_paths(self) -> dict[str, list[Path]]:
        """The files of all images, by split."""
        return {split: [image for image, _ in pairs] for split, pairs in self.splits.items()}


def truth_value(value: Any) -> bool | None:
    """What tools mean by a yes or no, such as ``iscrowd`` or ``difficult``; None where it is neither.

    Understood are true and false, 1 and 0, as text too; what is not given is no.
    """
    text = '' if value is None else str(value).strip().lower()
    if text in ('', '0', '0.0', 'false'):
        return False
    return True if text in ('1', '1.0', 'true') else None
