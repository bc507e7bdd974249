"""COCO annotation files (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any

from hotcoco import mask as rle

from ..errors import UserError

LARGEST_COORDINATE = 1_000_000
"""The largest coordinate that is accepted, in pixels or fractions: larger ones come of mistakes."""


def read_annotations(path: str | PathLike) -> dict[str, Any]:
    """The content of a COCO annotation file: lists ``images``, ``annotations`` and ``categories``, and maybe more.

    Raises:
        UserError: the file is missing, or not COCO annotations.
    """
    content = read_json(path, 'a COCO annotation file')
    if isinstance(content, list) and all(isinstance(record, dict) for record in content):
        raise UserError(
            f'{path} holds a list, as results do, not COCO annotations: give the results first, then the annotations'
        )
    parts = ('images', 'annotations', 'categories')
    lacking = [part for part in parts if not isinstance(content, dict) or not isinstance(content.get(part), list)]
    if lacking:
        raise UserError(f'{path} is JSON but not COCO annotations: it has no list {", ".join(lacking)}')
    if not all(isinstance(category, dict) and {'id', 'name'} <= category.keys() for category in content['categories']):
        raise UserError(f'{path} is not COCO annotations: each of its categories needs an id and a name')
    return content


def read_json(path: str | PathLike, needed: str) -> Any:
    """The content of a JSON file; ``needed`` says what it should be, for messages.

    Raises:
        UserError: the file is missing, empty, or not JSON.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}): {needed} is needed') from error
    if not text.strip():
        raise UserError(f'{path} is empty: {needed} is needed')
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is not JSON ({error}): {needed} is needed') from error


def refuse_bad(source: str | PathLike, kind: str, problems: Sequence[tuple[int, str]], count: int) -> None:
    """Raise `UserError` with the first of the problems, each a position and what is wrong there."""
    if problems:
        number, problem = problems[0]
        raise UserError(f'{source}: {kind} {number} {problem} ({len(problems)} of {count} are bad, counted from 0)')


def are_coordinates(values: Any) -> bool:
    """Whether this is a list of numbers that can be coordinates; fast, since large data sets have tens of millions."""
    try:
        if not isinstance(values, list):
            return False
        if math.hypot(*values) <= LARGEST_COORDINATE:  # never less than the largest of them; NaN is not less either
            return True
        return math.isfinite(sum(values)) and -LARGEST_COORDINATE <= min(values) <= max(values) <= LARGEST_COORDINATE
    except (TypeError, OverflowError):
        return False


def is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def whole_number(value: Any) -> int | None:
    """An id as an integer of 64 bits, which 7.0 is too; None for anything else, such as '7' or True."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole and not (isinstance(value, float) and value.is_integer()):
        return None
    return int(value) if -(2**63) <= value < 2**63 else None


def is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(is_finite, box)) and min(box[2:]) >= 0


def mask_problem(mask: Any, size: tuple[int, int]) -> str | None:
    """What is wrong with an RLE mask of an image of that height and width."""
    if not isinstance(mask, dict) or not isinstance(mask.get('counts'), (str, list)):
        return 'has a segmentation that is not RLE: a size and counts are needed'
    if mask.get('size') != list(size):
        return f'has a mask of size {mask.get("size")}, its image {list(size)} (height, width)'
    try:
        rle.area(mask)
    except (ValueError, TypeError, OverflowError) as error:
        return f'has a malformed mask ({error})'
    try:
        # One pixel less is too small for every whole mask.
        rle.area(dict(size=[1, size[0] * size[1] - 1], counts=mask['counts']))
    except ValueError:
        return None
    return 'has a mask whose counts end before the image does'
