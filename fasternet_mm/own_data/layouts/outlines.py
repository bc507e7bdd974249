"""Outlines of objects: shapes that people draw, as polygons; and what of polygons and RLE masks can be used."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from hotcoco import mask as rle

from ...datasets.coco_json import are_coordinates, mask_problem
from .problems import Fault, Report, UnusableError

EDGE = 1.0
"""Pixels by which an object may reach over the image's edge without being reported: rounding does that."""

CORNERS = 64
"""Corners of the polygon that stands for an ellipse: with so many it lacks 0.2 % of the area."""


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    """The polygon with these opposite corners."""
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def ellipse(x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0) -> list[float]:
    """A polygon on an ellipse.

    Args:
        x, y: the center.
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


@dataclass(frozen=True, slots=True)
class Outline:
    """An outline that can be used.

    Attributes:
        segmentation: polygons in pixels, in hundredths, cut at the image's edges; or an RLE mask.
        box: x, y, width, height, before anything was cut.
        area: in pixels.
    """

    segmentation: list[list[float]] | dict[str, Any]
    box: list[float]
    area: float


class BadOutlineError(UnusableError):
    """An outline that cannot be used. Its kind of problem counts where there is no box in its place.

    Attributes:
        box: x, y, width, height of its points, where these are known.
    """

    def __init__(self, what: str, kind: Fault = Fault.MALFORMED, box: list[float] | None = None):
        super().__init__(what, kind)
        self.box = box


def read_outline(segmentation: Any, scale: tuple[int, int], size: tuple[int, int], report: Report) -> Outline:
    """What COCO's ``segmentation`` says.

    Args:
        segmentation: an RLE mask; or polygons, as `as_polygons` understands them.
        scale: the factors of x and of y that make them pixels.
        size: height and width of the image.
        report: for parts that are left out.

    Raises:
        BadOutlineError: nothing of it can be used.
    """
    if isinstance(segmentation, dict):
        return _read_mask(segmentation, size)
    polygons = as_polygons(segmentation)
    if polygons is None:
        raise BadOutlineError('has a segmentation that is neither polygons nor RLE')
    return _read_polygons(polygons, scale, size, report)


def as_polygons(segmentation: Any) -> list[list[Any]] | None:
    """Polygons, each x, y, x, y, …, without empty ones; None where there are none.

    The numbers of one polygon without a list around them are understood as well, and points that are pairs.
    """
    if not isinstance(segmentation, list):
        return None
    if all(isinstance(part, (int, float)) for part in segmentation):
        return [segmentation]
    if not all(isinstance(part, list) for part in segmentation):
        return None
    if len(segmentation) > 2 and _are_points(segmentation):
        return [[*chain(*segmentation)]]
    return [[*chain(*part)] if _are_points(part) else part for part in segmentation if part]


def _are_points(values: list[Any]) -> bool:
    return all(isinstance(value, list) and len(value) == 2 for value in values)


def are_four_numbers(values: Any) -> bool:
    """Whether this is a list of numbers that can be a box."""
    return are_coordinates(values) and len(values) == 4


def repeats_box(segmentation: Any, box: Any) -> bool:
    """Whether a segmentation says no more than the box: it is empty, or the box's four numbers or corners again."""
    if isinstance(segmentation, list):
        segmentation = [part for part in segmentation if part != []]
    if not segmentation:
        return True
    numbers = segmentation[0] if isinstance(segmentation, list) and len(segmentation) == 1 else segmentation
    if not are_four_numbers(numbers) or not are_four_numbers(box):
        return False
    x, y, width, height = box
    readings = (box, [x, y, x + width, y + height])
    return any(all(math.isclose(*pair, abs_tol=0.01) for pair in zip(numbers, reading)) for reading in readings)


