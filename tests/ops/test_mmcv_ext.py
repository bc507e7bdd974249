"""Golden values are those of MMCV 2.1's own tests (tests/test_ops), which its compiled operators pass."""

import importlib
import sys

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import fasternet_mm

pytestmark = pytest.mark.skipif(
    'mmcv_ext.py' not in (importlib.util.find_spec('mmcv._ext').origin or ''), reason='this MMCV has compiled operators'
)

BOXES = torch.tensor([[6.0, 3.0, 8.0, 7.0], [3.0, 6.0, 9.0, 11.0], [3.0, 7.0, 10.0, 12.0], [1.0, 4.0, 13.0, 7.0]])
SCORES = torch.tensor([0.6, 0.9, 0.7, 0.2])
IMAGE = torch.tensor(
    [[[[1.0, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0], [9.0, 10.0, 13.0, 14.0], [11.0, 12.0, 15.0, 16.0]]]]
)


def test_nms():
    from mmcv.ops import nms

    dets, kept = nms(BOXES, SCORES, iou_threshold=0.3)
    assert kept.tolist() == [1, 0, 3]
    torch.testing.assert_close(dets, torch.cat((BOXES, SCORES[:, None]), 1)[[1, 0, 3]])


def test_nms_with_offset_1_counts_the_last_pixel_as_inside():
    from mmcv.ops import nms

    # As half-open boxes these touch (IoU 0); counted in pixels they share a column, 4 of 28.
    boxes = torch.tensor([[0.0, 0.0, 3.0, 3.0], [3.0, 0.0, 6.0, 3.0]])
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.1, offset=0)[1].tolist() == [0, 1]
    assert nms(boxes, scores, 0.1, offset=1)[1].tolist() == [0]
    assert nms(boxes, scores, 0.15, offset=1)[1].tolist() == [0, 1]


@pytest.mark.parametrize(
    ('method', 'order', 'scores'),
    [
        ('linear', [1, 0, 2, 3], [0.9, 0.6, 0.29024392, 0.2]),
        ('gaussian', [1, 0, 2, 3], [0.9, 0.59630775, 0.35275510, 0.18650459]),
        ('naive', [1, 0, 3], [0.9, 0.6, 0.2]),
    ],
)
def test_soft_nms(method, order, scores):
    from mmcv.ops import soft_nms

    dets, kept = soft_nms(BOXES, SCORES, iou_threshold=0.3, sigma=0.5, min_score=0.01, method=method)
    assert kept.tolist() == order
    torch.testing.assert_close(dets, torch.cat((BOXES[order], torch.tensor(scores)[:, None]), 1))


def test_soft_nms_drops_what_decays_below_min_score():
    from mmcv.ops import soft_nms

    _, kept = soft_nms(BOXES, SCORES, iou_threshold=0.3, min_score=0.295, method='linear')
    assert kept.tolist() == [1, 0]


def test_nms_match_groups_each_kept_box_with_those_it_suppressed():
    from mmcv.ops import nms_match

    dets = np.array(
        [
            [49.1, 32.4, 51.0, 35.9, 0.9],
            [49.3, 32.9, 51.0, 35.3, 0.9],
            [35.3, 11.5, 39.9, 14.5, 0.4],
            [35.2, 11.7, 39.7, 15.7, 0.3],
        ],
        dtype=np.float32,
    )
    assert [group.tolist() for group in nms_match(dets, 0.6)] == [[0, 1], [2, 3]]
    assert [group.tolist() for group in nms_match(torch.from_numpy(dets), 0.8)] == [[0], [1], [2], [3]]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_roi_align_and_its_gradient(dtype):
    from mmcv.ops import roi_align

    x = IMAGE.to(dtype, copy=True).requires_grad_()
    rois = torch.tensor([[0.0, 0.0, 0.0, 3.0, 3.0]], dtype=dtype)
    pooled = roi_align(x, rois, (2, 2), 1.0, 2, 'avg', True)
    pooled.backward(torch.ones_like(pooled))
    assert pooled.dtype == x.grad.dtype == dtype
    side = [0.6875, 0.625, 0.625, 0.0625]
    exact = dict(rtol=0.01, atol=0.01) if dtype.itemsize == 2 else {}
    torch.testing.assert_close(pooled[0, 0], torch.tensor([[1.9375, 4.75], [7.5625, 10.375]], dtype=dtype), **exact)
    torch.testing.assert_close(x.grad[0, 0], torch.tensor(np.outer(side, side), dtype=dtype), **exact)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_gradcheck(aligned, sampling_ratio):
    from mmcv.ops import roi_align

    x = torch.randn(2, 3, 9, 8, dtype=torch.double, requires_grad=True)
    rois = torch.tensor([[0, 1.2, 0.5, 11.0, 13.0], [1, 3.3, 2.0, 4.0, 14.5]], dtype=torch.double)
    assert gradcheck(lambda x: roi_align(x, rois, (3, 2), 0.5, sampling_ratio, 'avg', aligned), x)


