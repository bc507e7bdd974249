"""What can be wrong with people's own data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Fault(Enum):
    """The kinds of problems, each with a title for people, and whether it is severe: it must be mended before training.

    A problem that is not severe costs at most a single object, or may be intended.
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
    LEARNED_AS_BACKGROUND = 'ignored regions learned as background', False
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
    """One thing that is wrong with a file or folder.

    Attributes:
        file: its path, as the user would write it.
        what: what is wrong. After the file's path it completes a sentence.
        kind: the kind of problem.
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
"""A function that records a problem of one file, from `Problem.what` and the `Fault` (default: malformed)."""


class UnusableError(Exception):
    """An object or file that cannot be used; the message is `Problem.what` of the problem that is to be reported."""

    def __init__(self, what: str, kind: Fault = Fault.MALFORMED):
        super().__init__(what)
        self.kind = kind
