"""The head of RTMDet-Ins against MMDetection's own."""

import copy

import pytest
import torch
from mmdet.models import dense_heads
from mmengine.config import ConfigDict
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fasternet_mm.models.single_stage.rtmdet_ins_head import RTMDetInsSepBNHead, enlarge_masks, enlargement
from fasternet_mm.registry import MODELS

TEST = ConfigDict(
    nms_pre=200,
    min_bbox_size=0,
    score_thr=0.3,
    nms=dict(type='nms', iou_threshold=0.6),
    max_per_img=30,
    mask_thr_binary=0.5,
)


@pytest.fixture(scope='module')
def heads():
    """Ours and MMDetection's, with the same random weights."""
    torch.manual_seed(0)
    options = dict(
        num_classes=3,
        in_channels=8,
        feat_channels=8,
        stacked_convs=1,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        test_cfg=TEST,
    )
    theirs = dense_heads.RTMDetInsSepBNHead(**copy.deepcopy(options))
    for layer in theirs.rtm_kernel:
        nn.init.normal_(layer.weight, std=0.5)
    ours = MODELS.build(dict(type='fasternet_mm.RTMDetInsSepBNHead', **options))
    assert type(ours) is RTMDetInsSepBNHead
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


def predictions(head, meta, rescale, thr=0.5):
    torch.manual_seed(1)
    maps = [torch.randn(1, 8, 128 // stride, 160 // stride) for stride in (8, 16, 32)]
    with torch.no_grad():
        outputs = head(maps)
        cfg = copy.deepcopy(TEST)
        cfg.mask_thr_binary = thr
        return head.predict_by_feat(*outputs, batch_img_metas=[meta], cfg=cfg, rescale=rescale)[0]


@pytest.mark.parametrize(
    ('ori_shape', 'scale', 'rescale'),
    [
        ((128, 160), 1.0, True),
        ((100, 160), 1.0, True),
        ((240, 320), 0.5, True),
        ((57, 71), 2.25, True),
        ((240, 320), 0.5, False),
    ],
)
@pytest.mark.parametrize('thr', [0.5, 0.3])
def test_predictions_are_those_of_mmdetection(heads, ori_shape, scale, rescale, thr):
    meta = dict(img_shape=(128, 160), ori_shape=ori_shape, scale_factor=(scale, scale))
    found, expected = (predictions(head, meta, rescale, thr) for head in heads)
    assert len(expected) == 30
    for name in ('bboxes', 'scores', 'labels'):
        assert torch.equal(found[name], expected[name])
    assert found.masks.shape == expected.masks.shape
    assert found.masks.dtype == torch.bool
    assert 0.05 < expected.masks.float().mean() < 0.95
    assert (found.masks != expected.masks).float().mean() < 1e-5


def test_an_image_without_detections_has_masks_of_its_size(heads):
    meta = dict(img_shape=(128, 160), ori_shape=(64, 80), scale_factor=(2.0, 2.0))
    nothing = copy.deepcopy(TEST)
    nothing.score_thr = 1.0
    for rescale, size in ((True, (64, 80)), (False, (128, 160))):
        shapes = []
        for head in heads:
            with torch.no_grad():
                outputs = head([torch.zeros(1, 8, 128 // stride, 160 // stride) for stride in (8, 16, 32)])
            result = head.predict_by_feat(*outputs, batch_img_metas=[meta], cfg=nothing, rescale=rescale)[0]
            shapes.append(result.masks.shape)
        assert shapes == [(0, *size)] * 2


def test_each_side_has_its_own_scale(heads):
    meta = dict(img_shape=(128, 160), ori_shape=(64, 160), scale_factor=(1.0, 2.0))
    found = predictions(heads[0], meta, True)
    whole = predictions(heads[0], dict(img_shape=(128, 160), ori_shape=(128, 160), scale_factor=(1.0, 1.0)), True)
    assert found.masks.shape == (30, 64, 160)
    either = whole.masks.unflatten(1, (64, 2))
    assert (found.masks & ~either.any(2)).float().mean() < 0.01
    assert (~found.masks & either.all(2)).float().mean() < 0.01


def test_whole_masks_are_what_is_computed_near_objects():
    logits = torch.randn(5, 4, 6) - torch.tensor([0.0, 2, 2, 50, -50])[:, None, None]
    whole = enlargement(4, 8, 1.3, 20) @ logits @ enlargement(6, 8, 1.0, 48).t() > 0
    masks = enlarge_masks(logits, 8, (1.3, 1.0), (20, 48), 0.5)
    assert masks.shape == (5, 20, 48)
    assert not masks[3].any()
    assert masks[4].all()
    assert (masks != whole).float().mean() < 1e-3


def test_logits_and_gradients_of_masks_are_those_of_mmdetection(heads):
    features = torch.randn(8, 6, 7, requires_grad=True)
    kernels, priors = torch.randn(4, heads[0].num_gen_params, requires_grad=True), torch.tensor([[8.0, 16, 8, 8]] * 4)
    results = []
    for head in heads:
        logits = head._mask_predict_by_feat_single(features, kernels, priors)
        results.append((logits, *torch.autograd.grad(logits.square().sum(), (features, kernels))))
    for found, expected in zip(*results):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_mixed_precision_gives_nearly_the_same_masks(heads):
    meta = dict(img_shape=(128, 160), ori_shape=(128, 160), scale_factor=(1.0, 1.0))
    maps = [torch.randn(1, 8, 128 // stride, 160 // stride) for stride in (8, 16, 32)]
    with torch.no_grad():
        cls_scores, bbox_preds, kernel_preds, mask_feat = heads[0](maps)
        arguments = dict(batch_img_metas=[meta], cfg=copy.deepcopy(TEST), rescale=True)
        expected = heads[0].predict_by_feat(cls_scores, bbox_preds, kernel_preds, mask_feat, **arguments)[0]
        with torch.autocast('cpu', torch.bfloat16):
            found = heads[0].predict_by_feat(cls_scores, bbox_preds, kernel_preds, mask_feat.bfloat16(), **arguments)[0]
    assert (found.masks != expected.masks).float().mean() < 0.02


@pytest.mark.parametrize('side', ['y', 'x'])
def test_a_line_is_where_it_is_in_the_image_although_sides_are_scaled_by_other_factors(side):
    # 3003 x 4000 pixels fit into 640 x 640: the width by 0.16 exactly, the height by 480 / 3003.
    image, size, line = (3003, 4000), (480, 640), 400
    centers = torch.arange(4.0, size['yx'.index(side)], 8) - line  # of the cells, 8 pixels wide
    ramp = centers[:, None].expand(60, 80) if side == 'y' else centers.expand(60, 80)
    mask = enlarge_masks(ramp[None], 8, (480 / 3003, 640 / 4000), image, 0.5)[0]
    assert mask.shape == image
    mask = mask if side == 'y' else mask.t()
    first = round(line * len(mask) / size['yx'.index(side)])
    assert mask[: first - 1].sum() == 0
    assert mask[first + 1 :].all()


class LargestOfFloats(TorchDispatchMode):
    """The most elements that a floating-point tensor has which an operator makes."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            self.count = max(self.count, result.numel())
        return result


def test_no_more_than_one_mask_is_enlarged_at_a_time():
    with LargestOfFloats() as largest:
        masks = enlarge_masks(torch.randn(20, 12, 16), 8, (0.125, 0.125), (768, 1024), 0.5)
    assert masks.any((1, 2)).all()
    assert largest.count <= 768 * 1024
