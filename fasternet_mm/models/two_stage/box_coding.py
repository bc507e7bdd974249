"""Boxes as offsets from other boxes (Girshick et al., R-CNN, https://arxiv.org/abs/1311.2524, appendix C).

The arithmetic of MMDetection's ``DeltaXYWHBBoxCoder`` to the bit, for boxes of several images. Its own encoder and
decoder copy means and deviations from the host to the device at each call, which stops a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models.task_modules import DeltaXYWHBBoxCoder
from torch import Tensor, nn

LARGEST_SCALE = abs(float(np.log(16 / 1000)))
"""The logarithm of how much wider or narrower than its region a decoded box may be, as in MMDetection."""


class BoxCoding(nn.Module):
    """`encode_boxes` and `decode_boxes` with the means and deviations of a coder, which move with the model.

    Args:
        coder: of which only these are taken.
    """

    means: Tensor
    stds: Tensor

    def __init__(self, coder: DeltaXYWHBBoxCoder) -> None:
        super().__init__()
        self.register_buffer('means', torch.tensor(coder.means, dtype=torch.float32), persistent=False)
        self.register_buffer('stds', torch.tensor(coder.stds, dtype=torch.float32), persistent=False)

    def encode(self, regions: Tensor, boxes: Tensor) -> Tensor:
        return encode_boxes(regions, boxes, self.means, self.stds)

    def decode(self, regions: Tensor, offsets: Tensor) -> Tensor:
        return decode_boxes(regions, offsets, self.means, self.stds)


def image_limits(batch_img_metas: Sequence[Mapping[str, Any]], like: Tensor) -> Tensor:
    """``(B, 4)``: the largest coordinates of a box in each image, in dtype and device of ``like``."""
    sizes = [meta['img_shape'][:2] for meta in batch_img_metas]
    return to_device([(width, height) * 2 for height, width in sizes], like)


def image_scales(batch_img_metas: Sequence[Mapping[str, Any]], like: Tensor) -> Tensor:
    """``(B, 4)``: what turns a box of each image into the pixels of its original, in dtype and device of ``like``."""
    return to_device([[1 / scale for scale in meta['scale_factor']] * 2 for meta in batch_img_metas], like)


def to_device(values: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """Numbers of each image, in dtype and device of ``like``; a GPU is not waited for."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


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
