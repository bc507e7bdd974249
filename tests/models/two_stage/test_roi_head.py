"""The RoI head of a batch against MMDetection's, which goes from image to image."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from mmengine.utils import digit_version
from random_boxes import random_boxes

from fasternet_mm.benchmark.dispatched_operators import dispatched_operators

CHANNELS, CLASSES, STRIDES = 8, 3, (4, 8, 16, 32)


def extractor(size):
    layer = dict(type='RoIAlign', output_size=size, sampling_ratio=0)
    return dict(type='SingleRoIExtractor', roi_layer=layer, out_channels=CHANNELS, featmap_strides=STRIDES)


def settings(**changes):
    cfg = Config(
        dict(
            bbox_roi_extractor=extractor(4),
            bbox_head=dict(
                type='ConvFCBBoxHead',
                num_shared_convs=1,
                num_shared_fcs=1,
                in_channels=CHANNELS,
                conv_out_channels=CHANNELS,
                fc_out_channels=16,
                roi_feat_size=4,
                num_classes=CLASSES,
                norm_cfg=dict(type='BN'),
                loss_bbox=dict(type='L1Loss'),
            ),
            mask_roi_extractor=extractor(6),
            mask_head=dict(
                type='FCNMaskHead', num_convs=1, in_channels=CHANNELS, conv_out_channels=CHANNELS, num_classes=CLASSES
            ),
            train_cfg=dict(
                assigner=dict(
                    type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=True
                ),
                sampler=dict(type='RandomSampler', num=400, pos_fraction=0.5, add_gt_as_proposals=True),
                mask_size=12,
                pos_weight=-1,
            ),
            test_cfg=dict(score_thr=0.3, nms=dict(type='nms', iou_threshold=0.5), max_per_img=8, mask_thr_binary=0.5),
        )
    )
    cfg.merge_from_dict(changes)
    return cfg._cfg_dict


def heads(seed=0, **changes):
    """Ours and MMDetection's, with the same parameters, spread so that boxes of all classes are detected."""
    init_default_scope('mmdet')
    cfg = settings(**changes)
    torch.manual_seed(seed)
    mmdets = MODELS.build(dict(cfg, type='StandardRoIHead'))
    torch.nn.init.normal_(mmdets.bbox_head.fc_cls.weight, std=0.5)
    torch.nn.init.normal_(mmdets.bbox_head.fc_reg.weight, std=0.5)
    ours = MODELS.build(dict(cfg, type='fasternet_mm.StandardRoIHead'))
    ours.load_state_dict(mmdets.state_dict())
    return ours, mmdets


