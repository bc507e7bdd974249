"""Deformable convolution (https://arxiv.org/abs/1703.06211), plain and modulated (https://arxiv.org/abs/1811.11168).

Offsets are ``(N, 2 * deform_groups * kH * kW, H, W)``, pairs of y and x; masks are half as many.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .kernels import full_precision, kernels


class Geometry(NamedTuple):
    """Sizes of a deformable convolution, each as height and width."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deform_groups: int


def _geometry(sizes: dict[str, int]) -> Geometry:
    """From MMCV's keywords for the plain operator."""
    pairs = [(sizes[f'{name}H'], sizes[f'{name}W']) for name in ('k', 'd', 'pad', 'dilation')]
    return Geometry(*pairs, sizes['group'], sizes['deformable_group'])


def _modulated_geometry(sizes: dict[str, int]) -> Geometry:
    """From MMCV's keywords for the modulated operator."""
    pairs = [(sizes[f'{name}_h'], sizes[f'{name}_w']) for name in ('kernel', 'stride', 'pad', 'dilation')]
    return Geometry(*pairs, sizes['group'], sizes['deformable_group'])


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **sizes: int
) -> None:
    output.copy_(kernels.deform_conv2d(*_arguments(input, weight, offset, None, None, _geometry(sizes))))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **sizes: int,
) -> None:
    geometry = _geometry(sizes)
    grads = _backward(gradOutput, *_arguments(input, weight, offset, None, None, geometry))
    gradInput.copy_(grads[0])
    gradOffset.copy_(_offset_grad(grads[2], offset, geometry))


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **sizes: int,
) -> None:
    # The weight's own values do not enter its gradient, only its shape does.
    grads = _backward(gradOutput, *_arguments(input, gradWeight, offset, None, None, _geometry(sizes)))
    gradWeight.add_(grads[1].to(gradWeight.dtype), alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **sizes: int,
) -> None:
    offset, mask = _as_mmcv_reads(offset, output), _as_mmcv_reads(mask, output)
    geometry = _modulated_geometry(sizes)
    output.copy_(kernels.deform_conv2d(*_arguments(input, weight, offset, mask, bias if with_bias else None, geometry)))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **sizes: int,
) -> None:
    offset, mask = _as_mmcv_reads(offset, grad_output), _as_mmcv_reads(mask, grad_output)
    geometry = _modulated_geometry(sizes)
    grads = _backward(grad_output, *_arguments(input, weight, offset, mask, bias if with_bias else None, geometry))
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    _write_as_mmcv_reads(grad_offset, _offset_grad(grads[2], offset, geometry))
    _write_as_mmcv_reads(grad_mask, grads[3])
    if with_bias:
        grad_bias.copy_(grads[4])


def _arguments(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, geometry: Geometry
) -> tuple:
    """What TorchVision's operator takes, which wants a mask and a bias even where it is told not to use them."""
    if bias is None:
        bias = weight.new_zeros(weight.shape[0])
    tensors = (input, weight, offset, input.new_zeros(input.shape[0], 1) if mask is None else mask, bias)
    _, stride, padding, dilation, groups, deform_groups = geometry
    return (*map(full_precision, tensors), *stride, *padding, *dilation, groups, deform_groups, mask is not None)


def _backward(grad_output: Tensor, *arguments: Tensor | int | bool) -> tuple[Tensor, ...]:
    """Gradients of the input, the weight, the offset, the mask and the bias."""
    return kernels._deform_conv2d_backward(full_precision(grad_output), *arguments)


def _offset_grad(grad: Tensor, offset: Tensor, geometry: Geometry) -> Tensor:
    """MMCV's gradient at samples exactly one pixel before the image, where bilinear sampling has a kink: zero.

    With padding 1 and offsets still zero, as every layer starts, all border samples lie there.
    """
    number, _, height, width = offset.shape
    kernel = geometry.kernel
    shape = (number, geometry.deform_groups, kernel[0] * kernel[1], 2, height, width)

    def grid(axis: int, size: int) -> Tensor:
        taps = torch.arange(kernel[axis], device=offset.device) * geometry.dilation[axis]
        steps = torch.arange(size, device=offset.device) * geometry.stride[axis]
        return taps[:, None] + steps - geometry.padding[axis]

    y = grid(0, height)[:, None, :, None].expand(-1, kernel[1], -1, width).flatten(0, 1)
    x = grid(1, width)[None, :, None, :].expand(kernel[0], -1, height, -1).flatten(0, 1)
    samples = offset.view(shape)
    outside = (samples[:, :, :, 0] + y == -1) | (samples[:, :, :, 1] + x == -1)
    return grad.view(shape).masked_fill(outside[:, :, :, None], 0).view_as(grad)


def _as_mmcv_reads(values: Tensor, output: Tensor) -> Tensor:
    """The part of offsets or masks that MMCV's kernel takes where they are larger than the output.

    It reads each image's values one after another in the output's size, and MMDetection's DyHead counts on that.
    """
    height, width = output.shape[-2:]
    channels = values.shape[1]
    return values.flatten(1)[:, : channels * height * width].reshape(-1, channels, height, width)


def _write_as_mmcv_reads(target: Tensor, grad: Tensor) -> None:
    target.zero_().flatten(1)[:, : grad[0].numel()] = grad.flatten(1).to(target.dtype)
