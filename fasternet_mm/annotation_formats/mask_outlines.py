"""Masks as polygons, for formats and tools that know no masks; and polygons as masks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from hotcoco import mask as rle

from .labeled_images import LabeledObject, Segmentation

LEAST_TOLERANCE = 0.25
"""Pixels under which polygons go around every pixel: half of what stairs stand out from their line."""

TOLERANCES = (2.0, 1.0, 0.7, 0.5, 0.35, LEAST_TOLERANCE, 0.0)
"""Pixels by which polygons may leave the edge of a mask, the first that is close enough: a person who corrects an
outline is glad of few corners."""

STAIR = 1.0
"""Pixels of the longest side that counts as a stair of a slanted edge."""

CLOSE_ENOUGH = 0.98
"""The least intersection over union of a mask and the polygons that are written for it."""

EQUAL = 0.015
"""Pixels by which two coordinates may differ that say the same: each is rounded to hundredths."""


def to_rle(segmentation: Segmentation, size: tuple[int, int]) -> dict[str, Any]:
    """The pixels that a segmentation fills, as COCO's API fills polygons, in an image of this height and width."""
    if isinstance(segmentation, dict):
        return segmentation
    return rle.merge(rle.fr_py_objects(segmentation, *size))


def encode_region(region: np.ndarray) -> dict[str, Any]:
    """The RLE of a mask, bool ``(H, W)``, as JSON holds it."""
    encoded = rle.encode(np.asfortranarray(region, np.uint8))
    counts = encoded['counts']
    return dict(size=list(region.shape), counts=counts.decode() if isinstance(counts, bytes) else counts)


def without_holes(segmentation: Segmentation) -> Segmentation:
    """A mask as polygons, which people can correct point by point; as it is where it has holes, or are polygons."""
    if isinstance(segmentation, list):
        return segmentation
    rings, holes = _rings(segmentation)
    if not rings or holes:
        return segmentation
    for tolerance in TOLERANCES:
        polygons = [_simplified(ring, tolerance).ravel().tolist() for ring in rings]
        if _is_close(polygons, segmentation):
            return polygons
    return segmentation


def one_polygon(segmentation: Segmentation, size: tuple[int, int]) -> list[float]:
    """A segmentation as a single polygon, for formats that have no more for an object.

    Parts and holes are joined by cuts of no width, there and back between the nearest corners: under the rule that
    fills what is enclosed an odd number of times (even-odd), which COCO's API, OpenCV and Pillow follow, these enclose
    nothing. Parts that overlap are made one first, since that rule would empty what is enclosed twice.

    Args:
        segmentation: polygons, or a mask with at least a pixel.
        size: height and width of the image.
    """
    if isinstance(segmentation, list):
        if len(segmentation) == 1:
            return segmentation[0]
        joined = _joined([np.reshape(polygon, (-1, 2)) for polygon in segmentation])
        segmentation = to_rle(segmentation, size)
        if _is_close([joined], segmentation):
            return joined
    rings, holes = _rings(segmentation)
    for tolerance in TOLERANCES:
        joined = _joined([_simplified(ring, tolerance) for ring in (*rings, *holes)])
        if _is_close([joined], segmentation):
            break
    return joined


def has_cuts(segmentation: Segmentation) -> bool:
    """Whether `one_polygon` has to join parts or holes."""
    if isinstance(segmentation, list):
        return len(segmentation) > 1
    rings, holes = _rings(segmentation)
    return len(rings) + len(holes) > 1


def box_differs(obj: LabeledObject) -> bool:
    """Whether an object's box is another than that of its outline."""
    if isinstance(obj.segmentation, dict):
        x, y, width, height = map(float, rle.to_bbox(obj.segmentation))
        corners = [x, y, x + width, y + height]
    else:
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in obj.segmentation])
        corners = [*points.min(0), *points.max(0)]
    x, y, width, height = obj.box
    return any(abs(a - b) > EQUAL for a, b in zip(corners, (x, y, x + width, y + height)))


