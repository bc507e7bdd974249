"""RoIAlign (He et al., Mask R-CNN, https://arxiv.org/abs/1703.06870, section 3).

RoIs are ``(K, 5)``: number of the image, then x1, y1, x2, y2. Large channels_last maps on the CPU go to
`roi_align_channels_last`, all others to TorchVision's kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .kernels import full_precision, kernels, refuse

LARGE_MAP = 2**19
"""Elements per image from which on `roi_align_channels_last` is faster: smaller maps stay in the cache anyway."""


class PyramidRoIAlign(Function):
    """RoIAlign of each RoI from one map of a pyramid: `pyramid_roi_align`."""

    @staticmethod
    def forward(
        ctx: Any,
        rois: Tensor,
        order: Tensor,
        counts: Sequence[int],
        spatial_scales: Sequence[float],
        size: tuple[int, int],
        options: tuple[int, bool],
        *maps: Tensor,
    ) -> Tensor:
        count, rois = len(rois), rois[order]
        ctx.save_for_backward(rois, order)
        ctx.shapes, ctx.dtype = [x.shape for x in maps], maps[0].dtype
        ctx.counts, ctx.spatial_scales, ctx.size, ctx.options = counts, spatial_scales, size, options
        pooled = maps[0].new_zeros(count, maps[0].shape[1], *size)
        levels = maps, rois.split(counts), order.split(counts), spatial_scales
        for x, own, places, scale in zip(*levels, strict=True):
            pooled.index_copy_(0, places, align_rois(x, own, size, scale, *options).to(x.dtype))
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rois, order = ctx.saved_tensors
        levels = grad[order].split(ctx.counts), rois.split(ctx.counts), ctx.shapes, ctx.spatial_scales
        grads = [
            _align_rois_backward(part, own, shape, ctx.size, scale, *ctx.options).to(ctx.dtype)
            for part, own, shape, scale in zip(*levels, strict=True)
        ]
        return *[None] * 6, *grads


def pyramid_roi_align(
    maps: Sequence[Tensor],
    rois: Tensor,
    order: Tensor,
    counts: Sequence[int],
    spatial_scales: Sequence[float],
    size: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign of each RoI from one map of a pyramid, differentiable by the maps.

    Coordinates keep their own precision whatever that of the maps is: in bfloat16 those of a large image would be off
    by up to 4 pixels. Maps in reduced precision are computed in float32, and the result is rounded once: TorchVision's
    kernel for float16 wants coordinates in float16, and for bfloat16 it has none.

    Args:
        maps: ``(N, C, H, W)`` per level; all levels of one dtype.
        rois: ``(K, 5)``.
        order: numbers of RoIs, long, level by level. The features of a RoI that is not among them are 0.
        counts: how many RoIs belong to each level.
        spatial_scales: per level, from the image's pixels to the map's.
        size: (height, width) of the result.
        sampling_ratio: samples per bin and axis; 0: as many as its pixels, rounded up.
        aligned: pixels' centers are at half numbers.

    Returns:
        ``(K, C, height, width)`` in the maps' dtype. A level without RoIs has a gradient of zeros.
    """
    return PyramidRoIAlign.apply(rois, order, counts, spatial_scales, size, (sampling_ratio, aligned), *maps)


