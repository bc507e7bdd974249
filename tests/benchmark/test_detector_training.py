from dataclasses import replace

import pytest
import torch

from fasternet_mm.benchmark.detector_training import (
    DetectorStep,
    detector_training_candidates,
    prepare_step,
)
from fasternet_mm.benchmark.dispatched_operators import dispatched_operators
from fasternet_mm.engine.optimizer import can_be_fused
from fasternet_mm.errors import UserError


@pytest.fixture
def step(root):
    return DetectorStep(str(root / 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py'), 2, 96, 128)


def test_a_detectors_step_is_compared_with_that_of_mmdetections_heads(step):
    theirs, ours = detector_training_candidates(step)
    assert [theirs.engine, ours.engine] == ['MMDetection', 'as configured']
    assert ours.baseline == theirs.baseline == theirs.key
    for candidate in (theirs, ours):
        assert candidate.images == 2
        assert candidate.facts['operators'] > 1000
        assert candidate.facts['step_bytes'] > 1e6
        losses = candidate.prepare()()
        assert losses['loss'].isfinite()
        assert losses['loss_mask'] > 0


def test_the_peer_has_mmdetections_heads_and_the_same_weights(step):
    own, peer = (prepare_step(replace(step, has_peer_heads=of_peer)).args[0] for of_peer in (False, True))
    for detector, package in ((own, 'fasternet_mm'), (peer, 'mmdet')):
        heads = detector.rpn_head, detector.roi_head, detector.roi_head.bbox_roi_extractor
        assert {type(head).__module__.partition('.')[0] for head in heads} == {package}
    for name, weight in own.state_dict().items():
        assert torch.equal(weight, peer.state_dict()[name]), name


def test_a_step_is_that_of_training_and_the_next_one_has_the_same_weights(step):
    take = prepare_step(step)
    detector, _, optimizer = take.args
    layouts = []
    detector.backbone.patch_embed.register_forward_pre_hook(
        lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    weights = [parameter.clone() for parameter in detector.parameters()]
    take()
    assert layouts == [True]
    assert bool(optimizer.optimizer.defaults['fused']) == can_be_fused(dict(type='AdamW'), torch.device('cpu'))
    assert len(optimizer.optimizer.state) > 100
    assert all(map(torch.equal, weights, detector.parameters()))


def test_no_pretrained_weights_are_fetched(step):
    missing = 'model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.checkpoint=nowhere.pth'
    prepare_step(replace(step, options=missing))


def test_mixed_precision_without_a_gpu_is_named(step):
    with pytest.raises(UserError, match='--amp bfloat16: MMEngine trains a detector in mixed precision on a GPU'):
        detector_training_candidates(replace(step, amp='bfloat16'))


def test_a_model_without_two_stages_is_named(step, root):
    segmenter = str(root / 'configs/shapes/upernet_fasternet_t0_shapes.py')
    with pytest.raises(UserError, match='has no two-stage detector'):
        detector_training_candidates(replace(step, config=segmenter))


def test_a_step_dispatches_few_operators_and_few_more_for_each_further_image(step):
    """A GPU waits for their launches. With MMDetection's heads and optimizer a step of four images takes over 5,000."""
    counts = []
    for images in (4, 8):
        take = prepare_step(replace(step, batch=images))
        take()  # in the first one the optimizer makes its moments
        counts.append(dispatched_operators(take))
    assert counts[0] <= 2500
    assert counts[1] - counts[0] <= 4 * 60
