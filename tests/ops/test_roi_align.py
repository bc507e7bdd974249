"""RoIAlign of channels_last maps against TorchVision's kernel."""

import importlib

import pytest
import torch
import torchvision
from torch.autograd import gradcheck

from fasternet_mm.ops import roi_align
from fasternet_mm.ops.roi_align import roi_align_channels_last

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
    x = maps()
    expected = torchvision.ops.roi_align(x, ROIS, size, scale, sampling_ratio, aligned)
    found = roi_align_channels_last(x, ROIS, *size, scale, sampling_ratio, aligned)
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_roi_that_is_no_number_holds_nothing_and_none_gives_none():
    rois = torch.tensor([[0, torch.nan, 1, 5, 5], [0, 1, 1, 9, 9]])
    found = roi_align_channels_last(maps(), rois, 2, 2, 0.5, 0, True)
    assert found.isfinite().all()
    assert found[1].abs().max() > 0
    assert roi_align_channels_last(maps(), ROIS[:0], 2, 3, 0.5, 0, True).shape == (0, 6, 2, 3)


def test_mmcvs_operator_takes_it_for_large_maps_alone(monkeypatch):
    from mmcv.ops import roi_align as mmcv_roi_align

    operators = importlib.import_module('mmcv._ext')
    if not operators.__file__.endswith('mmcv_ext.py'):
        pytest.skip('this MMCV has compiled operators')
    calls = []

    def counting(*args):
        calls.append(args)
        return roi_align_channels_last(*args)

    monkeypatch.setattr(roi_align, 'roi_align_channels_last', counting)
    x = maps()
    expected = mmcv_roi_align(x, ROIS, (3, 2), 0.5, 0, 'avg', True)
    assert not calls
    monkeypatch.setattr(roi_align, 'LARGE_MAP', 1)
    torch.testing.assert_close(mmcv_roi_align(x, ROIS, (3, 2), 0.5, 0, 'avg', True), expected, rtol=0, atol=1e-5)
    assert len(calls) == 1
    mmcv_roi_align(x.contiguous(), ROIS, (3, 2), 0.5, 0, 'avg', True)
    assert len(calls) == 1
    x = maps(torch.double).requires_grad_()
    assert gradcheck(lambda x: mmcv_roi_align(x, ROIS[:2].double(), (2, 2), 0.5, 2, 'avg', True), x)
    assert len(calls) > 1