def random_masks(boxes, height, width):
    masks = np.zeros((len(boxes), height, width), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist()):
        mask[top:bottom, left : max(left + 1, (left + right) // 2)] = 1
    return BitmapMasks(masks, height, width)


def near(generator, boxes, count):
    """Boxes that overlap some of those given by a half or more."""
    if not len(boxes):
        return boxes
    chosen = boxes[generator.integers(0, len(boxes), count)]
    noise = torch.from_numpy(generator.normal(0, 0.1, (count, 4))).float()
    return chosen + noise * (chosen[:, 2:] - chosen[:, :2]).repeat(1, 2)


def random_batch(generator, images=None):
    """Maps, proposals and samples. Images have different sizes; some have no objects, proposals or ignored regions."""
    images = images or generator.integers(1, 4)
    height, width = (32 * generator.integers(3, 6, 2)).tolist()
    samples, proposals = [], []
    for _ in range(images):
        own_height, own_width = int(height - generator.integers(0, 30)), int(width - generator.integers(0, 30))
        scale = generator.uniform(0.5, 2, 2)
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(own_height, own_width),
                ori_shape=(round(own_height / scale[1]), round(own_width / scale[0])),
                scale_factor=tuple(scale.tolist()),
            )
        )
        boxes = random_boxes(generator, generator.integers(0, 6), own_height, own_width)
        labels = torch.from_numpy(generator.integers(0, CLASSES, len(boxes)))
        masks = random_masks(boxes, height, width)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels, masks=masks)
        if generator.random() < 0.8:
            ignored = random_boxes(generator, generator.integers(0, 3), own_height, own_width)
            sample.ignored_instances = InstanceData(bboxes=ignored)
        samples.append(sample)
        far = random_boxes(generator, generator.integers(1, 30) * generator.integers(0, 3), own_height, own_width)
        bboxes = torch.cat((near(generator, boxes, generator.integers(0, 20)), far))
        proposals.append(InstanceData(bboxes=bboxes))
    x = tuple(
        torch.from_numpy(generator.normal(size=(images, CHANNELS, height // stride, width // stride))).float()
        for stride in STRIDES
    )
    return x, proposals, samples


def losses_and_gradients(head, x, proposals, samples):
    head.zero_grad()
    x = [feature.clone().requires_grad_() for feature in x]
    losses = head.loss(x, copy.deepcopy(proposals), samples)
    sum(loss.sum() for name, loss in losses.items() if 'loss' in name).backward()
    of_parameters = {name: parameter.grad for name, parameter in head.named_parameters()}
    return losses, [feature.grad for feature in x], of_parameters


def assert_equal_training(ours, mmdets, batch):
    losses, gradients, of_parameters = losses_and_gradients(ours, *batch)
    expected, expected_gradients, expected_of_parameters = losses_and_gradients(mmdets, *batch)
    assert losses.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(losses[name].sum(), expected[name].sum(), rtol=1e-5, atol=1e-5)
    for gradient, expected_gradient in zip(gradients, expected_gradients):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)
    assert of_parameters.keys() == expected_of_parameters.keys()
    torch.testing.assert_close(of_parameters, expected_of_parameters, rtol=1e-4, atol=1e-5)


ASSIGNERS = {
    'ignored': dict(type='fasternet_mm.IgnoringAssigner', ignore_iof_thr=0.5),
    'mmdet': dict(ignore_iof_thr=0.5),
    'nothing ignored': dict(),
}


@pytest.mark.parametrize('assigner', ASSIGNERS.values(), ids=ASSIGNERS)
def test_losses_and_gradients_are_mmdetections(assigner):
    ours, mmdets = heads(train_cfg=dict(assigner=assigner))
    assert ours.is_batched
    generator = np.random.default_rng(0)
    for _ in range(60):
        assert_equal_training(ours, mmdets, random_batch(generator))


def without(batch, objects=False, proposals=False):
    x, of_images, samples = batch
    for sample in samples if objects else []:
        sample.gt_instances = sample.gt_instances[:0]
    return x, [of_image[:0] for of_image in of_images] if proposals else of_images, samples


@pytest.mark.parametrize('missing', [dict(objects=True), dict(proposals=True), dict(objects=True, proposals=True)])
def test_a_batch_without_objects_or_proposals_is_learned_from_as_in_mmdetection(missing):
    ours, mmdets = heads(**{'bbox_head.norm_cfg': None})
    generator = np.random.default_rng(1)
    for _ in range(10):
        assert_equal_training(ours, mmdets, without(random_batch(generator), **missing))


SETTINGS = {
    'one extractor': {'mask_roi_extractor': None, 'train_cfg.mask_size': 8},
    'boxes alone': dict(mask_roi_extractor=None, mask_head=None),
    'no classes': {
        'bbox_head.reg_class_agnostic': True,
        'mask_head.class_agnostic': True,
        'train_cfg.mask_size': (12, 12),
    },
    'other losses': {
        'bbox_head.loss_bbox': dict(type='SmoothL1Loss', beta=0.1, loss_weight=3.0),
        'bbox_head.loss_cls': dict(type='CrossEntropyLoss', loss_weight=2.0, class_weight=[1.0, 2.0, 3.0, 0.5]),
        'train_cfg.pos_weight': 2.5,
        'train_cfg.soft_mask_target': True,
    },
    'other offsets': {
        'bbox_head.bbox_coder': dict(
            type='DeltaXYWHBBoxCoder', target_means=[0.1, 0.2, 0.3, 0.4], target_stds=[0.5, 0.6, 0.7, 0.8]
        ),
        'train_cfg.sampler.add_gt_as_proposals': False,
    },
}


@pytest.mark.parametrize('changes', SETTINGS.values(), ids=SETTINGS)
def test_losses_follow_the_settings(changes):
    ours, mmdets = heads(**changes)
    assert ours.is_batched
    generator = np.random.default_rng(2)
    for _ in range(10):
        assert_equal_training(ours, mmdets, random_batch(generator))


def assert_equal_predictions(ours, mmdets, batch, rescale):
    """To the bit, and in the same order."""
    x, proposals, samples = batch
    with torch.no_grad():
        predictions = ours.eval().predict(x, copy.deepcopy(proposals), samples, rescale)
        expected = mmdets.eval().predict(x, copy.deepcopy(proposals), samples, rescale)
    assert len(predictions) == len(expected)
    for prediction, of_mmdet in zip(predictions, expected):
        assert prediction.keys() == of_mmdet.keys()
        for key, values in of_mmdet.items():
            assert prediction[key].dtype == values.dtype
            assert torch.equal(prediction[key], values)
    return sum(map(len, predictions))


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize(
    'changes',
    [
        {},
        SETTINGS['boxes alone'],
        SETTINGS['no classes'],
        SETTINGS['other offsets'],
        SETTINGS['one extractor'],
        {'test_cfg.nms': dict(type='soft_nms', iou_threshold=0.5, min_score=0.05)},
        {'test_cfg.max_per_img': -1},
    ],
)
def test_predictions_are_mmdetections(changes, rescale):
    ours, mmdets = heads(**changes)
    generator = np.random.default_rng(3)
    counts = [assert_equal_predictions(ours, mmdets, random_batch(generator), rescale) for _ in range(20)]
    assert max(counts) > 3
    for _ in range(3):
        batch = without(random_batch(generator), proposals=True)
        assert assert_equal_predictions(ours, mmdets, batch, rescale) == 0


def test_an_image_without_detections_has_empty_ones():
    ours, mmdets = heads(**{'test_cfg.score_thr': 0.99})
    assert assert_equal_predictions(ours, mmdets, random_batch(np.random.default_rng(4)), True) == 0


OTHER_PARTS = {
    'sampler': {'train_cfg.sampler': dict(_delete_=True, type='OHEMSampler', num=40, pos_fraction=0.5)},
    'coder': {'bbox_head.bbox_coder': dict(type='LegacyDeltaXYWHBBoxCoder')},
    'decoded boxes': {'bbox_head.reg_decoded_bbox': True, 'bbox_head.loss_bbox': dict(_delete_=True, type='GIoULoss')},
    'loss of classes': {
        'bbox_head.loss_cls': dict(type='SeesawLoss', num_classes=CLASSES),
        'bbox_head.cls_predictor_cfg': dict(type='NormedLinear'),
    },
    'box head': {
        'bbox_head': dict(
            _delete_=True, type='BBoxHead', with_avg_pool=True, in_channels=CHANNELS, roi_feat_size=4, num_classes=3
        )
    },
    'assigner': {'train_cfg.assigner.gt_max_assign_all': False},
}


@pytest.mark.parametrize('changes', OTHER_PARTS.values(), ids=OTHER_PARTS)
def test_with_other_parts_it_is_mmdetections(changes):
    ours, mmdets = heads(**changes)
    assert not ours.is_batched
    x, proposals, samples = random_batch(np.random.default_rng(5), images=2)
    losses = []
    for head in (ours, mmdets):
        torch.manual_seed(0)
        losses.append(head.loss(x, copy.deepcopy(proposals), samples))
    torch.testing.assert_close(*losses)
    assert_equal_predictions(ours, mmdets, (x, proposals, samples), True)


def test_parameters_have_mmdetections_names_and_nothing_else_is_saved():
    ours, mmdets = heads()
    assert list(ours.state_dict()) == list(mmdets.state_dict())


def test_a_head_for_predictions_alone_needs_no_training_settings():
    ours, mmdets = heads(train_cfg=None)
    assert ours.is_batched
    assert_equal_predictions(ours, mmdets, random_batch(np.random.default_rng(6)), True)


def test_without_test_settings_all_scores_and_boxes_are_given_as_in_mmdetection():
    ours, mmdets = heads()
    x, proposals, samples = random_batch(np.random.default_rng(7), images=2)
    metas = [sample.metainfo for sample in samples]
    with torch.no_grad():
        results = [head.eval().predict_bbox(x, metas, proposals, None) for head in (ours, mmdets)]
    for result, expected in zip(*results):
        assert result.scores.shape == (len(result.bboxes), CLASSES + 1)
        assert torch.equal(result.scores, expected.scores)
        assert torch.equal(result.bboxes, expected.bboxes)


def test_boxes_may_be_of_mmdetections_class_of_boxes():
    ours, _ = heads()
    x, proposals, samples = random_batch(np.random.default_rng(0), images=3)
    expected = ours.loss(x, proposals, samples)
    for instances in [*proposals, *(sample.gt_instances for sample in samples)]:
        instances.bboxes = HorizontalBoxes(instances.bboxes)
    torch.testing.assert_close(ours.loss(x, proposals, samples), expected)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float16, 0.1), (torch.bfloat16, 0.3)])
