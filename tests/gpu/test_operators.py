"""Operators on the GPU against the same on the CPU, where tests/ops compares them with known answers."""

from typing import NamedTuple

import mmcv.ops
import numpy as np
import pytest
import torch
from torch import Tensor

from fasternet_mm.ops.roi_align import pyramid_roi_align

CHANNELS, SIDE, SCALE = 32, 20, 0.25


class Inputs(NamedTuple):
    """Boxes are in pixels of images of 80x80, maps are a quarter of them."""

    boxes: Tensor
    scores: Tensor
    maps: Tensor
    coarse: Tensor
    rois: Tensor
    offsets: Tensor
    masks: Tensor
    weight: Tensor

    def to(self, *args):
        return Inputs(*(tensor.to(*args) for tensor in self))


@pytest.fixture(scope='module')
def inputs():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    count, images = 200, 2
    start, size = (torch.rand(2, count, 2, generator=generator) * torch.tensor([60, 40]).view(2, 1, 1)).unbind()
    boxes = torch.cat((start, start + size + 1), dim=1)
    return Inputs(
        boxes=boxes,
        scores=torch.linspace(0.05, 0.95, count)[torch.randperm(count, generator=generator)],
        maps=normal(images, CHANNELS, SIDE, SIDE),
        coarse=normal(images, CHANNELS, SIDE // 2, SIDE // 2),
        rois=torch.cat((torch.arange(count)[:, None] % images, boxes), dim=1),
        offsets=normal(images, 18, SIDE, SIDE),
        masks=normal(images, 9, SIDE, SIDE).sigmoid(),
        weight=normal(4, CHANNELS, 3, 3),
    )


def overlaps(boxes, **options):
    return (mmcv.ops.bbox_overlaps(boxes, boxes.flip(0), **options),)


ON_BOXES = {
    'nms': lambda x: mmcv.ops.nms(x.boxes, x.scores, 0.5),
    'nms to the last pixel': lambda x: mmcv.ops.nms(x.boxes, x.scores, 0.5, offset=1),
    'linear soft_nms': lambda x: mmcv.ops.soft_nms(x.boxes, x.scores, 0.3, method='linear'),
    'gaussian soft_nms': lambda x: mmcv.ops.soft_nms(x.boxes, x.scores, 0.3, method='gaussian'),
    'naive soft_nms': lambda x: mmcv.ops.soft_nms(x.boxes, x.scores, 0.3, method='naive'),
    'nms_match': lambda x: mmcv.ops.nms_match(torch.cat((x.boxes, x.scores[:, None]), dim=1), 0.5),
    'bbox_overlaps': lambda x: overlaps(x.boxes),
    'bbox_overlaps iof': lambda x: overlaps(x.boxes, mode='iof', offset=1),
    'bbox_overlaps of pairs': lambda x: overlaps(x.boxes, aligned=True),
}


def roi_align(x, aligned=True, sampling_ratio=0):
    return mmcv.ops.roi_align(x.maps, x.rois, (7, 7), SCALE, sampling_ratio, 'avg', aligned)


def roi_pool(x):
    # Into 4x4 bins, whose edges are exact: of 7x7, CPU and GPU round some edges to different pixels.
    return mmcv.ops.roi_pool(x.maps, x.rois, (4, 4), SCALE)


def deform_conv(x):
    return mmcv.ops.deform_conv2d(x.maps, x.offsets, x.weight, 1, 1)


def modulated_deform_conv(x):
    return mmcv.ops.modulated_deform_conv2d(x.maps, x.offsets, x.masks, x.weight, None, 1, 1)


def focal_loss(x, weight=None):
    logits = x.maps.movedim(1, -1).flatten(0, -2)
    targets = torch.arange(len(logits), device=logits.device) % (CHANNELS + 1)  # the last one is background
    return mmcv.ops.sigmoid_focal_loss(logits, targets, 2.0, 0.25, weight, 'none')


def weighted_focal_loss(x):
    return focal_loss(x, torch.linspace(0.5, 2, CHANNELS, device=x.maps.device).to(x.maps.dtype))


def aligned_in_a_pyramid(x):
    """Three RoIs of four are on the fine map, one on the coarse one, and the last ten on none."""
    numbers = torch.arange(len(x.rois) - 10, device=x.rois.device)
    fine = numbers % 4 < 3
    order = torch.cat((numbers[fine], numbers[~fine]))
    counts = [int(fine.sum()), int((~fine).sum())]
    rois = x.rois.float()  # coordinates keep their precision
    return pyramid_roi_align([x.maps, x.coarse], rois, order, counts, [SCALE, SCALE / 2], (7, 5), 0, True)


DIFFERENTIABLE = {
    'roi_align': roi_align,
    'roi_align not aligned': lambda x: roi_align(x, aligned=False, sampling_ratio=2),
    'roi_pool': roi_pool,
    'deform_conv2d': deform_conv,
    'modulated_deform_conv2d': modulated_deform_conv,
    'sigmoid_focal_loss': focal_loss,
    'sigmoid_focal_loss of weighted classes': weighted_focal_loss,
    'pyramid_roi_align': aligned_in_a_pyramid,
}

LEARNED = 'maps', 'coarse', 'offsets', 'masks', 'weight'

TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-3}
"""Of the largest value. Sums are in another order on a GPU, and what is in float16 is rounded once."""


