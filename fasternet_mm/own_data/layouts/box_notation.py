"""Whether the numbers of boxes mean what their layout says, or something else that would pass for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...datasets.coco_json import are_coordinates
from .outlines import EDGE, are_four_numbers, as_polygons, extent

MOST = 0.5
"""The share of boxes that must be wrong as they were read before the user is asked whether they mean something else."""

NEARLY_ALL = 0.95
"""The share of boxes that must be sound in another notation before it is suggested: few boxes are so by chance."""

FAR = 0.05
"""The share of an image's side by which a box that is right hardly ever reaches over the edge."""

AT_LEAST = 5
"""The boxes that are needed to suggest another notation: fewer may all be sound in it by chance, as one in four boxes
with swapped corners is."""

NOTATIONS = {
    'COCO': ('x, y, width, height', 'x1, y1, x2, y2'),
    'VIA': ('x, y, width, height', 'x1, y1, x2, y2'),
    'YOLO': ('center x, center y, width, height', 'x1, y1, x2, y2'),
    'Pascal VOC': ('xmin, ymin, xmax, ymax', 'x, y, width, height'),
}
"""The meaning of each layout's four numbers, and the other meaning that people give them by mistake."""


class NumbersAsRead:
    """The boxes of a split as they were read, nothing checked.

    Attributes:
        relative: whether they were fractions of the image's size.
        boxes: x, y, width, height in pixels, of outlines where an object has no box.
        sizes: width and height of each box's image.
        stated: for each box, whether the file states it.
    """

    def __init__(self, relative: bool):
        self.relative = relative
        self.boxes: list[list[float]] = []
        self.sizes: list[tuple[int, int]] = []
        self.stated: list[bool] = []

    def add(self, box: Any, segmentation: Any, size: tuple[int, int]) -> None:
        """Add an object of an image of this height and width."""
        stated = are_four_numbers(box)
        if not stated:
            polygons = as_polygons(segmentation)
            if not polygons or not all(are_coordinates(polygon) and len(polygon) > 1 for polygon in polygons):
                return
            box = extent(polygons)
        height, width = size
        scale = (width, height, width, height) if self.relative else (1, 1, 1, 1)
        self.boxes.append([value * side for value, side in zip(box, scale)])
        self.sizes.append((width, height))
        self.stated.append(stated)


def notation_question(layout: str, numbers: NumbersAsRead) -> str | None:
    """What to ask about the numbers of a split; None where they can be what its layout says.

    Returns:
        A question, with ``{split}`` in the split's place.
    """
    if not numbers.boxes:
        return None
    boxes, sizes, stated = np.array(numbers.boxes, float), np.array(numbers.sizes), np.array(numbers.stated)
    question = _under_a_pixel(boxes, numbers.relative)
    if question is None and numbers.relative:
        question = _far_outside(boxes, sizes)
    return question or _another_notation(layout, boxes[stated], sizes[stated])


def _under_a_pixel(boxes: np.ndarray, relative: bool) -> str | None:
    tiny = (np.abs(boxes[:, 2:]).round(2) < 1).any(1)
    if tiny.mean() <= MOST:
        return None
    what = f'{tiny.sum()} of the {len(tiny)} objects of {{split}} are under a pixel'
    if not relative and ((boxes[tiny] >= 0) & (boxes[tiny] <= 1)).all(1).mean() > MOST:
        return f'{what}: are their coordinates fractions (0 to 1)? Pixels are needed'
    return f'{what}: a model learns nothing from them'


def _far_outside(boxes: np.ndarray, sizes: np.ndarray) -> str | None:
    outside = ((boxes[:, :2] + boxes[:, 2:] / 2) > 2 * sizes).any(1)
    if outside.mean() <= MOST:
        return None
    return (
        f'{outside.sum()} of the {len(boxes)} objects of {{split}} are far outside of their images: are their '
        'coordinates pixels? Fractions (0 to 1) are needed'
    )


def _another_notation(layout: str, boxes: np.ndarray, sizes: np.ndarray) -> str | None:
    if layout not in NOTATIONS or len(boxes) < AT_LEAST:
        return None
    (x, y, w, h), (width, height) = boxes.T, sizes.T
    wrong = (w < 0) | (h < 0) | (x < -FAR * width) | (y < -FAR * height)
    wrong |= (x + w > (1 + FAR) * width) | (y + h > (1 + FAR) * height)
    x1, y1, x2, y2 = _corners_of_the_other(layout, x, y, w, h)
    sound = (x1 >= -EDGE) & (x1 < x2) & (x2 <= width + EDGE) & (y1 >= -EDGE) & (y1 < y2) & (y2 <= height + EDGE)
    if wrong.mean() <= MOST or sound.mean() < NEARLY_ALL:
        return None
    needed, other = NOTATIONS[layout]
    return (
        f'{wrong.sum()} of the {len(wrong)} boxes of {{split}} reach far over the edges of their images or have sides '
        f'below zero: are their numbers {other}? {layout} has {needed}'
    )


def _corners_of_the_other(
    layout: str, x: np.ndarray, y: np.ndarray, w: np.ndarray, h: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The corners x1, y1, x2, y2 of boxes x, y, width, height, whose numbers had the other meaning in `NOTATIONS`."""
    if layout == 'YOLO':
        return x + w / 2, y + h / 2, w, h
    if layout == 'Pascal VOC':
        return x, y, 2 * x + w, 2 * y + h
    return x, y, w, h