def test_mixed_precision_is_near_full_precision(dtype, tolerance):
    if dtype == torch.float16 and digit_version(torch.__version__) < digit_version('2.4'):
        pytest.skip('this PyTorch has no float16 autocast on the CPU')
    ours, _ = heads()
    generator = np.random.default_rng(8)
    for _ in range(3):
        batch = random_batch(generator, images=2)
        expected, expected_gradients, _ = losses_and_gradients(ours, *batch)
        with torch.autocast('cpu', dtype):
            losses, gradients, _ = losses_and_gradients(ours, *[tuple(x.to(dtype) for x in batch[0]), *batch[1:]])
        for name in ('loss_cls', 'loss_bbox', 'loss_mask'):
            torch.testing.assert_close(losses[name].float().sum(), expected[name].sum(), rtol=0.02, atol=0.02)
        for gradient, expected_gradient in zip(gradients, expected_gradients):
            assert (gradient.float() - expected_gradient).norm() <= tolerance * expected_gradient.norm()


def test_predictions_in_mixed_precision_have_boxes_in_float32():
    ours, _ = heads(**{'mask_head': None})
    x, proposals, samples = random_batch(np.random.default_rng(9), images=2)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        results = ours.eval().predict(tuple(feature.bfloat16() for feature in x), proposals, samples)
    boxes = torch.cat([result.bboxes for result in results])
    assert boxes.dtype == torch.float32
    assert not torch.equal(boxes, boxes.bfloat16().float())


def test_a_further_image_costs_few_further_operators_in_training():
    ours, _ = heads()
    x, proposals, samples = random_batch(np.random.default_rng(0), images=1)
    counts = []
    for images in (2, 5):
        maps = [feature.expand(images, -1, -1, -1) for feature in x]
        call = partial(ours.loss, maps, proposals * images, samples * images)
        counts.append(dispatched_operators(call))
    assert counts[1] - counts[0] <= 3 * 4  # products with its map of each level
    assert counts[1] < 600
