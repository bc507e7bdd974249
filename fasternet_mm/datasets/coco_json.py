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


def read_annotations(path: str | PathLike) -> dict[str, Any]:
    """The content of a COCO annotation file: lists ``images``, ``annotations`` and ``categories``, and maybe more.

    Raises:
        UserError: the file is missing, or not COCO annotations.
    """
    content = read_json(path, 'a COCO annotation file')
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


LARGEST_COORDINATE = 2**24
"""Pixels. From here on float32, in which models compute, does not know each pixel."""


def check_objects(path: str | PathLike, content: dict[str, Any]) -> None:
    """Raise `UserError` for objects whose numbers would spoil a training: the first one, and how many there are.

    Boxes and outlines must be numbers of a size that images can have, and RLE masks those of their image's size. What
    MMDetection leaves out by itself, such as objects of no area or of unknown images, may stand.

    Args:
        path: of the annotation file, for the message.
        content: what `read_annotations` returns.
    """
    images = content['images']
    sizes = {image.get('id'): (image.get('height'), image.get('width')) for image in images if isinstance(image, dict)}
    problems = []
    for number, annotation in enumerate(content['annotations']):
        problem = _object_problem(annotation, sizes)
        if problem:
            problems.append((number, problem))
    refuse_bad(path, 'annotation', problems, len(content['annotations']))


def _object_problem(annotation: Any, sizes: dict[Any, tuple[Any, Any]]) -> str | None:
    if not isinstance(annotation, dict):
        return f'is {annotation!r}, and an object with a bbox is needed'
    name = f'(id {annotation.get("id")!r}) has'
    box = annotation.get('bbox')
    if box is not None and not _are_coordinates(box, 4):
        return f'{name} the bbox {box}: four numbers below {LARGEST_COORDINATE:,} are needed'
    segmentation = annotation.get('segmentation')
    if isinstance(segmentation, list) and not all(map(_are_coordinates, segmentation)):
        return f'{name} an outline with what is no number, or none below {LARGEST_COORDINATE:,}'
    size = sizes.get(annotation.get('image_id'))
    if isinstance(segmentation, dict) and size:
        problem = mask_problem(segmentation, size)
        return problem and f'(id {annotation.get("id")!r}) {problem}'
    return None


def _are_coordinates(values: Any, count: int | None = None) -> bool:
    """Whether a list has numbers alone; fast, since COCO has 25 million."""
    try:
        return (
            isinstance(values, list)
            and count in (None, len(values))
            and math.isfinite(sum(values))
            and (not values or -LARGEST_COORDINATE < min(values) <= max(values) < LARGEST_COORDINATE)
        )
    except (TypeError, ValueError, OverflowError):
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
