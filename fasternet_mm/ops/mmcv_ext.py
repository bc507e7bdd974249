"""The module ``mmcv._ext`` on TorchVision's kernels, CPU and CUDA.

Names, arguments and conventions are those of MMCV 2.x's compiled module (``mmcv/ops/csrc/pytorch/pybind.cpp``), which
writes results into tensors that it is given; arguments that TorchVision's kernels do not need are accepted and unused.
TorchVision's CPU kernels take no bfloat16, so reduced precision is computed in float32 and rounded once. Large
channels_last maps go to `roi_align_channels_last` instead.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from fasternet_mm.ops.roi_align import is_large_channels_last, roi_align_channels_last

_kernels = torch.ops.torchvision


def __getattr__(name: str) -> Any:
    """Any operator that is not covered: importing MMCV works, calling the operator says what to do."""
    if name.startswith('_'):
        raise AttributeError(name)

    def not_covered(*args: Any, **kwargs: Any) -> NoReturn:
        _refuse(name)

    return not_covered


def _refuse(operator: str) -> NoReturn:
    raise NotImplementedError(
        f"MMCV's operator {operator!r} is compiled in MMCV and fasternet_mm has no replacement for it: install an mmcv "
        'with compiled operators (mmcv>=2.0,<2.2 beside the PyTorch it was built for, at most 2.1; see '
        'https://mmcv.readthedocs.io/en/2.x/get_started/installation.html) or choose a model without it'
    )


def get_compiler_version() -> str:
    return 'not compiled: fasternet_mm on torchvision ' + torchvision.__version__


get_compiling_cuda_version = get_compiler_version


def _full(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


# Boxes


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Kept indices, by falling score. With offset 1, x2 and y2 are the last pixels inside a box."""
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # MMCV compares in float32: 0.6 there is slightly more than here, which decides for overlaps of exactly 0.6.
    return torchvision.ops.nms(_full(boxes), _full(scores), float(np.float32(iou_threshold)))


