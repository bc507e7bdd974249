"""RoIAlign by matrix products against TorchVision's kernels."""

import importlib

import pytest
import torch
import torchvision
from torch.autograd import gradcheck

from fasternet_mm.ops import roi_align

ROIS = torch.tensor(
    [
        [0, 3.3, 4.1, 20.9, 30.2],
        [1, 0, 0, 46, 38],
        [1, -9.5, -7.2, 60.3, 55.1],  # over every edge
        [0, 45.1, 37.2, 45.6, 37.7],  # in the last pixel
        [0, 7, 9, 7, 9],  # empty
        [0, 20, 20, 10, 8],  # reversed
        [1, 100, 100, 120, 140],  # outside
        [1, -100, 3, -80, 9],
        [0, 2, 3, 40, 4.5],
    ]
)


def maps(dtype=torch.float32):
    return torch.randn(2, 6, 20, 24, dtype=dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 1, 3])
@pytest.mark.parametrize(('size', 'scale'), [((7, 7), 0.5), ((2, 5), 0.5), ((14, 14), 1.0), ((1, 1), 0.03)])
def test_it_is_torchvisions(aligned, sampling_ratio, size, scale):
    x = maps().requires_grad_()
    expected = torchvision.ops.roi_align(x, ROIS, size, scale, sampling_ratio, aligned)
    gradient = torch.randn_like(expected)
    (expected_gradient,) = torch.autograd.grad(expected, x, gradient)
    x = x.detach()
    assert expected.abs().max() > 0
    settings = scale, sampling_ratio, aligned
    for forward, backward in (
        (roi_align.roi_align_channels_last, roi_align.roi_align_backward_channels_last),
        (roi_align.roi_align_small, roi_align.roi_align_backward_small),
    ):
        torch.testing.assert_close(forward(x, ROIS, *size, *settings), expected, rtol=0, atol=1e-5)
        found = backward(gradient, ROIS, x.shape, *settings)
        torch.testing.assert_close(found, expected_gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('forward', [roi_align.roi_align_channels_last, roi_align.roi_align_small])
def test_a_roi_that_is_no_number_holds_nothing_and_none_gives_none(forward):
    rois = torch.tensor([[0, torch.nan, 1, 5, 5], [0, 1, 1, 9, 9]])
    found = forward(maps(), rois, 2, 2, 0.5, 0, True)
    assert found.isfinite().all()
    assert found[1].abs().max() > 0
    assert forward(maps(), ROIS[:0], 2, 3, 0.5, 0, True).shape == (0, 6, 2, 3)


def test_mmcvs_operator_chooses_by_the_size_of_the_map(monkeypatch):
    from mmcv.ops import roi_align as mmcv_roi_align

    operators = importlib.import_module('mmcv._ext')
    if not operators.__file__.endswith('mmcv_ext.py'):
        pytest.skip('this MMCV has compiled operators')
    calls = []
    for name in ('roi_align_small', 'roi_align_channels_last'):
        function = getattr(roi_align, name)
        monkeypatch.setattr(
            roi_align, name, lambda *args, name=name, function=function: calls.append(name) or function(*args)
        )

    def pool(x):
        return mmcv_roi_align(x, ROIS, (3, 2), 0.5, 0, 'avg', True)

    x = maps()
    expected = torchvision.ops.roi_align(x, ROIS, (3, 2), 0.5, 0, True)
    for settings, used in (
        ({}, ['roi_align_small']),
        (dict(LARGEST_PRODUCT=1), []),
        (dict(SMALL_MAP=1), []),
        (dict(SMALL_MAP=1, LARGE_MAP=1), ['roi_align_channels_last']),
    ):
        with monkeypatch.context() as limits:
            for name, value in settings.items():
                limits.setattr(roi_align, name, value)
            torch.testing.assert_close(pool(x), expected, rtol=0, atol=1e-5)
        assert calls == used
        calls.clear()
    x = maps(torch.double).requires_grad_()
    assert gradcheck(lambda x: mmcv_roi_align(x, ROIS[:2].double(), (2, 2), 0.5, 2, 'avg', True), x)
