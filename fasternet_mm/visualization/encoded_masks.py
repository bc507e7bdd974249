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
        # The pixels of the image in the middle of those of the drawing.
        rows, columns = (
            ((np.arange(side) + 0.5) * length / side).astype(np.int64)
            for side, length in zip(self.size, encoded['size'])
        )
        places = columns * encoded['size'][0] + rows[:, None]
        return np.searchsorted(run_ends(encoded), places, side='right') % 2 == 1