def test_roi_align_unaligned_shifts_by_half_a_pixel():
    from mmcv.ops import roi_align

    rois = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0]])
    unaligned = roi_align(IMAGE, rois + torch.tensor([0, 0, 0, 0, 0.0]), (1, 1), 1.0, 1, 'avg', False)
    assert unaligned.item() == IMAGE[0, 0, 1, 1]
    assert roi_align(IMAGE, rois, (1, 1), 1.0, 1, 'avg', True).item() == IMAGE[0, 0, :2, :2].mean()


def test_roi_align_max_is_refused_by_name():
    from mmcv.ops import roi_align

    with pytest.raises(NotImplementedError, match='max'):
        roi_align(IMAGE, torch.tensor([[0.0, 0.0, 0.0, 3.0, 3.0]]), (2, 2), 1.0, 2, 'max', True)


def test_roi_pool_and_its_gradient():
    from mmcv.ops import roi_pool

    x = IMAGE.clone().requires_grad_()
    pooled = roi_pool(x, torch.tensor([[0.0, 0.0, 0.0, 3.0, 3.0]]), (2, 2), 1.0)
    pooled.backward(torch.ones_like(pooled))
    assert pooled[0, 0].tolist() == [[4, 8], [12, 16]]
    assert x.grad[0, 0].nonzero().tolist() == [[1, 1], [1, 3], [3, 1], [3, 3]]


def test_roi_pool_does_not_round_regions_and_gives_zero_outside():
    from mmcv.ops import roi_pool

    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    # At scale 1/4 the region spans 0.5 to 2.75: bins [0, 2) and [1, 3), where rounding would give [0, 2) and [2, 4).
    pooled = roi_pool(x, torch.tensor([[0.0, 2.0, 2.0, 10.0, 10.0], [0, 40, 40, 50, 50]]), (2, 2), 0.25)
    assert pooled[0, 0].tolist() == [[9, 10], [17, 18]]
    assert pooled[1].abs().max() == 0


def test_roi_pool_gradcheck():
    from mmcv.ops import roi_pool

    x = torch.randperm(2 * 3 * 72).double().reshape(2, 3, 9, 8).requires_grad_()
    rois = torch.tensor([[0, 1.0, 0, 11, 13], [1, 3, 2, 4, 14]], dtype=torch.double)
    assert gradcheck(lambda x: roi_pool(x, rois, (3, 2), 0.5), x)


