"""RoIPool (Girshick, Fast R-CNN, https://arxiv.org/abs/1504.08083, section 2.1).

RoIs are ``(N, 5)``: number of the image, then x1, y1, x2, y2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .kernels import full_precision, kernels


def _roi_pool_bins(
    rois: Tensor, height: int, width: int, spatial_scale: float, shape: torch.Size
) -> tuple[Tensor, Tensor]:
    """Each bin of each RoI as a RoI of its own in whole pixels ``(N * height * width, 5)``, and which are empty.

    MMCV does not round a RoI before it is cut into bins; TorchVision's kernel does, so it is given the bins instead.
    """

    def edges(start: Tensor, end: Tensor, bins: int, limit: int) -> tuple[Tensor, Tensor]:
        step = ((end - start) / bins)[:, None]
        number = torch.arange(bins, device=rois.device, dtype=rois.dtype)
        first = (number * step + start[:, None]).floor().clamp(0, limit)
        last = ((number + 1) * step + start[:, None]).ceil().clamp(0, limit)
        return first, last

    x1, y1 = (rois[:, 1:3] * spatial_scale).unbind(1)
    x2, y2 = ((rois[:, 3:5] + 1) * spatial_scale).unbind(1)
    left, right = (edge[:, None, :].expand(-1, height, -1) for edge in edges(x1, x2, width, shape[-1]))
    top, bottom = (edge[:, :, None].expand(-1, -1, width) for edge in edges(y1, y2, height, shape[-2]))
    image = rois[:, :1, None].expand(-1, height, width)
    bins = torch.stack((image, left, top, right - 1, bottom - 1), dim=-1).reshape(-1, 5)
    return bins, ((right <= left) | (bottom <= top)).reshape(-1)


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    x = full_precision(input)
    bins, empty = _roi_pool_bins(rois.to(x.dtype), pooled_height, pooled_width, spatial_scale, input.shape)
    pooled, where = kernels.roi_pool(x, bins, 1.0, 1, 1)
    pooled[empty], where[empty] = 0, -1
    shape = (len(rois), pooled_height, pooled_width, -1)
    output.copy_(pooled.reshape(shape).permute(0, 3, 1, 2))
    argmax.copy_(where.reshape(shape).permute(0, 3, 1, 2))


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    grad = full_precision(grad_output)
    bins, _ = _roi_pool_bins(rois.to(grad.dtype), pooled_height, pooled_width, spatial_scale, grad_input.shape)
    # The kernel reads argmax as one block of memory, whatever its strides.
    grad, where = (t.permute(0, 2, 3, 1).reshape(-1, t.shape[1], 1, 1).contiguous() for t in (grad, argmax))
    grad_input.copy_(kernels._roi_pool_backward(grad, bins, where, 1.0, 1, 1, *grad_input.shape))
