"""One set of objects from those that were found in the tiles of an image.

Usual suppression does not do for tiles: the half of an object that a border cuts off overlaps the whole one too little
to be suppressed by intersection over union, and where it has the higher score it wins. SAHI (https://arxiv.org/abs/
2202.06934) therefore takes the intersection over the smaller of two, and unites them greedily; that also unites a small
object with a large one of its class that it lies in, wherever they are. Here tiles are known, which says more: two
detections are compared only where both tiles see, and there they must agree, since both saw the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hotcoco import mask as rle

from ..datasets.run_lengths import encode_at

NEAR_BORDER = 0.01
"""The share of a tile's height or width, a pixel at least, within which a box that ends near a border is taken for cut
off by it: detectors are not exact to the pixel."""

AGREEING = 0.5
"""The intersection over union, where both tiles see, from which two detections are of one object: the value from which
COCO counts a detection as right at all."""


@dataclass
class TileObjects:
    """The objects that were found in a tile, in pixels of the whole image.

    Attributes:
        area: of the tile: xyxy.
        boxes: float32 ``(n, 4)``, xyxy.
        scores: float32 ``(n,)``.
        labels: int64 ``(n,)``.
        masks: COCO's RLE of each, of the whole image's size; None where the model predicts none.
    """

    area: tuple[int, int, int, int]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[dict[str, Any]] | None = None


def merge_objects(parts: Sequence[TileObjects], size: Sequence[int]) -> TileObjects:
    """The objects of an image, each once and none in halves.

    1. What a border cuts off is left out where another tile sees all of it: that one sees the whole object.
    2. In each pair of tiles that overlap, detections of one class that agree where both tiles see are of one object:
       each with one of the other tile's at most, those first that agree best. Masks are compared where there are any,
       else boxes. Detections of one tile are never compared: its suppression was the model's.
    3. Of all detections of an object, the best that no border cuts off stands for it. Where borders cut off all of
       them, since the object is larger than the overlap, it is all of them together, with the best score.

    Boxes that are not finite stay as they are.

    Args:
        parts: the objects in each tile. A tile that is the whole image may be among them.
        size: height and width of the image.

    Returns:
        By falling score.
    """
    image = (0, 0, size[1], size[0])
    areas = np.array([part.area for part in parts])
    boxes, scores, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS)
    with_masks = any(part.masks is not None for part in parts)
    masks = [mask for part in parts for mask in part.masks or ()] if with_masks else None
    tile_of = np.repeat(np.arange(len(parts)), [len(part.scores) for part in parts])
    is_cut = _is_cut(boxes, areas[tile_of], image)
    cut, left = np.flatnonzero(is_cut), ~is_cut
    seen_whole = np.zeros(len(cut), bool)
    for area in areas[(areas != image).any(axis=1)]:  # the whole image sees small objects worse
        seen_whole |= _lies_inside(boxes[cut], area, image)
    left[cut[~seen_whole]] = True
    groups = _groups(np.flatnonzero(left), areas, tile_of, boxes, labels, masks)
    merged = [_merged(group, boxes, scores, is_cut, masks) for group in groups]
    merged.sort(key=lambda one: -one[1])
    best = [number for number, *_ in merged]
    return TileObjects(
        area=image,
        boxes=np.array([box for *_, box, _ in merged], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, *_ in merged], np.float32),
        labels=labels[best].astype(np.int64),
        masks=None if masks is None else [mask for *_, mask in merged],
    )


_COLUMNS = ('boxes', 'scores', 'labels')


def _room_at_borders(boxes: np.ndarray, areas: np.ndarray, image: Sequence[int]) -> np.ndarray:
    """How far boxes keep away from the four borders of tiles, beyond `NEAR_BORDER`; endless at the image's edges."""
    sides = areas[..., 2:] - areas[..., :2]
    margin = np.maximum(NEAR_BORDER * sides, 1)
    room = np.concatenate([boxes[..., :2] - areas[..., :2], areas[..., 2:] - boxes[..., 2:]], axis=-1)
    return np.where(areas == image, np.inf, room - np.concatenate([margin, margin], axis=-1))


def _is_cut(boxes: np.ndarray, areas: np.ndarray, image: Sequence[int]) -> np.ndarray:
    """Bool ``(n,)``: whether a border of its tile that is not the image's edge cuts an object off."""
    return (_room_at_borders(boxes, areas, image) < 0).any(axis=1)


