"""RoIAlign (He et al., Mask R-CNN, https://arxiv.org/abs/1703.06870, section 3).

RoIs are ``(K, 5)``: number of the image, then x1, y1, x2, y2. On GPUs TorchVision's kernels compute it.

On the CPU matrix products do. A bin's value is the mean of samples on a grid, interpolated bilinearly: a sum over rows
of a sum over columns. So each RoI is a product of the map with a matrix for the rows and another with one for the
columns, all channels at a time, and the gradient the product with their transposes. TorchVision's kernels take every
sample of every channel by itself, and the gradient's runs on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .kernels import full_precision, kernels, refuse

LARGE_MAP = 2**19
"""Elements per image from which on a channels_last map is read RoI by RoI: smaller ones stay in the cache anyway."""

SMALL_MAP = 2**11
"""Pixels up to which products take whole maps, a few for all RoIs: fewer calls outweigh the pixels outside of RoIs."""

LARGEST_PRODUCT = 2**25
"""Elements of the rows of whole maps in bins, 128 MB; beyond it RoIs are taken one by one."""


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
            if len(own):
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
    settings = *size, spatial_scale, sampling_ratio, aligned
    with torch.autocast('cpu', enabled=False):  # whose products would be in reduced precision
        if x.is_cpu and _is_small(x.shape, len(rois) * size[0]):
            return roi_align_small(x, rois, *settings)
        if is_large_channels_last(x):
            return roi_align_channels_last(x, rois, *settings)
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
    if not len(rois):
        return grad.new_zeros(shape)
    rois = rois.to(grad.dtype)
    batch, _, height, width = shape

    settings = shape, spatial_scale, sampling_ratio, aligned
    if grad.is_cpu:
        small = _is_small(shape, len(rois) * size[0])
        with torch.autocast('cpu', enabled=False):
            return (roi_align_backward_small if small else roi_align_backward_channels_last)(grad, rois, *settings)
    batch, channels, height, width = shape
    sizes = *size, batch, channels, height, width
    return kernels._roi_align_backward(grad, rois, spatial_scale, *sizes, sampling_ratio, aligned)


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
    return x.is_cpu and x.shape[1:].numel() >= LARGE_MAP and x.is_contiguous(memory_format=torch.channels_last)


def _is_small(shape: torch.Size, rows: int) -> bool:
    """Whether whole maps are taken for so many rows of bins."""
    _, channels, height, width = shape
    return height * width <= SMALL_MAP and rows * width * channels <= LARGEST_PRODUCT


def roi_align_channels_last(
    x: Tensor, rois: Tensor, height: int, width: int, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """TorchVision's ``roi_align`` on the CPU, RoI by RoI, for maps whose channels are neighbors in memory.

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
    pixels = x.permute(0, 2, 3, 1)
    parts = _parts(rois, (height, width), x.shape, spatial_scale, sampling_ratio, aligned)
    for (image, top, bottom, left, right), rows, columns, bins in zip(*parts, pooled):
        part = pixels[image, top:bottom, left:right]
        in_rows = torch.mm(rows[:, top:bottom], part.flatten(1)).view(height, right - left, -1)
        torch.bmm(columns[:, left:right].expand(height, -1, -1), in_rows, out=bins)
    return pooled.permute(0, 3, 1, 2)


def roi_align_backward_channels_last(
    grad: Tensor, rois: Tensor, shape: torch.Size, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """The gradient of the maps of TorchVision's ``roi_align`` on the CPU, RoI by RoI.

    Args:
        grad: of the result, ``(K, C, height, width)``, float32 or float64.
        rois: ``(K, 5)``, in the gradient's dtype.
        shape: of the maps.
        spatial_scale, sampling_ratio, aligned: as for `roi_align_channels_last`.

    Returns:
        ``(N, C, H, W)``, channels_last.
    """
    images, channels, map_height, map_width = shape
    pixels = grad.new_zeros(images, map_height, map_width, channels)
    height, width = grad.shape[2:]
    parts = _parts(rois, (height, width), shape, spatial_scale, sampling_ratio, aligned)
    of_bins = grad.permute(0, 2, 3, 1).contiguous()
    for (image, top, bottom, left, right), rows, columns, bins in zip(*parts, of_bins):
        in_rows = torch.bmm(columns[:, left:right].t().expand(height, -1, -1), bins)
        pixels[image, top:bottom, left:right].flatten(1).addmm_(rows[:, top:bottom].t(), in_rows.flatten(1))
    return pixels.permute(0, 3, 1, 2)


def roi_align_small(
    x: Tensor, rois: Tensor, height: int, width: int, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """`roi_align_channels_last`, by products of whole maps in any layout."""
    order, counts = _by_image(rois, len(x))
    _, rows, columns = _parts(rois[order], (height, width), x.shape, spatial_scale, sampling_ratio, aligned)
    maps = x.permute(0, 2, 3, 1).flatten(2).unbind()
    rows = rows.flatten(0, 1).split([count * height for count in counts])
    in_rows = torch.cat([torch.mm(of_image, pixels) for of_image, pixels in zip(rows, maps)])
    pooled = torch.matmul(columns[:, None], in_rows.view(len(rois), height, x.shape[3], x.shape[1]))
    return torch.empty_like(pooled).index_copy_(0, order, pooled).permute(0, 3, 1, 2)


def roi_align_backward_small(
    grad: Tensor, rois: Tensor, shape: torch.Size, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """`roi_align_backward_channels_last`, by products of whole maps."""
    images, channels, map_height, map_width = shape
    order, counts = _by_image(rois, images)
    height, width = grad.shape[2:]
    _, rows, columns = _parts(rois[order], (height, width), shape, spatial_scale, sampling_ratio, aligned)
    in_rows = torch.matmul(columns.transpose(1, 2)[:, None], grad.permute(0, 2, 3, 1)[order])
    counts = [count * height for count in counts]
    parts = zip(rows.flatten(0, 1).split(counts), in_rows.flatten(0, 1).flatten(1).split(counts))
    pixels = torch.stack([torch.mm(rows_of_image.t(), of_image) for rows_of_image, of_image in parts])
    return pixels.view(images, map_height, map_width, channels).permute(0, 3, 1, 2)


def _by_image(rois: Tensor, images: int) -> tuple[Tensor, list[int]]:
    """The numbers of the RoIs, image by image, and how many each image has."""
    numbers = rois[:, 0].long()
    return numbers.argsort(stable=True), numbers.bincount(minlength=images).tolist()


def _parts(
    rois: Tensor, size: tuple[int, int], shape: torch.Size, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> tuple[list[list[int]], Tensor, Tensor]:
    """Where RoIs are, and how much pixels count in their bins.

    Returns:
        Of each RoI the number of its image, the first row of pixels and the end of the rows, and these of its columns;
        ``(K, height, H)``, weights of rows; ``(K, width, W)``, weights of columns.
    """
    if not len(rois):
        return [], rois.new_zeros(0, size[0], shape[2]), rois.new_zeros(0, size[1], shape[3])
    left, top, right, bottom = (rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)).nan_to_num(0.0).unbind(1)
    smallest = -torch.inf if aligned else 1.0
    rows, *ends_of_rows = _bins(top, (bottom - top).clamp(min=smallest), size[0], shape[2], sampling_ratio)
    columns, *ends_of_columns = _bins(left, (right - left).clamp(min=smallest), size[1], shape[3], sampling_ratio)
    places = torch.stack((rois[:, 0].long(), *ends_of_rows, *ends_of_columns), dim=1)
    return places.tolist(), rows, columns


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
