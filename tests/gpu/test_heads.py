"""The heads for a whole batch against MMDetection's on the GPU. The cases are those of tests/models/two_stage."""

import copy

import numpy as np
import pytest
import torch
from models.two_stage import test_roi_head as roi
from models.two_stage import test_rpn_head as rpn

RPN_SETTINGS = {name: rpn.VARIANTS[name] for name in ('as configured', 'without sampling', 'spared regions')}


def on(device, x, *of_images):
    """Maps, and what belongs to images: samples or proposals."""
    return [feature.to(device) for feature in x], *([element.to(device) for element in part] for part in of_images)


def step_of(head, x, *of_images):
    """Losses and gradients, of maps and parameters."""
    head.zero_grad()
    x = [feature.clone().requires_grad_() for feature in x]
    losses = {name: loss for name, loss in head.loss(x, *copy.deepcopy(of_images)).items() if 'loss' in name}
    losses = {name: sum(loss) if isinstance(loss, list) else loss for name, loss in losses.items()}
    sum(losses.values()).backward()
    gradients = [feature.grad for feature in x] + [parameter.grad for parameter in head.parameters()]
    return losses, gradients


def boxes_of(head, x, *of_images):
    with torch.no_grad():
        return head.eval().predict(x, *copy.deepcopy(of_images))


def assert_equal_steps(step, expected, tolerance=1e-4):
    losses, gradients = step
    expected_losses, expected_gradients = expected
    assert losses.keys() == expected_losses.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss.float(), expected_losses[name], rtol=tolerance, atol=0.1 * tolerance, msg=name)
    for gradient, of_mmdet in zip(gradients, expected_gradients, strict=True):
        if of_mmdet is None:
            assert gradient is None
        else:
            assert (gradient - of_mmdet).norm() <= 10 * tolerance * of_mmdet.norm() + 1e-6


def assert_equal_boxes(results, expected):
    """By falling score; those of nearly the same score may change places."""
    for objects, of_mmdet in zip(results, expected, strict=True):
        assert len(objects) == len(of_mmdet)
        torch.testing.assert_close(objects.scores, of_mmdet.scores, rtol=1e-5, atol=1e-6)
        distances = torch.cdist(objects.bboxes, of_mmdet.bboxes, compute_mode='donot_use_mm_for_euclid_dist')
        if len(objects):
            assert distances.amin(dim=1).max() < 0.01
            assert distances.amin(dim=0).max() < 0.01


@pytest.mark.parametrize('changes', RPN_SETTINGS.values(), ids=RPN_SETTINGS)
def test_the_rpn_head_learns_and_proposes_as_mmdetections(changes, device):
    generator = np.random.default_rng(1)
    for seed in range(5):
        ours, mmdets = (head.to(device) for head in rpn.heads(seed, **changes))
        assert ours.is_batched
        batch = on(device, *rpn.random_batch(generator))
        assert_equal_steps(step_of(ours, *batch), step_of(mmdets, *batch))
        proposals = boxes_of(ours, *batch)
        assert {of_image.bboxes.device.type for of_image in proposals} == {device}
        assert_equal_boxes(proposals, boxes_of(mmdets, *batch))


@pytest.mark.parametrize('changes', [{}, roi.SETTINGS['other offsets']], ids=['as configured', 'other offsets'])
def test_the_roi_head_learns_and_detects_as_mmdetections(changes, device):
    generator, count = np.random.default_rng(2), 0
    for _ in range(5):
        ours, mmdets = (head.to(device) for head in roi.heads(**changes))
        assert ours.is_batched
        batch = on(device, *roi.random_batch(generator))
        assert_equal_steps(step_of(ours, *batch), step_of(mmdets, *batch))
        results = boxes_of(ours, *batch), boxes_of(mmdets, *batch)
        assert_equal_boxes(*results)
        for objects, of_mmdet in zip(*results):
            assert objects.masks.shape == of_mmdet.masks.shape
            same = (objects.masks.sum() - of_mmdet.masks.sum()).abs() <= 0.01 * of_mmdet.masks.sum()
            assert same or not len(objects)
            count += len(objects)
    assert count > 10


@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float16, 0.02), (torch.bfloat16, 0.05)], ids=['float16', 'bfloat16']
)
def test_in_mixed_precision_losses_are_near_those_in_float32(dtype, tolerance, device):
    generator = np.random.default_rng(3)
    rpn_head, roi_head = rpn.heads()[0].to(device), roi.heads()[0].to(device)
    for _ in range(3):
        cases = (rpn_head, rpn.random_batch(generator)), (roi_head, roi.random_batch(generator, images=2))
        for head, batch in cases:
            batch = on(device, *batch)
            expected, _ = step_of(head, *batch)
            with torch.autocast(device, dtype):
                mixed, gradients = step_of(head, *batch)
            for name, loss in mixed.items():
                torch.testing.assert_close(loss.float(), expected[name], rtol=tolerance, atol=tolerance, msg=name)
            assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)