def _lies_inside(boxes: np.ndarray, area: np.ndarray, image: Sequence[int]) -> np.ndarray:
    """Bool ``(n,)``: whether a tile sees all of a box."""
    return (_room_at_borders(boxes, np.broadcast_to(area, boxes.shape), image) >= 0).all(axis=1)


def _groups(
    left: np.ndarray,
    areas: np.ndarray,
    tile_of: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    masks: list[dict[str, Any]] | None,
) -> list[list[int]]:
    """The detections ``left``, by their numbers, in groups that are of one object."""
    group_of = {number: [number] for number in left.tolist()}
    in_tile = [left[tile_of[left] == tile] for tile in range(len(areas))]
    for one, other, common in _overlapping(areas):
        first, second = in_tile[one], in_tile[other]
        agreement = _box_agreement(boxes[first], boxes[second], common)
        agreement[labels[first][:, None] != labels[second]] = 0
        if masks is not None:
            agreement = _mask_agreement(agreement, first, second, masks, common)
        for row, column in _best_pairs(agreement):
            joined, added = group_of[int(first[row])], group_of[int(second[column])]
            if joined is not added:
                joined += added
                group_of.update(dict.fromkeys(added, joined))
    return list({id(group): group for group in group_of.values()}.values())


def _overlapping(areas: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Two tiles that overlap, by their numbers, and the area that they have in common, xyxy."""
    for one, area in enumerate(areas):
        low, high = np.maximum(area[:2], areas[:, :2]), np.minimum(area[2:], areas[:, 2:])
        for other in np.flatnonzero((low < high).all(axis=1)):
            if other > one:
                yield one, other, np.concatenate([low[other], high[other]])


def _box_agreement(boxes: np.ndarray, others: np.ndarray, common: np.ndarray) -> np.ndarray:
    """``(n, m)``: intersection over union of the parts of boxes in an area that two tiles have in common."""
    low, high = np.tile(common[:2], 2), np.tile(common[2:], 2)
    one, other = np.clip(boxes, low, high).astype(float)[:, None], np.clip(others, low, high).astype(float)
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = sides.clip(0).prod(axis=-1)
    extents = [(each[..., 2:] - each[..., :2]).clip(0).prod(axis=-1) for each in (one, other)]
    union = extents[0] + extents[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _mask_agreement(
    box_agreement: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    masks: list[dict[str, Any]],
    common: np.ndarray,
) -> np.ndarray:
    """The same of masks, for the pairs whose boxes have something in common."""
    left, top, right, bottom = common.tolist()
    area = encode_at(np.ones((bottom - top, right - left), bool), top, left, masks[0]['size'])
    agreement = np.zeros_like(box_agreement)
    rows, columns = np.nonzero(box_agreement)
    inside = {number: rle.merge([masks[number], area], intersect=True) for number in {*first[rows], *second[columns]}}
    for row, column in zip(rows, columns):
        pair = [inside[first[row]], inside[second[column]]]
        union = rle.area(rle.merge(pair, intersect=False))
        agreement[row, column] = rle.area(rle.merge(pair, intersect=True)) / max(union, 1)
    return agreement


def _best_pairs(agreement: np.ndarray) -> list[tuple[int, int]]:
    """Row and column of what agrees, the best pairs first, each row and each column once at most."""
    rows, columns = np.nonzero(agreement >= AGREEING)
    order = np.argsort(-agreement[rows, columns], kind='stable')
    pairs: list[tuple[int, int]] = []
    used: tuple[set[int], set[int]] = (set(), set())
    for row, column in zip(rows[order].tolist(), columns[order].tolist()):
        if row not in used[0] and column not in used[1]:
            pairs.append((row, column))
            used[0].add(row)
            used[1].add(column)
    return pairs


def _merged(
    group: list[int],
    boxes: np.ndarray,
    scores: np.ndarray,
    is_cut: np.ndarray,
    masks: list[dict[str, Any]] | None,
) -> tuple[int, float, np.ndarray, dict[str, Any] | None]:
    """The best of a group by its number, and score, box and mask of the object."""
    group = [number for number in group if not is_cut[number]] or group
    best = max(group, key=scores.__getitem__)
    together = [number for number in group if is_cut[number]] or [best]
    box = np.concatenate([boxes[together, :2].min(axis=0), boxes[together, 2:].max(axis=0)])
    mask = masks and (masks[best] if len(together) == 1 else rle.merge([masks[number] for number in together], False))
    return best, scores[best], box, mask