def test_deform_conv_and_all_its_gradients():
    from mmcv.ops import DeformConv2dPack

    x = torch.tensor([[[[1.0, 2.0, 3.0], [0.0, 1.0, 2.0], [3.0, 5.0, 2.0]]]]).requires_grad_()
    conv = DeformConv2dPack(1, 1, kernel_size=2, stride=1, padding=0)
    offset_weight = [
        [0.1, 0.4, 0.6, 0.1],
        [0.3, 0.2, 0.1, 0.3],
        [0.5, 0.5, 0.2, 0.8],
        [0.8, 0.3, 0.9, 0.1],
        [0.3, 0.1, 0.2, 0.5],
        [0.3, 0.7, 0.5, 0.3],
        [0.6, 0.2, 0.5, 0.3],
        [0.4, 0.1, 0.8, 0.4],
    ]
    conv.conv_offset.weight.data = torch.tensor(offset_weight).reshape(8, 1, 2, 2)
    conv.conv_offset.bias.data = torch.tensor([0.7, 0.1, 0.8, 0.5, 0.6, 0.5, 0.4, 0.7])
    conv.weight.data = torch.tensor([[[[0.4, 0.2], [0.1, 0.9]]]])
    out = conv(x)
    out.sum().backward()
    close = dict(rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(out[0, 0], torch.tensor([[1.65, 0], [0, 0]]), **close)
    grad = torch.tensor([[-0.666, 0.204, 0.0], [0.030, -0.416, 0.012], [0.0, 0.252, 0.129]])
    torch.testing.assert_close(x.grad[0, 0], grad, **close)
    torch.testing.assert_close(conv.weight.grad[0, 0], torch.tensor([[3.62, 0.0], [0.40, 0.18]]), **close)
    bias_grad = torch.tensor([1.44, -0.72, 0.0, 0.0, -0.10, -0.08, -0.54, -0.54])
    torch.testing.assert_close(conv.conv_offset.bias.grad, bias_grad, **close)


def test_modulated_deform_conv_and_its_gradients_at_the_padding():
    from mmcv.ops import ModulatedDeformConv2dPack

    x = torch.tensor([[[[1.0, 2.0, 3.0]] * 3]]).requires_grad_()
    conv = ModulatedDeformConv2dPack(1, 1, kernel_size=(2, 2), stride=1, padding=1, bias=False)
    conv.weight.data.fill_(1)
    out = conv(x)
    out.sum().backward()
    row = torch.tensor([1.0, 3.0, 5.0, 3.0])
    torch.testing.assert_close(out[0, 0], torch.stack((row / 2, row, row, row / 2)))
    torch.testing.assert_close(x.grad, torch.full_like(x, 2))
    torch.testing.assert_close(conv.weight.grad, torch.full((1, 1, 2, 2), 9.0))
    bias_grad = torch.tensor([-3.0, -1.5] * 4 + [4.5] * 4)
    torch.testing.assert_close(conv.conv_offset.bias.grad, bias_grad)
    first, second = torch.tensor([[-7.0, -4.0], [0.0, 0.0]]), torch.tensor([[-9.0, 7.5], [-6.0, 5.0]])
    torch.testing.assert_close(conv.conv_offset.weight.grad[0, 0], first)
    torch.testing.assert_close(conv.conv_offset.weight.grad[1, 0], second)


@pytest.mark.parametrize('modulated', [True, False])
def test_deform_conv_gradcheck_with_groups_and_deform_groups(modulated):
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d

    x = torch.randn(2, 4, 5, 4, dtype=torch.double, requires_grad=True)
    offset = torch.randn(2, 2 * 2 * 6, 3, 4, dtype=torch.double).mul(0.7).requires_grad_()
    weight = torch.randn(6, 2, 3, 2, dtype=torch.double, requires_grad=True)
    geometry = ((2, 1), (1, 1), (1, 2), 2, 2)
    if modulated:
        mask = torch.rand(2, 2 * 6, 3, 4, dtype=torch.double, requires_grad=True)
        bias = torch.randn(6, dtype=torch.double, requires_grad=True)
        assert gradcheck(lambda *t: modulated_deform_conv2d(*t, *geometry), (x, offset, mask, weight, bias))
    else:
        assert gradcheck(lambda *t: deform_conv2d(*t, *geometry), (x, offset, weight))


def test_deform_conv_without_offsets_is_a_convolution():
    from mmcv.ops import deform_conv2d

    x, weight = torch.randn(2, 4, 6, 5), torch.randn(6, 2, 3, 3)
    out = deform_conv2d(x, torch.zeros(2, 18, 6, 5), weight, 1, 1, 1, 2, 1)
    torch.testing.assert_close(out, torch.nn.functional.conv2d(x, weight, padding=1, groups=2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('first', 'second', 'kwargs', 'expected'),
    [
        ([[1, 1, 3, 4], [2, 2, 3, 4]], [[0, 2, 2, 5], [2, 1, 3, 3]], dict(aligned=True, offset=1), [1 / 3, 0.5]),
        (
            [[0, 0, 3, 3]],
            [[4, 0, 5, 3], [3, 0, 4, 3], [2, 0, 3, 3], [1, 0, 2, 3]],
            dict(offset=1),
            [[0, 0.2, 0.5, 0.5]],
        ),
        ([[0, 0, 10, 10]], [[0, 0, 10, 20], [0, 10, 10, 19], [10, 10, 20, 20]], {}, [[0.5, 0, 0]]),
        ([[0, 0, 4, 4]], [[2, 0, 100, 100]], dict(mode='iof'), [[0.5]]),
    ],
)
def test_bbox_overlaps(first, second, kwargs, expected):
    from mmcv.ops import bbox_overlaps

    found = bbox_overlaps(torch.tensor(first, dtype=torch.float), torch.tensor(second, dtype=torch.float), **kwargs)
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize(
    ('x', 'target', 'loss', 'grad'),
    [
        ([[1.0, 0], [0, 1.0]], [0, 1], 0.13562961, [[-0.00657264, 0.11185755], [0.11185755, -0.00657264]]),
        (
            [[1.0, 0, -1.0], [0, 1.0, 2.0]],
            [2, 1],
            1.10251057,
            [[0.28808805, 0.11185755, -0.09602935], [0.11185755, -0.00657264, 0.40376765]],
        ),
    ],
)
def test_sigmoid_focal_loss_and_its_gradient(x, target, loss, grad):
    from mmcv.ops import sigmoid_focal_loss

    x = torch.tensor(x, requires_grad=True)
    found = sigmoid_focal_loss(x, torch.tensor(target), 2.0, 0.25, None, 'mean')
    found.backward()
    assert found.item() == pytest.approx(loss, rel=1e-4)
    torch.testing.assert_close(x.grad, torch.tensor(grad), rtol=1e-3, atol=1e-5)


def test_sigmoid_focal_loss_weights_classes_and_takes_background():
    from mmcv.ops import sigmoid_focal_loss

    x, target = torch.randn(3, 2), torch.tensor([0, 1, 2])
    plain = sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'none')
    weighted = sigmoid_focal_loss(x, target, 2.0, 0.25, torch.tensor([3.0, 5.0]), 'none')
    torch.testing.assert_close(weighted, plain * torch.tensor([[3.0], [5.0], [1.0]]))


def test_an_operator_that_is_not_covered_is_named_with_what_to_install():
    from mmcv.ops import box_iou_rotated

    with pytest.raises(NotImplementedError, match=r"'box_iou_rotated'.*install an mmcv with compiled operators"):
        box_iou_rotated(torch.zeros(1, 5), torch.zeros(1, 5))


def test_mmcv_reports_where_its_operators_come_from():
    from mmcv.ops import get_compiler_version

    assert 'torchvision' in get_compiler_version()


def test_compiled_operators_go_first(tmp_path, monkeypatch):
    import mmcv

    (tmp_path / '_ext.py').write_text('compiled = True')
    monkeypatch.setattr(mmcv, '__path__', [str(tmp_path)])
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    fasternet_mm.ops.provide_mmcv_ext()
    assert importlib.import_module('mmcv._ext').compiled


def test_modulated_deform_conv_reads_larger_offsets_as_mmcv_does():
    from mmcv.ops import modulated_deform_conv2d

    x, weight = torch.randn(2, 1, 4, 4), torch.randn(1, 1, 3, 3)
    offset, mask = torch.randn(2, 18, 8, 8, requires_grad=True), torch.rand(2, 9, 8, 8, requires_grad=True)
    out = modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1, 1, 1, 1)
    out.sum().backward()
    head, mask_head = offset.detach().flatten(1)[:, : 18 * 16], mask.detach().flatten(1)[:, : 9 * 16]
    expected = modulated_deform_conv2d(
        x, head.reshape(2, 18, 4, 4), mask_head.reshape(2, 9, 4, 4), weight, None, 1, 1, 1, 1, 1
    )
    torch.testing.assert_close(out, expected)
    assert not offset.grad.flatten(1)[:, 18 * 16 :].any()
    assert mask.grad.flatten(1)[:, : 9 * 16].any()