def _overlaps(box: np.ndarray, boxes: np.ndarray, offset: int) -> np.ndarray:
    """IoU of one box ``(4,)`` with boxes ``(N, 4)``."""
    size = (np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]) + offset).clip(0)
    inter = size.prod(1)
    area = (box[2:] - box[:2] + offset).prod()
    return inter / (area + (boxes[:, 2:] - boxes[:, :2] + offset).prod(1) - inter)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (https://arxiv.org/abs/1704.04503); ``method`` 0 drops, 1 is linear, 2 Gaussian.

    Writes boxes and decayed scores into the first rows of ``dets`` and returns their indices.
    """
    box = _full(boxes).numpy()
    score = _full(scores).numpy().copy()
    rest = np.arange(len(box))
    kept = []
    while len(rest):
        best = score[rest].argmax()
        chosen = rest[best]
        # The order among equal scores is MMCV's: the chosen box changes places with the first one, and a box that
        # falls below min_score is replaced by the last one.
        rest[best] = rest[0]
        rest = rest[1:]
        kept.append(chosen)
        overlap = _overlaps(box[chosen], box[rest], offset)
        if method == 2:
            score[rest] *= np.exp(-(overlap * overlap) / np.float32(sigma))
        else:
            decay = 1 - overlap if method == 1 else np.zeros_like(overlap)
            score[rest] *= np.where(overlap >= np.float32(iou_threshold), decay, 1)
        dead = score < np.float32(min_score)
        if dead[rest].any():
            queue, position = rest.tolist(), 0
            while position < len(queue):
                if dead[queue[position]]:
                    queue[position] = queue[-1]
                    queue.pop()
                else:
                    position += 1
            rest = np.array(queue, dtype=rest.dtype)
    kept = torch.tensor(kept, dtype=torch.long)
    dets[: len(kept)] = torch.cat((boxes[kept], torch.from_numpy(score)[kept, None].to(boxes.dtype)), dim=1)
    return kept


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Per kept detection: its index, then the indices of those that it suppressed. ``dets`` is ``(N, 5)``."""
    array = _full(dets).cpu().numpy()
    rest = _full(dets[:, 4]).sort(descending=True, stable=True).indices.cpu().numpy()
    groups = []
    while len(rest):
        chosen, rest = rest[0], rest[1:]
        matched = _overlaps(array[chosen, :4], array[rest, :4], 0) >= np.float32(iou_threshold)
        groups.append([int(chosen), *rest[matched].tolist()])
        rest = rest[~matched]
    return groups


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """IoU (mode 0) or intersection over the first box's area (mode 1), of pairs or of all with all."""
    from mmcv.ops.bbox import _bbox_overlaps_cpu  # plain PyTorch; mmcv.ops imports this module first

    ious.copy_(_bbox_overlaps_cpu(_full(bboxes1), _full(bboxes2), ('iou', 'iof')[mode], aligned, offset))


# Regions of interest: rois are (N, 5), image index, then x1, y1, x2, y2


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
        _refuse('roi_align with pool_mode="max"')
    x = _full(input)
    rois = rois.to(x.dtype)
    size = aligned_height, aligned_width
    if is_large_channels_last(x):
        output.copy_(roi_align_channels_last(x, rois, *size, spatial_scale, sampling_ratio, aligned))
    else:
        output.copy_(_kernels.roi_align(x, rois, spatial_scale, *size, sampling_ratio, aligned))


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
    grad = _full(grad_output)
    rois = rois.to(grad.dtype)
    batch, _, height, width = grad_input.shape

    def backward(part: Tensor) -> Tensor:
        size = (aligned_height, aligned_width, batch, part.shape[1], height, width)
        return _kernels._roi_align_backward(part, rois, spatial_scale, *size, sampling_ratio, aligned)

    if grad.is_cuda:
        grad_input.copy_(backward(grad))
        return
    # On the CPU the kernel runs on one core; channels are independent of each other, so each core takes some.
    parts = grad.chunk(torch.get_num_threads(), dim=1)
    with ThreadPoolExecutor(len(parts)) as threads:
        grad_input.copy_(torch.cat(list(threads.map(backward, parts)), dim=1))


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
    x = _full(input)
    bins, empty = _roi_pool_bins(rois.to(x.dtype), pooled_height, pooled_width, spatial_scale, input.shape)
    pooled, where = _kernels.roi_pool(x, bins, 1.0, 1, 1)
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
    grad = _full(grad_output)
    bins, _ = _roi_pool_bins(rois.to(grad.dtype), pooled_height, pooled_width, spatial_scale, grad_input.shape)
    # The kernel reads argmax as one block of memory, whatever its strides.
    grad, where = (t.permute(0, 2, 3, 1).reshape(-1, t.shape[1], 1, 1).contiguous() for t in (grad, argmax))
    grad_input.copy_(_kernels._roi_pool_backward(grad, bins, where, 1.0, 1, 1, *grad_input.shape))


# Deformable convolution: offsets are (N, 2 * deform_groups * kH * kW, H, W), pairs of y and x


def _deform_conv_args(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    deform_groups: int,
) -> tuple:
    """What TorchVision's operator takes, which wants a mask and a bias even where it is told not to use them."""
    if bias is None:
        bias = weight.new_zeros(weight.shape[0])
    tensors = (input, weight, offset, input.new_zeros(input.shape[0], 1) if mask is None else mask, bias)
    return (*map(_full, tensors), *stride, *padding, *dilation, groups, deform_groups, mask is not None)


def _offset_grad(
    grad: Tensor,
    offset: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    deform_groups: int,
) -> Tensor:
    """MMCV's gradient at samples exactly one pixel before the image, where bilinear sampling has a kink: zero.

    With padding 1 and offsets still zero, as every layer starts, all border samples lie there.
    """
    number, _, height, width = offset.shape
    shape = (number, deform_groups, kernel[0] * kernel[1], 2, height, width)

    def grid(axis: int, size: int) -> Tensor:
        taps = torch.arange(kernel[axis], device=offset.device) * dilation[axis]
        return taps[:, None] + torch.arange(size, device=offset.device) * stride[axis] - padding[axis]

    y = grid(0, height)[:, None, :, None].expand(-1, kernel[1], -1, width).flatten(0, 1)
    x = grid(1, width)[None, :, None, :].expand(kernel[0], -1, height, -1).flatten(0, 1)
    samples = offset.view(shape)
    outside = (samples[:, :, :, 0] + y == -1) | (samples[:, :, :, 1] + x == -1)
    return grad.view(shape).masked_fill(outside[:, :, :, None], 0).view_as(grad)


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    output.copy_(_kernels.deform_conv2d(*_deform_conv_args(input, weight, offset, None, None, *geometry)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    grads = _kernels._deform_conv2d_backward(
        _full(gradOutput), *_deform_conv_args(input, weight, offset, None, None, *geometry)
    )
    gradInput.copy_(grads[0])
    gradOffset.copy_(_offset_grad(grads[2], offset, (kH, kW), *geometry))


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    # The weight's own values do not enter its gradient, only its shape does.
    grads = _kernels._deform_conv2d_backward(
        _full(gradOutput), *_deform_conv_args(input, gradWeight, offset, None, None, *geometry)
    )
    gradWeight.add_(grads[1].to(gradWeight.dtype), alpha=scale)


def _as_mmcv_reads(values: Tensor, output: Tensor) -> Tensor:
    """The part of offsets or masks that MMCV's kernel takes where they are larger than the output.

    It reads each image's values one after another in the output's size, and MMDetection's DyHead counts on that.
    """
    height, width = output.shape[-2:]
    channels = values.shape[1]
    return values.flatten(1)[:, : channels * height * width].reshape(-1, channels, height, width)


def _write_as_mmcv_reads(target: Tensor, grad: Tensor) -> None:
    target.zero_().flatten(1)[:, : grad[0].numel()] = grad.flatten(1).to(target.dtype)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    geometry = ((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)
    bias = bias if with_bias else None
    offset, mask = _as_mmcv_reads(offset, output), _as_mmcv_reads(mask, output)
    output.copy_(_kernels.deform_conv2d(*_deform_conv_args(input, weight, offset, mask, bias, *geometry)))


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
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    geometry = ((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)
    offset, mask = _as_mmcv_reads(offset, grad_output), _as_mmcv_reads(mask, grad_output)
    args = _deform_conv_args(input, weight, offset, mask, bias if with_bias else None, *geometry)
    grads = _kernels._deform_conv2d_backward(_full(grad_output), *args)
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    _write_as_mmcv_reads(grad_offset, _offset_grad(grads[2], offset, (kernel_h, kernel_w), *geometry))
    _write_as_mmcv_reads(grad_mask, grads[3])
    if with_bias:
        grad_bias.copy_(grads[4])


# Focal loss (https://arxiv.org/abs/1708.02002): input (N, C), target (N,) with C for background, weight (C,) or empty


def _sigmoid_focal_loss(input: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    classes = torch.arange(input.shape[1], device=input.device)
    one_hot = (target[:, None] == classes).to(input.dtype)
    loss = torchvision.ops.sigmoid_focal_loss(input, one_hot, alpha=alpha, gamma=gamma)
    if weight.numel():
        loss = loss * F.pad(weight, (0, 1), value=1.0)[target][:, None]  # background counts once
    return loss


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    output.copy_(_sigmoid_focal_loss(_full(input), target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    with torch.enable_grad():
        x = _full(input).detach().requires_grad_()
        loss = _sigmoid_focal_loss(x, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, x)[0])
