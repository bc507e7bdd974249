"""Images that are larger than what a network sees well, predicted tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor
from tqdm import tqdm

from ..datasets.large_images import LargeImage
from ..datasets.run_lengths import encode_at
from ..engine.logits_hook import has_broken_logits
from ..errors import UserError
from ..models.backbone import InvalidArgument
from .tile_merging import TileObjects, merge_objects

OVERLAP = 0.2
"""The share of a tile's height and width that it has in common with the next one: objects up to that size are whole in
one of the two. SAHI's default (https://arxiv.org/abs/2202.06934 takes 0.25 for training and 0.2 for predictions)."""

OVERLAPS = (0.05, 0.75)
"""The least and the largest overlap. Below, objects at borders are seen by no tile well enough to be known again in the
next one; above, each pixel is predicted sixteen times and more."""

WHOLE_LABELS = '--tile-whole (tile_whole) is for objects, but this model labels pixels: leave it out'

LONG = 5
"""Seconds after which the progress in an image is shown on a terminal."""


@dataclass(frozen=True)
class Tiling:
    """How images are cut.

    Attributes:
        size: height and width of a tile, in pixels of the image.
        overlap: of tiles that follow each other, at least, as a share of their height and width. Default: 0.2.
        whole: whether objects are looked for in the whole image as well, resized as images without tiles are; it
            finds those that are larger than a tile. Default: False.

    Raises:
        InvalidArgument: a side has no pixel, or the overlap is not from 0.05 to 0.75.
    """

    size: tuple[int, ...]
    overlap: float = OVERLAP
    whole: bool = False

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise InvalidArgument(f'tile={self.size!r}: give height and width in pixels, such as (640, 640)')
        if not OVERLAPS[0] <= self.overlap <= OVERLAPS[1]:
            raise InvalidArgument(f'overlap={self.overlap}: give a share of the tile, from 0.05 to 0.75, such as 0.2')

    def divides(self, size: Sequence[int]) -> bool:
        """Whether an image of this height and width is larger than a tile."""
        return size[0] > self.size[0] or size[1] > self.size[1]

    def tiles(self, size: Sequence[int]) -> list[Tile]:
        """The tiles of an image of this height and width, row by row."""
        spans = (spans_of(length, side, self.overlap) for length, side in zip(size, self.size))
        return [Tile(rows, columns) for rows, columns in product(*spans)]


class Span(NamedTuple):
    """The rows, or the columns, of a tile.

    Attributes:
        start, end: the first one, and the one after the last.
        own_start, own_end: the same of those that lie nearer to its middle than to any other tile's.
    """

    start: int
    end: int
    own_start: int
    own_end: int


class Tile(NamedTuple):
    rows: Span
    columns: Span


