"""Ignored regions are neither objects nor background: boxes whose overlaps are computed by hand."""

import numpy as np
import pytest
import torch
from mmdet.models.task_modules import MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from fasternet_mm.engine.config import load_config
from fasternet_mm.engine.runner import build_model

THRESHOLDS = dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False)


def assigned(candidates, objects, ignored, **settings):
    """The number of each candidate's object, 0 for background, -1 for neither."""
    init_default_scope('mmdet')
    assigner = TASK_UTILS.build(
        dict(type='fasternet_mm.IgnoringAssigner', **THRESHOLDS, **dict(ignore_iof_thr=0.5) | settings)
    )
    regions = None if ignored is None else InstanceData(bboxes=torch.tensor(ignored, dtype=torch.float32).view(-1, 4))
    result = assigner.assign(
        InstanceData(priors=torch.tensor(candidates, dtype=torch.float32).view(-1, 4)),
        InstanceData(
            bboxes=torch.tensor(objects, dtype=torch.float32).view(-1, 4),
            labels=torch.zeros(len(objects), dtype=torch.long),
        ),
        regions,
    )
    assert result.num_preds == len(candidates)
    return result.gt_inds.tolist()


def test_background_inside_an_ignored_region_is_not_sampled_and_the_rest_is_background():
    region = [0, 0, 10, 10]
    inside, mostly, half, barely, beside = [2, 2, 8, 8], [4, 0, 14, 10], [5, 0, 15, 10], [9, 9, 19, 19], [20, 0, 30, 10]
    # Of their own areas 1, 0.6, 0.5, 0.01 and 0 lie in the region.
    assert assigned([inside, mostly, half, barely, beside], [], [region]) == [-1, -1, 0, 0, 0]


def test_an_ignored_region_of_any_size_counts_by_the_candidates_own_area():
    assert assigned([[0, 0, 100, 100]], [], [[0, 0, 10, 10]]) == [0]
    assert assigned([[0, 0, 10, 10]], [], [[0, 0, 100, 100]]) == [-1]


def test_an_object_inside_an_ignored_region_is_learned():
    # The overlaps with the object are 1, 80 / 120 and 60 / 140.
    candidates = [[0, 0, 10, 10], [0, 2, 10, 12], [0, 4, 10, 14]]
    assert assigned(candidates, [[0, 0, 10, 10]], [[-50, -50, 50, 50]]) == [1, 1, -1]


def test_what_is_already_neither_stays_so():
    # Of the object 0.4 overlaps: between background below 0.3 and objects from 0.5.
    settings = dict(pos_iou_thr=0.5, neg_iou_thr=0.3)
    assigner = dict(type='fasternet_mm.IgnoringAssigner', match_low_quality=False, ignore_iof_thr=0.5, **settings)
    init_default_scope('mmdet')
    candidates = torch.tensor([[0, 0, 4, 10], [0, 0, 2, 10]], dtype=torch.float32)
    objects = InstanceData(bboxes=torch.tensor([[0.0, 0, 10, 10]]), labels=torch.tensor([0]))
    regions = InstanceData(bboxes=torch.tensor([[50.0, 50, 60, 60]]))
    result = TASK_UTILS.build(assigner).assign(InstanceData(priors=candidates), objects, regions)
    assert result.gt_inds.tolist() == [-1, 0]


@pytest.mark.parametrize(
    ('candidates', 'ignored', 'expected'),
    [([[0, 0, 1, 1]], None, [0]), ([[0, 0, 1, 1]], [], [0]), ([], [[0, 0, 1, 1]], [])],
)
def test_no_candidates_and_no_regions_are_possible(candidates, ignored, expected):
    assert assigned(candidates, [], ignored) == expected


def test_a_threshold_below_zero_ignores_nothing():
    assert assigned([[0, 0, 1, 1]], [], [[0, 0, 1, 1]], ignore_iof_thr=-1) == [0]