def align_rois(
    x: Tensor, rois: Tensor, size: tuple[int, int], spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """RoIAlign of one map, not differentiable. Arguments as for `pyramid_roi_align`.

    Returns:
        ``(K, C, height, width)``, in float32 where ``x`` has less.
    """
    x = full_precision(x)
    rois = rois.to(x.dtype)
    if is_large_channels_last(x):
        return roi_align_channels_last(x, rois, *size, spatial_scale, sampling_ratio, aligned)
    return kernels.roi_align(x, rois, spatial_scale, *size, sampling_ratio, aligned)


def _align_rois_backward(
    grad: Tensor,
    rois: Tensor,
    shape: torch.Size,
    size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """The gradient of a map of ``shape``, in float32 where ``grad`` has less."""
    grad = full_precision(grad)
    rois = rois.to(grad.dtype)
    batch, _, height, width = shape

    def backward(part: Tensor) -> Tensor:
        sizes = (*size, batch, part.shape[1], height, width)
        return kernels._roi_align_backward(part, rois, spatial_scale, *sizes, sampling_ratio, aligned)

    if grad.device.type != 'cpu' or not len(rois):
        return backward(grad)
    # On the CPU the kernel runs on one core; channels are independent of each other, so each core takes some.
    parts = grad.chunk(torch.get_num_threads(), dim=1)
    if len(parts) == 1:
        return backward(grad)
    with ThreadPoolExecutor(len(parts)) as threads:
        return torch.cat(list(threads.map(backward, parts)), dim=1)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    if pool_mode == 0:
        refuse('roi_align with pool_mode="max"')
    output.copy_(align_rois(input, rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    size = aligned_height, aligned_width
    grad_input.copy_(
        _align_rois_backward(grad_output, rois, grad_input.shape, size, spatial_scale, sampling_ratio, aligned)
    )


def is_large_channels_last(x: Tensor) -> bool:
    """Whether `roi_align_channels_last` takes the maps ``(N, C, H, W)``, and is worth while."""
    return (
        x.device.type == 'cpu'
        and x.shape[1:].numel() >= LARGE_MAP
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def roi_align_channels_last(
    x: Tensor, rois: Tensor, height: int, width: int, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """TorchVision's ``roi_align``, for maps whose channels are neighbors in memory.

    A bin's value is the mean of samples on a grid, interpolated bilinearly: a sum over rows of a sum over columns. So
    each RoI is a product of its part of the map with a matrix for the rows and another with one for the columns, all
    channels at a time, where TorchVision's kernel takes every sample of every channel, from a copy of the map in NCHW.

    Args:
        x: ``(N, C, H, W)``, channels_last, float32 or float64.
        rois: ``(K, 5)``, in ``x``'s dtype: number of the image, and xyxy in its pixels.
        height, width: bins.
        spatial_scale: from the image's pixels to the map's.
        sampling_ratio: samples per bin and axis; 0: as many as its pixels, rounded up.
        aligned: pixels' centers are at half numbers.

    Returns:
        ``(K, C, height, width)``, channels_last.
    """
    pooled = x.new_empty(len(rois), height, width, x.shape[1])
    if not len(rois):
        return pooled.permute(0, 3, 1, 2)
    left, top, right, bottom = (rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)).nan_to_num(0.0).unbind(1)
    smallest = -torch.inf if aligned else 1.0
    rows, *ends_of_rows = _bins(top, (bottom - top).clamp(min=smallest), height, x.shape[2], sampling_ratio)
    columns, *ends_of_columns = _bins(left, (right - left).clamp(min=smallest), width, x.shape[3], sampling_ratio)
    pixels = x.permute(0, 2, 3, 1)
    places = torch.stack((rois[:, 0].long(), *ends_of_rows, *ends_of_columns), dim=1).tolist()
    for k, (image, top, bottom, left, right) in enumerate(places):
        part = pixels[image, top:bottom, left:right]
        in_rows = torch.mm(rows[k, :, top:bottom], part.flatten(1)).view(height, right - left, -1)
        torch.bmm(columns[k, :, left:right].expand(height, -1, -1), in_rows, out=pooled[k])
    return pooled.permute(0, 3, 1, 2)


def _bins(start: Tensor, extent: Tensor, bins: int, length: int, sampling_ratio: int) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis: ``(K, bins, length)``, weights of pixels in bins; each RoI's first pixel and its end."""
    size = extent / bins
    samples = torch.full_like(size, sampling_ratio) if sampling_ratio > 0 else size.ceil().clamp(min=0)
    number = torch.arange(max(1, int(samples.max())), dtype=size.dtype)
    per_bin = samples[:, None, None].clamp(min=1)
    bin_start = start[:, None] + torch.arange(bins, dtype=size.dtype) * size[:, None]
    place = bin_start[:, :, None] + (number + 0.5) * size[:, None, None] / per_bin
    weight = ((number < samples[:, None, None]) & (place >= -1) & (place <= length)) / per_bin
    place = place.clamp(0, length - 1)
    low = place.long()
    high = (low + 1).clamp(max=length - 1)
    upper = (place - low) * weight
    weights = size.new_zeros(len(size), bins, length)
    weights.scatter_add_(2, low, weight - upper).scatter_add_(2, high, upper)
    return weights, low.flatten(1).amin(1), high.flatten(1).amax(1) + 1
