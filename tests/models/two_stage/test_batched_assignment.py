"""Assignment and sampling of a batch against MMDetection's classes, which take one image at a time."""

import itertools

import numpy as np
import pytest
import torch
from mmdet.models.task_modules import AssignResult, MaxIoUAssigner, RandomSampler
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from fasternet_mm.models.ignoring_assigner import IgnoringAssigner
from fasternet_mm.models.two_stage.batched_assignment import assign, pad_boxes, sample


def whole_boxes(generator, most):
    """Up to so many boxes with small whole numbers, so that many overlaps are equal."""
    start = generator.integers(0, 8, (generator.integers(0, most + 1), 2))
    return torch.from_numpy(np.concatenate((start, start + generator.integers(1, 6, start.shape)), axis=1)).float()


SETTINGS = [
    dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False),
    dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
    dict(pos_iou_thr=0.7, neg_iou_thr=(0.1, 0.4), min_pos_iou=0.0),
]


@pytest.mark.parametrize('kind', [MaxIoUAssigner, IgnoringAssigner])
@pytest.mark.parametrize('settings', SETTINGS)
def test_candidates_are_assigned_as_image_by_image(kind, settings):
    init_default_scope('mmdet')
    generator = np.random.default_rng(0)
    for number in range(100):
        assigner = kind(**settings, ignore_iof_thr=(-1, 0.5)[number % 2])
        batch = [[whole_boxes(generator, most) for most in (20, 5, 3)] for _ in range(generator.integers(1, 5))]
        candidates, objects, regions = map(pad_boxes, zip(*batch))
        assigned = assign(assigner, candidates, objects, regions)
        for row, (boxes, own, ignored) in zip(assigned, batch):
            truth = InstanceData(bboxes=own, labels=torch.zeros(len(own), dtype=torch.long))
            expected = assigner.assign(InstanceData(priors=boxes), truth, InstanceData(bboxes=ignored)).gt_inds
            assert torch.equal(row[: len(boxes)], expected)
            assert (row[len(boxes) :] == -1).all()


def test_a_batch_without_ignored_regions_needs_none():
    boxes = pad_boxes([torch.tensor([[0.0, 0, 10, 10]])])
    assert assign(IgnoringAssigner(0.5, 0.5, ignore_iof_thr=0.5), boxes, boxes, None).tolist() == [[1]]


@pytest.mark.parametrize('bound', [-1, 1, 2.5])
def test_as_many_are_sampled_as_image_by_image_and_all_where_there_are_few(bound):
    generator = np.random.default_rng(0)
    sampler = RandomSampler(num=12, pos_fraction=0.3, neg_pos_ub=bound, add_gt_as_proposals=False)
    for _ in range(50):
        parts = generator.dirichlet((1, 1, 1), generator.integers(1, 5))
        assigned = torch.from_numpy(np.stack([generator.choice([-1, 0, 1], 30, p=own) for own in parts]))
        for row, positive, negative in zip(assigned, *sample(sampler, assigned)):
            result = AssignResult(1, row, None, labels=row)
            truth = InstanceData(bboxes=torch.zeros(1, 4), labels=torch.zeros(1, dtype=torch.long))
            expected = sampler.sample(result, InstanceData(priors=torch.zeros(len(row), 4)), truth)
            assert (row[positive] == 1).all()
            assert (row[negative] == 0).all()
            assert (positive.sum(), negative.sum()) == (len(expected.pos_inds), len(expected.neg_inds))


def test_all_samples_of_a_size_are_equally_probable():
    torch.manual_seed(0)
    images = 30_000
    assigned = torch.tensor([3, 0, 1, -1, 2, 0, 1]).expand(images, -1)
    positive, _ = sample(RandomSampler(num=4, pos_fraction=0.5), assigned)
    pairs = list(itertools.combinations([0, 2, 4, 6], 2))
    counts = [int(positive[:, pair].all(dim=1).sum()) for pair in pairs]
    assert sum(counts) == images
    deviation = (images * (1 / 6) * (5 / 6)) ** 0.5
    assert all(abs(count - images / 6) < 4 * deviation for count in counts)
