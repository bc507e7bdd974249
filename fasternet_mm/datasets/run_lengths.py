"""Masks of parts of an image as run lengths of the whole one, in COCO's format, without a whole one in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hotcoco import mask as rle


def encode_at(mask: np.ndarray, top: int, left: int, size: Sequence[int]) -> dict[str, Any]:
    """A part of an image's mask as COCO's compressed RLE of the whole one, without a whole one in memory.

    Args:
        mask: bool ``(h, w)``; all else of the image's mask is empty.
        top, left: where in the image the part begins.
        size: height and width of the image.
    """
    # RLE goes down the columns. Of each, runs begin and end where it differs from the pixel above; one that goes on at
    # the top of the next column has end and begin at one place, and is none.
    columns = np.pad(mask.T, ((0, 0), (1, 1)))
    column, row = np.nonzero(columns[:, 1:] != columns[:, :-1])
    places, times = np.unique((left + column) * size[0] + top + row, return_counts=True)
    places = places[(times == 1) & (places < size[0] * size[1])]
    counts = np.diff(np.concatenate([[0], places, [size[0] * size[1]]]))
    return rle.fr_py_objects(dict(size=list(size), counts=counts.tolist()), *size)


def run_ends(encoded: Mapping[str, Any]) -> np.ndarray:
    """Where each run of a compressed RLE ends, in pixels down the columns; runs of zeros and ones take turns.

    The format is that of pycocotools' ``rleToString``: five bits a character, the lowest first; the sixth bit says that
    more follow, and from the fourth number on it is the difference to the last but one.
    """
    text = encoded['counts']
    codes = np.frombuffer(text if isinstance(text, bytes) else text.encode(), np.uint8).astype(np.int64) - 48
    is_last = (codes & 32) == 0
    first = np.flatnonzero(np.concatenate([[True], is_last[:-1]]))
    lengths = np.diff(np.concatenate([first, [len(codes)]]))
    shifts = 5 * (np.arange(len(codes)) - np.repeat(first, lengths))
    counts = np.add.reduceat((codes & 31) << shifts, first)
    counts -= np.where(codes[is_last] & 16, 1 << 5 * lengths, 0)
    counts[1::2] = counts[1::2].cumsum()
    counts[2::2] = counts[2::2].cumsum()
    return counts.cumsum()