def reaches_over(box: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether a box x, y, width, height reaches over the edges of an image by more than `EDGE`."""
    x, y, width, height = box
    return min(x, y) < -EDGE or x + width > size[1] + EDGE or y + height > size[0] + EDGE


def _read_mask(mask: dict[str, Any], size: tuple[int, int]) -> Outline:
    problem = mask_problem(mask, size)
    if problem:
        raise BadOutlineError(problem)
    area = float(rle.area(mask))
    if not area:
        raise BadOutlineError('has a mask without a pixel', Fault.EMPTY)
    return Outline(mask, [float(value) for value in rle.to_bbox(mask)], area)


def _read_polygons(polygons: list[list[Any]], scale: tuple[int, int], size: tuple[int, int], report: Report) -> Outline:
    for polygon in polygons:
        if not are_coordinates(polygon):
            what = f'has the polygon {reprlib.repr(polygon)} where numbers up to a million are needed'
            raise BadOutlineError(what, Fault.NOT_A_NUMBER)
        if len(polygon) % 2:
            what = f'has a polygon of {len(polygon)} numbers where x and y of each point are needed'
            raise BadOutlineError(what)
    pixels = [_in_pixels(polygon, scale) for polygon in polygons]
    box = extent(pixels)
    sound = [polygon for polygon in pixels if len(polygon) >= 6]
    if len(sound) < len(pixels):
        points = min(map(len, pixels)) // 2
        what = f'has a polygon of {points} point{"s" if points > 1 else ""} where three are needed'
        if not sound:
            raise BadOutlineError(what, Fault.FEW_POINTS, box)
        report(f'{what}: this part is left out', Fault.FEW_POINTS)
        box = extent(sound)
    if reaches_over(box, size):
        parts = [_inside(polygon, size) for polygon in sound]
        sound = [part for part in parts if part]
    area = _area(sound, size)
    if not area:
        raise BadOutlineError('has an outline that encloses no pixel of the image', Fault.EMPTY, box)
    return Outline(sound, box, area)


def _in_pixels(polygon: list[float], scale: tuple[int, int]) -> list[float]:
    pixels = [0.0] * len(polygon)
    for axis in (0, 1):
        pixels[axis::2] = [round(value * scale[axis] + 0.0, 2) for value in polygon[axis::2]]
    return pixels


def _area(polygons: list[list[float]], size: tuple[int, int]) -> float:
    """The area in pixels of polygons together; 0 where they fill no pixel.

    It is the sum of the polygons' exact areas, unless the pixels that COCO's API fills say otherwise, as they do of
    outlines that cross themselves or each other. Rounding to pixels moves an area by less than a quarter of its rim.
    """
    if not polygons:
        return 0.0
    filled = float(rle.area(rle.merge(rle.fr_py_objects(polygons, *size))))
    exact, rim = 0.0, 0.0
    for polygon in polygons:
        xs, ys = polygon[::2], polygon[1::2]
        sides = [*zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1])]
        exact += abs(sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in sides)) / 2
        rim += sum(math.hypot(x1 - x0, y1 - y0) for x0, y0, x1, y1 in sides)
    agree = filled and exact >= filled / 2 and abs(exact - filled) <= rim / 4 + 1
    return round(exact if agree else filled, 2)


def _inside(polygon: list[float], size: tuple[int, int]) -> list[float]:
    """The part of a polygon in the image: it is cut at one edge after the other (Sutherland and Hodgman, 1974)."""
    points = list(zip(polygon[::2], polygon[1::2]))
    height, width = size
    for axis, length in ((0, width), (1, height)):
        for limit, side in ((0, 1), (length, -1)):
            inside = []
            for start, end in zip(points, points[1:] + points[:1]):
                before, after = (side * (point[axis] - limit) for point in (start, end))
                if before >= 0:
                    inside.append(start)
                if before * after < 0:
                    part = before / (before - after)
                    inside.append(tuple(round(a + part * (b - a), 2) for a, b in zip(start, end)))
            points = inside
    return [value for point in points for value in point] if len(points) > 2 else []


def extent(polygons: Sequence[Sequence[float]]) -> list[float]:
    """The box x, y, width, height of all points of polygons."""
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