def spans_of(length: int, side: int, overlap: float) -> list[Span]:
    """Spans of ``side`` pixels, spread evenly over ``length`` pixels, whose overlap is at least a share of ``side``."""
    if length <= side:
        return [Span(0, length, 0, length)]
    step = max(1, math.floor(side * (1 - overlap)))
    count = math.ceil((length - side) / step) + 1
    starts = [round(number * (length - side) / (count - 1)) for number in range(count)]
    middles = [(start + side + after) // 2 for start, after in pairwise(starts)]
    return [Span(start, start + side, *own) for start, own in zip(starts, zip([0, *middles], [*middles, length]))]


def predict_tiles(
    predict: Callable[[dict[str, Any]], Sequence[BaseDataElement]],
    pipeline: Callable[[np.ndarray], dict[str, Any]],
    image: np.ndarray | LargeImage,
    tiling: Tiling,
    batch_size: int = 1,
) -> BaseDataElement:
    """The prediction for an image, put together from those for its tiles.

    Args:
        predict: a model's ``test_step``.
        pipeline: makes its input of a tile.
        image: uint8 ``(H, W, 3)``, BGR; or one that stays in its file.
        tiling: how it is cut.
        batch_size: tiles that go through the network together. Default: 1.

    Returns:
        ``pred_instances`` in pixels of the image, by falling score, with masks as COCO's RLE: see `merge_objects`. Of a
        segmenter ``pred_sem_seg``: each pixel is labeled by the tile in whose middle it is most, which sees most around
        it, so that memory holds one number a pixel and no logits of the image.

    Raises:
        UserError: a segmenter is to look for objects in the whole image.
    """
    size = image.shape[:2]
    label_map, parts, result = torch.zeros(0), [], BaseDataElement()
    for tile, sample in _predicted(predict, pipeline, image, tiling.tiles(size), batch_size):
        if 'pred_sem_seg' in sample:
            if tiling.whole:
                raise UserError(WHOLE_LABELS)
            label_map = _labeled(label_map, tile, sample.pred_sem_seg.data[0], size)
            if has_broken_logits(sample):
                result.seg_logits = sample.seg_logits  # for those who warn of them
        else:
            rows, columns = tile
            area = columns.start, rows.start, columns.end, rows.end
            seen = rows.end - rows.start, columns.end - columns.start
            parts.append(_in_image(sample.pred_instances, area, seen, size))
    if len(label_map):
        result.pred_sem_seg = PixelData(data=label_map[None])
        return result
    if tiling.whole:
        reduced = image if isinstance(image, np.ndarray) else image.reduced
        with torch.no_grad():
            sample = predict(pseudo_collate([pipeline(reduced)]))[0].cpu()
        parts.append(_in_image(sample.pred_instances, (0, 0, size[1], size[0]), reduced.shape[:2], size))
    merged = merge_objects(parts, size)
    columns = dict(bboxes=merged.boxes, scores=merged.scores, labels=merged.labels)
    result.pred_instances = InstanceData(**{name: torch.from_numpy(column) for name, column in columns.items()})
    if merged.masks is not None:
        result.pred_instances.masks = merged.masks
    return result


def _predicted(
    predict: Callable[[dict[str, Any]], Sequence[BaseDataElement]],
    pipeline: Callable[[np.ndarray], dict[str, Any]],
    image: np.ndarray | LargeImage,
    tiles: Sequence[Tile],
    batch_size: int,
) -> Iterator[tuple[Tile, BaseDataElement]]:
    firsts = range(0, len(tiles), batch_size)
    for first in tqdm(firsts, unit='batch of tiles', leave=False, delay=LONG, disable=None):
        batch = tiles[first : first + batch_size]
        inputs = [pipeline(image[rows.start : rows.end, columns.start : columns.end]) for rows, columns in batch]
        with torch.no_grad():
            samples = predict(pseudo_collate(inputs))
        yield from zip(batch, (sample.cpu() for sample in samples))


def _labeled(label_map: Tensor, tile: Tile, labels: Tensor, size: tuple[int, int]) -> Tensor:
    """The label map of an image with a tile's own labels in it: 8 bits a pixel, or 16 where a label needs more."""
    dtype = torch.int16 if label_map.dtype == torch.int16 or labels.max() > 255 else torch.uint8
    if label_map.dtype != dtype:
        label_map = label_map.to(dtype) if len(label_map) else torch.zeros(size, dtype=dtype)
    rows, columns = tile
    own = (slice(span.own_start - span.start, span.own_end - span.start) for span in tile)
    label_map[rows.own_start : rows.own_end, columns.own_start : columns.own_end] = labels[tuple(own)].to(dtype)
    return label_map


def _in_image(
    objects: InstanceData, area: tuple[int, int, int, int], seen: Sequence[int], size: Sequence[int]
) -> TileObjects:
    """The objects of a tile, or of a reduced image, in pixels of the whole image.

    Args:
        objects: as a model gives them.
        area: where the tile lies in the image: xyxy.
        seen: height and width that the model was given for it.
        size: height and width of the image.
    """
    left, top, right, bottom = area
    scale = np.array([(right - left) / seen[1], (bottom - top) / seen[0]] * 2, np.float32)
    return TileObjects(
        area=area,
        boxes=objects.bboxes.numpy().astype(np.float32) * scale + np.array([left, top] * 2, np.float32),
        scores=objects.scores.numpy().astype(np.float32),
        labels=objects.labels.numpy().astype(np.int64),
        masks=[_mask_in_image(mask, area, size) for mask in objects.masks.numpy()] if 'masks' in objects else None,
    )


def _mask_in_image(mask: np.ndarray, area: tuple[int, int, int, int], size: Sequence[int]) -> dict[str, Any]:
    """COCO's RLE, of the whole image, of a mask that covers an area in it, by the nearest pixels."""
    left, top, right, bottom = area
    (row, rows), (column, columns) = (
        _pixels_under(mask.any(axis=axis), length) for axis, length in ((1, bottom - top), (0, right - left))
    )
    return encode_at(mask[np.ix_(rows, columns)], top + row, left + column, size)


def _pixels_under(touched: np.ndarray, length: int) -> tuple[int, np.ndarray]:
    """The first of ``length`` places that lies on a touched pixel, and the pixels under those from it to the last."""
    pixels = ((np.arange(length) + 0.5) * len(touched) / length).astype(int)
    places = np.flatnonzero(touched[pixels])
    return (int(places[0]), pixels[places[0] : places[-1] + 1]) if len(places) else (0, pixels[:0])
