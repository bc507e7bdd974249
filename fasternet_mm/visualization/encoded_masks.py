"""Masks that are decoded when they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hotcoco import mask as rle

from ..datasets.run_lengths import run_ends


@dataclass(frozen=True)
class EncodedMasks:
    """Masks as `draw_objects` takes them, bool ``(h, w)``, one in memory at a time.

    Attributes:
        encoded: COCO's RLE of each.
        size: h and w of the drawing, which may be smaller than the image.
    """

    encoded: Sequence[Mapping[str, Any]]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, number: int) -> np.ndarray:
        encoded = self.encoded[number]
        if self.size == tuple(encoded['size']):
            return rle.decode(encoded).astype(bool)
        # The pixels of the image in the middle of those of the drawing; of these what the box around the mask has.
        left, top, width, height = rle.to_bbox(encoded)
        (rows, in_rows), (columns, in_columns) = (
            _middles(length, side, start, extent)
            for length, side, start, extent in zip(encoded['size'], self.size, (top, left), (height, width))
        )
        places = in_columns * encoded['size'][0] + in_rows[:, None]
        mask = np.zeros(self.size, bool)
        mask[np.ix_(rows, columns)] = np.searchsorted(run_ends(encoded), places, side='right') % 2 == 1
        return mask


def _middles(length: int, side: int, start: float, extent: float) -> tuple[np.ndarray, np.ndarray]:
    """Of ``side`` pixels, those whose middle is in a part of ``length`` pixels, and the pixels of these there."""
    middles = ((np.arange(side) + 0.5) * length / side).astype(np.int64)
    inside = np.flatnonzero((start <= middles) & (middles < start + extent))
    return inside, middles[inside]
