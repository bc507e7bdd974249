"""Boxes as offsets from other boxes (Girshick et al., R-CNN, https://arxiv.org/abs/1311.2524, appendix C).

The arithmetic of MMDetection's ``DeltaXYWHBBoxCoder`` to the bit, for boxes of several images. Its own encoder and
decoder copy means and deviations from the host to the device at each call, which stops a GPU.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LARGEST_SCALE = abs(float(np.log(16 / 1000)))
"""The logarithm of how much wider or narrower than its region a decoded box may be, as in MMDetection."""


def encode_boxes(regions: Tensor, boxes: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """Offsets of boxes from regions.

    Args:
        regions, boxes: ``(..., 4)``, xyxy.
        means, stds: ``(4,)``, of the offsets, which are normalized by them.

    Returns:
        ``(..., 4)``: the center's along both axes, and the logarithm of width and height.
    """
    center, extent = _center_and_extent(regions)
    of_box, extent_of_box = _center_and_extent(boxes)
    offsets = torch.cat(((of_box - center) / extent, (extent_of_box / extent).log()), dim=-1)
    return (offsets - means) / stds


def decode_boxes(regions: Tensor, offsets: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """The boxes that lie at offsets from regions: the reverse of `encode_boxes`.

    Args:
        regions: ``(..., 4)``, xyxy.
        offsets: ``(..., 4)``, normalized.
        means, stds: ``(4,)``.

    Returns:
        ``(..., 4)``, xyxy, beyond the edges of the image too.
    """
    offsets = offsets * stds + means
    center, extent = _center_and_extent(regions)
    center = center + extent * offsets[..., :2]
    half = extent * offsets[..., 2:].clamp(-LARGEST_SCALE, LARGEST_SCALE).exp() * 0.5
    return torch.cat((center - half, center + half), dim=-1)


def _center_and_extent(boxes: Tensor) -> tuple[Tensor, Tensor]:
    first, last = boxes[..., :2], boxes[..., 2:]
    return (first + last) * 0.5, last - first
