"""Masks in an exported file's outputs, brought into the image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """Where in the image each object is, as MMDetection's ``FCNMaskHead`` says it.

    Bilinear interpolation is a product with one matrix for the rows and one for the columns. They only have to cover
    the pixels of the box.

    Args:
        masks: ``(K, h, w)``, probabilities over each box.
        boxes: ``(K, 4)``, xyxy in pixels of the image.
        height, width: the image's.
        threshold: pixels with at least this probability belong to the object.

    Returns:
        bool ``(K, height, width)``.
    """
    pasted = np.zeros((len(boxes), height, width), dtype=bool)
    masks, boxes = masks.numpy(), boxes.numpy()
    first = np.maximum(np.floor(boxes[:, :2]).astype(int) - 1, 0)
    last = np.maximum(np.minimum(np.ceil(boxes[:, 2:]).astype(int) + 1, (width, height)), first)
    all_columns = _weights(first[:, 0], last[:, 0], boxes[:, 0], boxes[:, 2], masks.shape[2])
    all_rows = _weights(first[:, 1], last[:, 1], boxes[:, 1], boxes[:, 3], masks.shape[1])
    for number in range(len(boxes)):
        (left, top), (right, bottom) = first[number], last[number]
        mask = all_rows[number] @ masks[number] @ all_columns[number].T
        pasted[number, top:bottom, left:right] = mask >= threshold
    return torch.from_numpy(pasted)


def _weights(first: np.ndarray, last: np.ndarray, start: np.ndarray, end: np.ndarray, cells: int) -> list[np.ndarray]:
    """``(pixels, cells)`` per box: how much of each cell is in each pixel from ``first`` up to ``last``."""
    count = last - first
    ends = count.cumsum()
    pixel = np.arange(count.sum()) + (first - ends + count).repeat(count)
    extent = np.maximum(end - start, np.float32(1e-6))  # no division by 0 for a box without extent
    position = (pixel.astype(np.float32) + np.float32(0.5) - start.repeat(count)) / extent.repeat(count)
    position = position * np.float32(cells) - np.float32(0.5)
    weights = np.maximum(1 - np.abs(position[:, None] - np.arange(cells, dtype=np.float32)), 0)
    return np.split(weights, ends[:-1])