def assert_near(actual, expected, tolerance):
    actual, expected = torch.as_tensor(actual).cpu(), torch.as_tensor(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    if expected.numel():
        limit = tolerance * max(1e-6, expected.abs().max().item())
        torch.testing.assert_close(actual, expected, rtol=0, atol=limit)


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('operator', ON_BOXES.values(), ids=ON_BOXES)
def test_boxes_are_as_on_the_cpu(operator, dtype, inputs, device):
    inputs = inputs.to(dtype)
    results, expected = operator(inputs.to(device)), operator(inputs)
    assert len(results) == len(expected) > 0
    for result, of_cpu in zip(results, expected):
        assert_near(result, of_cpu, TOLERANCES[dtype])
        assert isinstance(result, np.ndarray) or result.device.type == device


def value_and_gradients(operator, inputs):
    leaves = [getattr(inputs, name).detach().requires_grad_() for name in LEARNED]
    value = operator(inputs._replace(**dict(zip(LEARNED, leaves))))
    weights = torch.linspace(0.5, 1, value.numel(), device=value.device).view(value.shape)
    gradients = torch.autograd.grad((value.float() * weights).sum(), leaves, allow_unused=True)
    return value, {name: gradient for name, gradient in zip(LEARNED, gradients) if gradient is not None}


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('operator', DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_values_and_gradients_are_as_on_the_cpu(operator, dtype, inputs, device):
    inputs = inputs.to(dtype)
    value, gradients = value_and_gradients(operator, inputs.to(device))
    expected, expected_gradients = value_and_gradients(operator, inputs)
    assert value.device.type == device
    assert expected.abs().max() > 0
    assert_near(value.detach(), expected.detach(), TOLERANCES[dtype])
    assert gradients.keys() == expected_gradients.keys() >= {'maps'}
    for name, gradient in gradients.items():
        assert expected_gradients[name].abs().max() > 0
        assert_near(gradient, expected_gradients[name], TOLERANCES[dtype])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_in_a_pyramid_coordinates_are_not_rounded(dtype, inputs, device):
    inputs = inputs.to(device)
    exact = aligned_in_a_pyramid(
        inputs._replace(maps=inputs.maps.to(dtype).float(), coarse=inputs.coarse.to(dtype).float())
    )
    rounded = aligned_in_a_pyramid(inputs._replace(maps=inputs.maps.to(dtype), coarse=inputs.coarse.to(dtype)))
    assert torch.equal(rounded, exact.to(dtype))


def test_without_boxes_there_is_nothing(device):
    none = torch.zeros(0, 5, device=device)
    maps = torch.randn(1, 3, 8, 8, device=device, requires_grad=True)
    pooled = pyramid_roi_align(
        [maps], none, torch.zeros(0, dtype=torch.long, device=device), [0], [0.5], (7, 7), 0, True
    )
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert not maps.grad.any()
    assert mmcv.ops.roi_align(maps, none, (7, 7), 0.5, 0, 'avg', True).shape == (0, 3, 7, 7)
    assert len(mmcv.ops.nms(none[:, :4], none[:, 4], 0.5)[1]) == 0