def test_without_ignored_regions_it_is_mmdetections_assigner():
    generator = torch.Generator().manual_seed(0)
    for count in (0, 1, 7):
        corners = torch.rand(200 + count, 2, generator=generator) * 40
        boxes = torch.cat([corners, corners + 5 + torch.rand(200 + count, 2, generator=generator) * 20], 1)
        priors = InstanceData(priors=boxes[count:])
        objects = InstanceData(bboxes=boxes[:count], labels=torch.arange(count))
        settings = dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, match_low_quality=True)
        init_default_scope('mmdet')
        ours = TASK_UTILS.build(dict(type='fasternet_mm.IgnoringAssigner', ignore_iof_thr=0.5, **settings))
        theirs = MaxIoUAssigner(**settings).assign(priors, objects)
        result = ours.assign(priors, objects, InstanceData(bboxes=torch.zeros(0, 4)))
        assert torch.equal(result.gt_inds, theirs.gt_inds)
        assert torch.equal(result.labels, theirs.labels)


@pytest.fixture(scope='module')
def detector():
    cfg = load_config('configs/shapes/mask_rcnn_fasternet_t0_shapes.py')
    for stage in ('rpn', 'rcnn'):
        cfg.model.train_cfg[stage].assigner.update(type='fasternet_mm.IgnoringAssigner', ignore_iof_thr=0.5)
    init_default_scope('mmdet')
    return build_model(cfg).train()


def crowd_only(region):
    sample = DetDataSample(metainfo=dict(img_shape=(96, 96), ori_shape=(96, 96), pad_shape=(96, 96)))
    sample.set_metainfo(dict(batch_input_shape=(96, 96), scale_factor=(1, 1)))
    masks = BitmapMasks(np.zeros((0, 96, 96), np.uint8), 96, 96)
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    sample.gt_instances = InstanceData(bboxes=nothing[0], labels=nothing[1], masks=masks)
    sample.ignored_instances = InstanceData(bboxes=torch.tensor([region]), labels=torch.tensor([0]))
    return sample


def test_in_an_image_of_a_crowd_alone_no_anchor_in_the_crowd_has_a_weight(detector):
    head, region = detector.rpn_head, torch.tensor([20.0, 20, 90, 90])
    sizes = [(24, 24), (12, 12), (6, 6), (3, 3), (2, 2)]
    sample = crowd_only(region.tolist())
    anchors, valid = head.get_anchors(sizes, [sample.metainfo], device='cpu')
    labels = InstanceData(bboxes=sample.gt_instances.bboxes, labels=sample.gt_instances.labels)
    targets = head.get_targets(anchors, valid, [labels], [sample.metainfo], [sample.ignored_instances])
    weights = torch.cat([level.flatten() for level in targets[1]])
    boxes = torch.cat(anchors[0])
    overlap = (torch.minimum(boxes[:, 2:], region[2:]) - torch.maximum(boxes[:, :2], region[:2])).clamp(min=0).prod(1)
    inside = overlap / (boxes[:, 2:] - boxes[:, :2]).prod(1) > 0.5
    assert inside.any()
    assert weights[inside].sum() == 0
    assert weights[~inside].sum() == 64  # all that is sampled


def test_a_crowd_over_the_whole_image_gives_no_loss_and_no_gradient(detector):
    detector.zero_grad()
    losses = detector.loss(torch.rand(1, 3, 96, 96), [crowd_only([-500.0, -500.0, 600.0, 600.0])])
    total = sum(sum(loss) if isinstance(loss, list) else loss for name, loss in losses.items() if 'loss' in name)
    assert total == 0
    total.backward()
    gradients = [parameter.grad for parameter in detector.parameters() if parameter.grad is not None]
    assert gradients
    assert not any(gradient.any() for gradient in gradients)
    assert all(buffer.isfinite().all() for buffer in detector.buffers() if buffer.is_floating_point())


def test_background_beside_a_crowd_is_learned(detector):
    losses = detector.loss(torch.rand(1, 3, 96, 96), [crowd_only([0.0, 0.0, 20.0, 20.0])])
    assert losses['loss_rpn_cls'] > 0