def _is_close(polygons: list[list[float]], mask: dict[str, Any]) -> bool:
    height, width = mask['size']
    return rle.iou([to_rle(polygons, (height, width))], [mask], [0])[0][0] >= CLOSE_ENOUGH


def _rings(mask: dict[str, Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outer rings and holes of a mask, each float32 ``(n, 2)``, x and y of its corners in pixels.

    OpenCV's contours go through the middle of pixels, which makes masks smaller by half a pixel all around. So they are
    looked for on the grid of the pixels' corners and middles, where each pixel of the mask is 3×3 points.
    """
    pixels = rle.decode(mask)
    left, top, width, height = cv2.boundingRect(pixels)
    grid = np.zeros((2 * height + 1, 2 * width + 1), np.uint8)
    grid[1::2, 1::2] = pixels[top : top + height, left : left + width]
    grid = cv2.dilate(grid, np.ones((3, 3), np.uint8))
    contours, hierarchy = cv2.findContours(grid, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings: list[np.ndarray] = []
    holes: list[np.ndarray] = []
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0] if contours else ()):
        corners = _along_pixels(contour[:, 0], grid) / 2 + (left, top)
        (rings if parent < 0 else holes).append(corners.astype(np.float32))
    return rings, holes


def _along_pixels(contour: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The corners of a contour without the slanted steps by which OpenCV cuts inner corners off."""
    following = np.roll(contour, -1, axis=0)
    slanted = (contour != following).all(axis=1)
    corners = np.stack([following[:, 0], contour[:, 1]], axis=1)
    outside = grid[corners[:, 1], corners[:, 0]] == 0
    corners[outside] = np.stack([contour[:, 0], following[:, 1]], axis=1)[outside]
    ring = np.insert(contour, np.flatnonzero(slanted) + 1, corners[slanted], axis=0)
    steps = np.roll(ring, -1, axis=0) - ring
    return ring[(steps != np.roll(steps, 1, axis=0)).any(axis=1)]


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """A ring with fewer corners (Douglas and Peucker, 1973), in the same box: the outermost on each side stay.

    Of small rings the tolerance is a tenth of the shorter side at most, lest a pixel become a triangle.
    """
    tolerance = min(tolerance, 0.1 * np.ptp(ring, axis=0).min())
    if tolerance < LEAST_TOLERANCE:
        return ring
    ring = _without_stairs(ring)
    outermost = {int(ring[:, axis].argmin()) for axis in (0, 1)} | {int(ring[:, axis].argmax()) for axis in (0, 1)}
    first, *others = sorted(outermost)
    ring = np.concatenate([ring[first:], ring[: first + 1]])
    ends = [0, *(other - first for other in others), len(ring) - 1]
    arcs = [cv2.approxPolyDP(ring[a : b + 1], tolerance, closed=False)[:-1, 0] for a, b in pairwise(ends)]
    simplified = np.concatenate(arcs)
    return simplified if len(simplified) > 2 else ring[:-1]


def _without_stairs(ring: np.ndarray) -> np.ndarray:
    """The middles of a ring's sides, which lie on the line that pixels stand for as stairs, and corners of long sides.

    It has the same box.
    """
    following = np.roll(ring, -1, axis=0)
    lengths = np.abs(following - ring).sum(axis=1)
    is_corner = (lengths > STAIR) & (np.roll(lengths, 1) > STAIR)
    points = np.stack([ring, (ring + following) / 2], axis=1)
    return points[np.stack([is_corner, np.ones_like(is_corner)], axis=1)]


def _joined(rings: Sequence[np.ndarray]) -> list[float]:
    """Rings as one, x, y, x, y, …: each next one is entered and left between the two corners that are nearest."""
    whole, *others = rings
    for ring in others:
        distances = ((whole[:, None] - ring[None]) ** 2).sum(-1)
        leave, enter = np.unravel_index(distances.argmin(), distances.shape)
        whole = np.concatenate([whole[: leave + 1], ring[enter:], ring[: enter + 1], whole[leave:]])
    return np.asarray(whole, float).ravel().tolist()
