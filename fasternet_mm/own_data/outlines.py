"""Shapes that people draw, as polygons."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .normal_form import AnnotatedPicture

CORNERS = 64
"""Of a polygon in place of an ellipse: it lacks 0.2 % of its area."""


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    """The polygon with these opposite corners."""
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def ellipse(x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0) -> list[float]:
    """A polygon on an ellipse.

    Args:
        x, y: the centre.
        radius_x, radius_y: half the axes.
        angle: by which the first axis is turned from x towards y, in radians.
    """
    points = []
    for number in range(CORNERS):
        turn = 2 * math.pi * number / CORNERS
        along, across = radius_x * math.cos(turn), radius_y * math.sin(turn)
        points += [
            x + along * math.cos(angle) - across * math.sin(angle),
            y + along * math.sin(angle) + across * math.cos(angle),
        ]
    return points


def rectangles_are_boxes(pictures: Iterable[AnnotatedPicture]) -> None:
    """Drop the polygons where all that was drawn in a data set is rectangles: these are boxes, not outlines.

    Objects that are drawn as rectangles have ``box`` as well as ``segmentation``. Among other shapes, a rectangle is
    the outline of something rectangular.
    """
    objects = [obj for picture in pictures for obj in picture.objects]
    if all(obj.box is not None for obj in objects):
        for obj in objects:
            obj.segmentation = None
