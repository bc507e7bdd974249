from dataclasses import replace

import pytest
import torch
from small_models import SMALL
from torch import nn
from torchvision.ops import box_iou

from fasternet_mm.benchmark import detectors
from fasternet_mm.benchmark.detectors import (
    DetectorTask,
    add_parts,
    default_size,
    detector_candidates,
    with_timm_backbone,
)
from fasternet_mm.errors import UserError

CONFIG = 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py'


@pytest.fixture
def task(root):
    yield DetectorTask(str(root / CONFIG), 96, 128)
    detectors._build.cache_clear()  # tests change the detector


def test_the_peer_with_timm_finds_the_same(task):
    _, detector = detectors._build(task)
    for norm in detector.backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 1.5)
    peer = with_timm_backbone(detector)
    assert type(peer.backbone).__module__.startswith('timm')
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        for ours, theirs in zip(detector.extract_feat(image), peer.extract_feat(image), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_random_weights_find_as_much_as_is_allowed_and_the_baseline_as_much(task):
    candidates = detector_candidates(task, ['eager'])
    assert [candidate.key for candidate in candidates] == [
        ('mask_rcnn_fasternet_t0_shapes, timm', 'eager'),
        ('mask_rcnn_fasternet_t0_shapes', 'eager'),
    ]
    assert {candidate.baseline for candidate in candidates} == {candidates[0].key}
    samples = [candidate.prepare()() for candidate in candidates]
    facts = [candidate.result_facts(result) for candidate, result in zip(candidates, samples)]
    assert facts == [dict(detections=100)] * 2
    boxes = [result[0].pred_instances.bboxes for result in samples]
    torch.testing.assert_close(*boxes, rtol=1e-3, atol=1e-2)
    assert samples[0][0].pred_instances.masks.shape == (100, 96, 128)


@pytest.mark.slow
def test_a_detector_in_int8_is_told_apart_and_finds_nearly_the_same(task, tmp_path):
    # Quantization takes its time with every operator.
    small = dict(backbone=dict(arch=SMALL | dict(_delete_=True)), neck=dict(in_channels=[16, 32, 64, 128]))
    small['roi_head'] = dict(bbox_head=dict(num_shared_convs=1), mask_roi_extractor=None, mask_head=None)
    (tmp_path / 'small.py').write_text(f'_base_ = {task.config!r}\nmodel = {small}')
    task = replace(task, config=str(tmp_path / 'small.py'))
    for package in detectors.ENGINES['openvino-int8'].packages:
        pytest.importorskip(package)
    plain, int8 = (
        detectors.prepare_detector(engine, task)()[0].pred_instances for engine in ('openvino', 'openvino-int8')
    )
    overlaps = box_iou(int8.bboxes, plain.bboxes).amax(1)
    assert overlaps.median() > 0.8
    assert not torch.equal(int8.scores, plain.scores)


def test_cuda_graphs_of_networks_are_no_engine_of_a_detector(task):
    with pytest.raises(UserError, match='engine graphed is for networks alone, use optimized'):
        detector_candidates(task, ['graphed'])


def test_an_image_is_resized_beforehand(task, fixtures):
    image = DetectorTask(task.config, 96, 128, image=str(fixtures / '000000000785.jpg')).pixels()
    assert (image.shape, image.dtype) == ((3, 96, 128), torch.uint8)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(config='{resnet}'), 'has no detector with FasterNet and boxes'),
        (dict(image='README.md'), 'README.md is not an image'),
        (dict(checkpoint='nowhere.pth'), 'nowhere.pth does not exist'),
    ],
)
def test_what_cannot_be_compared_is_named(settings, message, task, root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    config = settings.get('config', task.config).format(resnet=tmp_path / 'resnet.py')
    (tmp_path / 'resnet.py').write_text(
        f"_base_ = '{task.config}'\nmodel = dict(backbone=dict(_delete_=True, type='ResNet', depth=18))"
    )
    with pytest.raises(UserError, match=message):
        detector_candidates(replace(task, **settings | dict(config=config)), ['onnxruntime'])


def test_only_published_variants_have_a_peer(task):
    _, detector = detectors._build(task)
    detector.backbone.arch['depths'] = (1, 1, 1, 1)
    with pytest.raises(UserError, match='only where its backbone is a published variant'):
        with_timm_backbone(detector)


@pytest.fixture(params=['rtmdet', 'rtmdet_ins'])
def one_stage_task(request, root, tmp_path):
    settings = dict(neck=dict(out_channels=16), bbox_head=dict(in_channels=16, feat_channels=16, num_classes=3))
    config = tmp_path / 'small.py'
    config.write_text(f"_base_ = '{root}/configs/{request.param}_fasternet_t0.py'\nmodel = {settings}")
    yield DetectorTask(str(config), 96, 128)
    detectors._build.cache_clear()


def test_rtmdet_and_its_peer_with_timm_find_the_same(one_stage_task):
    candidates = detector_candidates(one_stage_task, ['optimized'], ('another', 'eager'))
    assert {candidate.baseline for candidate in candidates} == {('another', 'eager')}
    theirs, ours = (candidate.prepare()()[0].pred_instances for candidate in candidates)
    assert len(ours) == len(theirs) >= 50
    torch.testing.assert_close(ours.bboxes, theirs.bboxes, rtol=1e-3, atol=1e-2)
    peer, _ = detectors._detector('timm', one_stage_task)
    assert type(peer.bbox_head).__module__.startswith('mmdet')
    assert type(peer.backbone.backbone).__module__.startswith('timm')


def test_the_parts_of_a_one_stage_detector_have_their_own_time(one_stage_task):
    rows = [dict(name=one_stage_task.name, engine='optimized'), dict(name='other.onnx', engine='eager')]
    add_parts(one_stage_task, rows, rounds=1)
    assert list(rows[0]['parts']) == ['preprocessing', 'backbone', 'neck', 'head', 'post-processing']
    assert min(rows[0]['parts'].values()) > 0
    assert 'parts' not in rows[1]


def test_the_usual_size_is_the_one_that_a_config_pads_to(root):
    assert default_size(str(root / 'configs/rtmdet_fasternet_t0.py')) == (640, 640)
    assert default_size(str(root / 'configs/mask_rcnn_fasternet_s.py')) == (800, 1216)
