"""Optimized single-stage detectors and their heads against MMDetection's own."""

import copy

import pytest
import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.models import CSPNeXtPAFPN, dense_heads
from mmengine.config import Config
from small_models import SMALL, image, sample
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fasternet_mm.acceleration import packing
from fasternet_mm.acceleration.optimization import _Inference, optimize
from fasternet_mm.acceleration.packing import PackedConv2d
from fasternet_mm.acceleration.precision import supported_dtypes
from fasternet_mm.engine.runner import build_model

POINTS = dict(anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]))
ANCHORS = dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8, 16, 32])
DISTANCES = dict(bbox_coder=dict(type='DistancePointBBoxCoder'))
BATCH_NORM = dict(type='BN')
HEADS = {
    'RTMDetHead': POINTS | DISTANCES | dict(norm_cfg=BATCH_NORM, act_cfg=dict(type='SiLU')),
    'RTMDetSepBNHead': POINTS | DISTANCES | dict(with_objectness=False, exp_on_reg=True),
    'RTMDetInsHead': POINTS | DISTANCES | dict(norm_cfg=BATCH_NORM, act_cfg=dict(type='SiLU', inplace=True)),
    'RTMDetInsSepBNHead': POINTS | DISTANCES,
    'RetinaHead': dict(anchor_generator=ANCHORS | dict(ratios=[0.5, 1.0, 2.0]), norm_cfg=BATCH_NORM),
    'FCOSHead': dict(
        strides=(8, 16, 32), regress_ranges=((-1, 64), (64, 128), (128, 1e8)), norm_cfg=BATCH_NORM, norm_on_bbox=True
    ),
    'ATSSHead': dict(anchor_generator=ANCHORS, norm_cfg=BATCH_NORM),
    'GFLHead': dict(anchor_generator=ANCHORS, norm_cfg=BATCH_NORM),
    'TOODHead': dict(anchor_generator=ANCHORS, norm_cfg=BATCH_NORM, anchor_type='anchor_free', num_dcn=0),
    'YOLOXHead': dict(),
}


def as_after_training(model):
    for norm in model.modules():
        if isinstance(norm, _BatchNorm):
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
    return model.eval()


def flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [x for output in outputs for x in flat(output)]


@pytest.mark.parametrize('name', HEADS)
@torch.no_grad()
def test_heads_answer_as_before_without_norms_and_activations_of_their_own(name):
    head = getattr(dense_heads, name)(3, in_channels=8, feat_channels=8, stacked_convs=2, **HEADS[name])
    detector = nn.Module()
    detector.bbox_head = as_after_training(head)
    maps = [torch.randn(2, 8, size, size) for size in (16, 8, 4)]
    optimized = optimize(detector).bbox_head
    assert isinstance(optimized.forward, _Inference)
    convolutions = {name: x for name, x in optimized.named_modules() if isinstance(x, ConvModule)}
    left = [name for name, x in convolutions.items() if x.conv.onednn_activation == 'none']
    # Of these TOOD uses the parts.
    assert left == (['cls_decomp.reduction_conv', 'reg_decomp.reduction_conv'] if name == 'TOODHead' else [])
    assert sum(isinstance(module, _BatchNorm) for module in optimized.modules()) == len(left)
    for found, expected in zip(flat(optimized(maps)), flat(head(maps)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize('use_depthwise', [False, True])
@torch.no_grad()
def test_the_neck_of_rtmdet_has_nothing_but_convolutions_with_their_activation(use_depthwise):
    neck = CSPNeXtPAFPN([8, 16, 24], 8, num_csp_blocks=1, use_depthwise=use_depthwise, act_cfg=dict(type='SiLU'))
    as_after_training(neck)
    maps = [torch.randn(1, channels, size, size) for channels, size in ((8, 16), (16, 8), (24, 4))]
    optimized = optimize(neck)
    modules = [module for module in optimized.modules() if isinstance(module, ConvModule)]
    assert any(isinstance(module, DepthwiseSeparableConvModule) for module in optimized.modules())
    assert all(module.conv.onednn_activation == 'swish' and type(module.activate) is nn.Identity for module in modules)
    for found, expected in zip(optimized(maps), neck(maps), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('act', ['SiLU', 'Swish', 'HSwish', 'LeakyReLU'])
@torch.no_grad()
def test_activations_after_convolutions_are_the_same_whether_fused_or_not(act, monkeypatch):
    module = as_after_training(ConvModule(4, 6, 3, padding=1, norm_cfg=BATCH_NORM, act_cfg=dict(type=act)))
    x = torch.randn(1, 4, 9, 8) * 3
    optimized, expected = optimize(module), module(x)
    assert (type(optimized.activate) is nn.Identity) == (act != 'LeakyReLU')
    torch.testing.assert_close(optimized(x), expected)
    monkeypatch.setattr(packing, 'kernels_work', lambda kind, dtype: False)
    torch.testing.assert_close(optimized(x), expected)


@pytest.fixture(scope='module', params=['rtmdet', 'rtmdet_ins'])
def detector(request, root):
    """Small and random, with scores on both sides of the threshold."""
    cfg = Config.fromfile(root / f'configs/{request.param}_fasternet_t0.py')
    cfg.model.backbone.update(arch=SMALL | dict(_delete_=True), init_cfg=None)
    cfg.model.backbone.arch.pop('_delete_')
    cfg.model.neck.update(in_channels=[32, 64, 128], out_channels=16)
    cfg.model.bbox_head.update(in_channels=16, feat_channels=16, num_classes=3)
    cfg.model.test_cfg.update(score_thr=0.3, max_per_img=20)
    torch.manual_seed(0)
    model = build_model(cfg)
    for norm in model.modules():
        if isinstance(norm, _BatchNorm):
            norm.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 96, 128), mode='tensor')
    for layer in (*model.bbox_head.rtm_cls, *getattr(model.bbox_head, 'rtm_kernel', ())):
        nn.init.normal_(layer.weight, std=0.3)
        nn.init.normal_(layer.bias, std=0.1)
    return model.eval()


def detections(model):
    data = dict(inputs=[image(96, 128)], data_samples=[sample(96, 128)])
    with torch.inference_mode():
        return model.test_step(data)[0].pred_instances


def test_rtmdet_finds_the_same(detector):
    optimized = optimize(detector)
    assert {name.split('.')[0] for name, x in optimized.named_modules() if isinstance(x, _BatchNorm)} == {'backbone'}
    found, expected = detections(optimized), detections(detector)
    assert len(expected) == 20
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=1e-2)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
    if 'masks' in expected:
        assert 0.05 < expected.masks.float().mean() < 0.95
        assert (found.masks != expected.masks).float().mean() < 1e-4


@pytest.mark.skipif(torch.bfloat16 not in supported_dtypes('cpu'), reason='this CPU does not compute in bfloat16')
def test_rtmdet_in_bfloat16_finds_nearly_the_same_in_float32(detector):
    optimized = optimize(copy.deepcopy(detector), torch.bfloat16)
    assert all(conv.weight.dtype == torch.bfloat16 for conv in optimized.modules() if isinstance(conv, PackedConv2d))
    with torch.no_grad():
        maps = detector.extract_feat(torch.randn(1, 3, 64, 96))
        for x, expected in zip(flat(optimized.bbox_head(maps)), flat(detector.bbox_head(maps)), strict=True):
            assert x.dtype == torch.float32
            assert (x - expected).abs().mean() < 0.03 * expected.abs().mean()
    found, expected = detections(optimized), detections(detector)
    assert found.bboxes.dtype == torch.float32
    assert len(found) == len(expected)
