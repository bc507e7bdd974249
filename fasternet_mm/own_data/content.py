"""What is read of people's own data, whatever their layout, and what was found wrong with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""


class Kind(Enum):
    """Kinds of problems: a name for people, and whether it must be mended before training.

    What is not severe loses nothing but a slip of the hand, or may be meant.
    """

    UNREADABLE = 'unreadable picture', True
    MISSING_PICTURE = 'missing picture', True
    WRONG_SIZE = 'wrong size', True
    MALFORMED = 'malformed annotation', True
    OUTSIDE_FOLDER = 'path out of the folder', True
    NOT_A_NUMBER = 'not a number', True
    OUTSIDE_PICTURE = 'outside the picture', True
    UNKNOWN_ID = 'unknown id', True
    DUPLICATE = 'duplicate', True
    MISSING_LABELS = 'missing label map', True
    UNKNOWN_LABEL = 'unknown label', True
    NOTHING_TO_LEARN = 'nothing to learn from', True
    EMPTY = 'empty object', False
    FEW_POINTS = 'polygon of under three points', False
    OVER_EDGE = "over the picture's edge", False
    DUPLICATE_OBJECT_ID = 'duplicate annotation id', False
    NO_SAMPLES = 'class without samples', False
    MOSTLY_EMPTY = 'pictures without annotations', False
    MISSING_SPLIT = 'missing split', False
    IN_TWO_SPLITS = 'picture in two splits', False
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
    kind: Kind

    @property
    def severe(self) -> bool:
        """Whether it must be mended before training."""
        return self.kind.severe

    def __str__(self) -> str:
        return f'{self.file}: {self.what}'


@dataclass
class Instances:
    """Objects with boxes, and maybe masks.

    Attributes:
        layout: for people: 'COCO', 'Pascal VOC', 'YOLO', 'LabelMe' or 'VIA'.
        root: the folder that the file names of pictures are relative to, with '/' between their parts.
        splits: those of 'train', 'val' and 'test' that were found, only 'train' where the data are not split. Each is
            the content of a COCO annotation file, as `normal_form.to_instances` describes it.
        problems: what was found while reading.
    """

    layout: str
    root: Path
    splits: dict[str, dict[str, Any]]
    problems: list[Problem] = field(default_factory=list)

    @property
    def with_masks(self) -> bool:
        """Whether every object has a segmentation."""
        objects = [annotation for content in self.splits.values() for annotation in content['annotations']]
        return bool(objects) and all('segmentation' in annotation for annotation in objects)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their ids."""
        return [category['name'] for category in self.splits['train']['categories']]

    @property
    def class_counts(self) -> dict[str, list[int]]:
        """The number of objects of each class, by split."""
        counts = {}
        for split, content in self.splits.items():
            found = Counter(annotation['category_id'] for annotation in content['annotations'])
            counts[split] = [found[category['id']] for category in content['categories']]
        return counts

    @property
    def pictures(self) -> dict[str, list[Path]]:
        """The files of all pictures, by split."""
        return {
            split: [self.root / image['file_name'] for image in content['images']]
            for split, content in self.splits.items()
        }


@dataclass
class LabelMaps:
    """A class for each pixel.

    Attributes:
        layout: for people: 'index PNGs', 'palette PNGs' or 'RGB colours'.
        root: the folder of the data.
        splits: those of 'train', 'val' and 'test' that were found, only 'train' where the data are not split: each
            picture with its label map, sorted.
        classes: names, in the order of their labels, which for RGB colours `label_maps.write_label_maps` gives them.
        palette: RGB of each class; of RGB colours, their colours.
        ignored: the label of pixels that do not count, which is in no class.
        problems: what was found while reading.
        class_counts: the number of label maps that have each class, by split.
        ignored_colours: of RGB colours, those of pixels that do not count.
    """

    layout: str
    root: Path
    splits: dict[str, list[tuple[Path, Path]]]
    classes: list[str]
    palette: list[Colour]
    ignored: int | None = 255
    problems: list[Problem] = field(default_factory=list)
    class_counts: dict[str, list[int]] = field(default_factory=dict)
    ignored_colours: list[Colour] = field(default_factory=list)

    @property
    def pictures(self) -> dict[str, list[Path]]:
        """The files of all pictures, by split."""
        return {split: [picture for picture, _ in pairs] for split, pairs in self.splits.items()}
