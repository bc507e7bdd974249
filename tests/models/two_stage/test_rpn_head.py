"""The RPN head of a batch against MMDetection's, which goes from image to image and from level to level."""

import copy
import pickle

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from random_boxes import random_boxes

from fasternet_mm.models.two_stage import batched_assignment, rpn_head

CHANNELS, STRIDES = 8, (4, 8, 16)
ALL = dict(type='PseudoSampler')
ASSIGNER = dict(type='MaxIoUAssigner', pos_iou_thr=0.6, neg_iou_thr=0.3, min_pos_iou=0.3, ignore_iof_thr=-1)
EVERY_CANDIDATE = dict(type='RandomSampler', num=10**5, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False)


def settings(**changes):
    cfg = Config(
        dict(
            in_channels=CHANNELS,
            feat_channels=CHANNELS,
            anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=STRIDES),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0, 0.1, 0, 0], target_stds=[0.5, 1, 1, 0.8]),
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.5),
            loss_bbox=dict(type='SmoothL1Loss', beta=0.2),
            train_cfg=dict(assigner=ASSIGNER, sampler=EVERY_CANDIDATE, allowed_border=-1, pos_weight=-1),
            test_cfg=dict(nms_pre=60, max_per_img=25, nms=dict(type='nms', iou_threshold=0.6), min_bbox_size=0),
        )
    )
    cfg.merge_from_dict(copy.deepcopy(changes))
    return cfg._cfg_dict


def heads(seed=0, **changes):
    """Ours and MMDetection's, with the same parameters, spread so that scores and boxes differ."""
    init_default_scope('mmdet')
    cfg = settings(**changes)
    torch.manual_seed(seed)
    mmdets = MODELS.build(dict(cfg, type='RPNHead'))
    for conv in (mmdets.rpn_conv, mmdets.rpn_cls, mmdets.rpn_reg):
        torch.nn.init.normal_(conv.weight, std=0.15)  # with more, many scores are 1
    ours = MODELS.build(dict(cfg, type='fasternet_mm.RPNHead'))
    ours.load_state_dict(mmdets.state_dict())
    return ours, mmdets


def random_batch(generator, ignored=True):
    """Maps and samples. Images have different sizes; some have no objects, some have ignored regions."""
    height, width = (32 * generator.integers(2, 5, 2)).tolist()
    samples = []
    for _ in range(generator.integers(1, 4)):
        own_height, own_width = int(height - generator.integers(0, 30)), int(width - generator.integers(0, 60))
        boxes = random_boxes(generator, generator.integers(0, 5), own_height, own_width)
        if len(boxes) > 1 and generator.random() < 0.3:
            boxes[1] = boxes[0]  # two objects in one place: MMDetection's choice between them must be ours
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(own_height, own_width),
                pad_shape=(32 * -(-own_height // 32), 32 * -(-own_width // 32)),
                scale_factor=(0.5, 0.8),
            )
        )
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
        regions = random_boxes(generator, generator.integers(0, 3) if ignored else 0, own_height, own_width)
        sample.ignored_instances = InstanceData(bboxes=regions)
        samples.append(sample)
    maps = [
        torch.from_numpy(generator.normal(size=(len(samples), CHANNELS, height // s, width // s))).float()
        for s in STRIDES
    ]
    return maps, samples


def total(losses):
    return {name: sum(values) if isinstance(values, list) else values for name, values in losses.items()}


def assert_equal_steps(ours, mmdets, maps, samples, rtol=1e-5):
    """Losses, gradients of maps and parameters, and proposals."""
    results = []
    for head in (ours, mmdets):
        head.zero_grad()
        inputs = [x.clone().requires_grad_() for x in maps]
        losses, proposals = head.loss_and_predict(inputs, copy.deepcopy(samples), proposal_cfg=head.test_cfg)
        losses = total(losses)
        sum(losses.values()).backward()
        gradients = [x.grad for x in inputs] + [p.grad for p in head.parameters()]
        results.append((losses, gradients, proposals))
    (losses, gradients, proposals), (expected, expected_gradients, expected_proposals) = results
    assert losses.keys() == expected.keys() == {'loss_rpn_cls', 'loss_rpn_bbox'}
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=rtol, atol=1e-6)
    for mine, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
    assert_equal_proposals(proposals, expected_proposals)


def assert_equal_proposals(proposals, expected):
    for mine, other in zip(proposals, expected, strict=True):
        assert len(mine) == len(other)
        if len(mine):  # of none, MMDetection's labels are floating point numbers
            assert mine.keys() == other.keys()
        torch.testing.assert_close(mine.bboxes, other.bboxes, rtol=0, atol=0)
        # The last bit of a sigmoid depends on where in a tensor it is computed.
        torch.testing.assert_close(mine.scores, other.scores, rtol=2e-7, atol=0)


VARIANTS = {
    'as configured': {},
    'without sampling': {'train_cfg.sampler': ALL},
    'inside the image alone': {
        'train_cfg.allowed_border': 0,
        'train_cfg.pos_weight': 2.0,
        'anchor_generator.scales': [1],
    },
    'ignored regions': {'train_cfg.assigner.ignore_iof_thr': 0.5},
    'no low quality': {'train_cfg.assigner.match_low_quality': False},
    'a range of background': {'train_cfg.assigner.neg_iou_thr': (0.1, 0.3)},
    'no background beside objects': {'train_cfg.assigner.neg_iou_thr': 0.0},
    'spared regions': {
        'train_cfg.assigner.type': 'fasternet_mm.IgnoringAssigner',
        'train_cfg.assigner.ignore_iof_thr': 0.5,
    },
    'regions spared at the least overlap': {
        'train_cfg.assigner.type': 'fasternet_mm.IgnoringAssigner',
        'train_cfg.assigner.ignore_iof_thr': 0.0,
    },
    'large boxes alone': {'test_cfg.min_bbox_size': 12},
    'few of each level': {'test_cfg.nms_pre': 7, 'loss_bbox': dict(_delete_=True, type='L1Loss')},
}


@pytest.mark.parametrize('changes', VARIANTS.values(), ids=VARIANTS)
def test_losses_gradients_and_proposals_are_mmdetections(changes):
    generator = np.random.default_rng(1)
    for seed in range(20):
        ours, mmdets = heads(seed, **changes)
        assert ours.is_batched
        assert_equal_steps(ours, mmdets, *random_batch(generator))


def test_a_batch_without_objects():
    generator = np.random.default_rng(2)
    ours, mmdets = heads()
    maps, samples = random_batch(generator)
    for sample in samples:
        sample.gt_instances = sample.gt_instances[:0]
    assert_equal_steps(ours, mmdets, maps, samples)


def test_assignment_in_parts_is_the_same(monkeypatch):
    monkeypatch.setattr(batched_assignment, 'LARGEST_OVERLAPS', 1)
    generator = np.random.default_rng(3)
    ours, mmdets = heads(**{'train_cfg.assigner.ignore_iof_thr': 0.5})
    for _ in range(5):
        assert_equal_steps(ours, mmdets, *random_batch(generator))


@pytest.mark.parametrize('rescale', [False, True])
def test_predictions_are_mmdetections(rescale):
    generator = np.random.default_rng(4)
    for seed in range(20):
        ours, mmdets = heads(seed)
        maps, samples = random_batch(generator)
        with torch.no_grad():
            assert_equal_proposals(*(head.eval().predict(maps, samples, rescale=rescale) for head in (ours, mmdets)))


def test_equal_scores_are_kept_in_mmdetections_order():
    """As in half precision, where many anchors have the same score."""
    ours, mmdets = heads()
    for head in (ours, mmdets):
        head.rpn_cls.weight.data.zero_()
    generator = np.random.default_rng(5)
    maps, samples = random_batch(generator)
    maps = maps[-1:] * 1
    counts = 3 * maps[0].shape[2] * maps[0].shape[3]
    for head in (ours, mmdets):
        head.test_cfg.nms_pre = counts  # beyond it, which of equal ones are dropped is each sort's own choice
    maps = [torch.zeros(len(samples), CHANNELS, 2, 2)] * 2 + maps
    with torch.no_grad():
        assert_equal_proposals(*(head.predict(maps, samples) for head in (ours, mmdets)))


def test_twenty_steps_without_sampling_lead_to_mmdetections_parameters():
    ours, mmdets = heads(**{'train_cfg.sampler': ALL})
    for head in (ours, mmdets):
        generator = np.random.default_rng(6)
        optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)
        for _ in range(20):
            optimizer.zero_grad()
            sum(total(head.loss(*random_batch(generator))).values()).backward()
            optimizer.step()
    start = heads(**{'train_cfg.sampler': ALL})[0]
    for mine, other, before in zip(ours.parameters(), mmdets.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
        assert (mine - before).abs().max() > 1e-3


def test_a_sample_has_the_configured_number_of_anchors():
    """Each sampled anchor's logit gets a gradient, and no other does."""
    sampler = dict(type='RandomSampler', num=24, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=False)
    ours, _ = heads(**{'train_cfg.sampler': sampler})
    generator, drawn = np.random.default_rng(7), []
    for _ in range(10):
        maps, samples = random_batch(generator)
        outputs = [[x.detach().requires_grad_() for x in of_kind] for of_kind in ours(maps)]
        metas = [sample.metainfo for sample in samples]
        losses = ours.loss_by_feat(*outputs, [sample.gt_instances for sample in samples], metas)
        sum(losses.values()).backward()
        gradients = torch.cat([x.grad.flatten(1) for x in outputs[0]], dim=1)
        assert (gradients != 0).sum(dim=1).tolist() == [24] * len(samples)
        objects = (gradients < 0).sum(dim=1)
        assert not objects[[len(sample.gt_instances) == 0 for sample in samples]].any()
        drawn.append(objects.max())
    assert max(drawn) == 6


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_proposals_under_mixed_precision_have_float32_coordinates(dtype):
    """MMDetection's are rounded to whole pixels and more, so those of the same outputs in float32 are expected."""
    ours, mmdets = heads()
    maps, samples = random_batch(np.random.default_rng(8))
    metas = [sample.metainfo for sample in samples]
    with torch.no_grad():
        outputs = [[x.to(dtype) for x in of_kind] for of_kind in ours(maps)]
        proposals = ours.predict_by_feat(*outputs, batch_img_metas=metas)
        exact = [[x.float() for x in of_kind] for of_kind in outputs]
        assert_equal_proposals(proposals, ours.predict_by_feat(*exact, batch_img_metas=metas))
    losses = ours.loss_by_feat(*outputs, [sample.gt_instances for sample in samples], metas)
    expected = mmdets.loss_by_feat(*exact, [sample.gt_instances for sample in samples], metas)
    for name, loss in losses.items():
        torch.testing.assert_close(loss.float(), total(expected)[name], rtol=2e-2, atol=1e-3)


def test_no_anchor_inside_an_image_is_an_error():
    changes = {'train_cfg.allowed_border': 0, 'anchor_generator.scales': [64]}
    for head in heads(**changes):
        with pytest.raises(ValueError, match=r'no (valid )?anchor inside'):
            head.loss(*random_batch(np.random.default_rng(9)))


@pytest.mark.parametrize(
    'changes',
    [
        {'train_cfg.assigner.gt_max_assign_all': False},
        {'train_cfg.assigner.gpu_assign_thr': 10},
        {'train_cfg.assigner.neg_iou_thr': [0.1, 0.3]},
        {'train_cfg.assigner.ignore_wrt_candidates': False, 'train_cfg.assigner.ignore_iof_thr': 0.5},
        {'bbox_coder.clip_border': False},
        {'loss_cls.use_sigmoid': False},
        {'reg_decoded_bbox': True, 'loss_bbox': dict(_delete_=True, type='GIoULoss')},
        {'test_cfg.nms': dict(_delete_=True, type='soft_nms', iou_threshold=0.6)},
        {'test_cfg.nms.split_thr': 10},
        {'test_cfg.nms_pre': -1},
    ],
    ids=str,
)
def test_other_parts_are_mmdetections(changes):
    ours, mmdets = heads(**changes)
    assert_equal_steps(ours, mmdets, *random_batch(np.random.default_rng(10), ignored=False))


def test_anchors_are_made_once_for_each_of_the_last_sizes(monkeypatch):
    monkeypatch.setattr(rpn_head, 'KEPT_SIZES', 2)
    head, _ = heads()
    generate = head.prior_generator.grid_priors
    sizes = []
    monkeypatch.setattr(
        head.prior_generator, 'grid_priors', lambda size, **options: sizes.append(size[0]) or generate(size, **options)
    )

    def predict(side):
        metas = [dict(img_shape=(side * 4, side * 4))]
        with torch.no_grad():
            head.predict_by_feat(*head([torch.zeros(1, 8, side // n, side // n) for n in (1, 2, 4)]), None, metas)

    for side in (8, 16, 8, 24, 8, 16):
        predict(side)
    assert sizes == [(8, 8), (16, 16), (24, 24), (16, 16)]
    for copied in (copy.deepcopy(head), pickle.loads(pickle.dumps(heads()[0]))):
        assert not copied._anchors
