import pytest
import torch
from torch import nn

from fasternet_mm.benchmark import detector_parts, detectors
from fasternet_mm.benchmark.detector_parts import PARTS, PartClock
from fasternet_mm.benchmark.detectors import DetectorTask, add_parts, detector_candidates
from fasternet_mm.benchmark.timing import compare

TWO_STAGES = tuple(part for part in PARTS if part != 'head')


class Taking(nn.Module):
    """Takes some seconds of the test's clock."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self):
        self.clock.now += self.seconds


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


def small_detector(clock):
    detector = nn.Module()
    detector.backbone, detector.neck = Taking(clock, 1), Taking(clock, 2)
    detector.rpn_head, detector.roi_head = Taking(clock, 4), nn.Module()
    heads = detector.roi_head
    heads.bbox_roi_extractor, heads.bbox_head = Taking(clock, 8), Taking(clock, 16)
    heads.mask_roi_extractor, heads.mask_head = Taking(clock, 32), Taking(clock, 64)
    heads.with_mask, heads.share_roi_extractor = True, False
    return detector


def test_each_part_has_its_own_time_and_all_are_the_whole(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(detector_parts, 'time', clock)
    detector = small_detector(clock)
    heads = detector.roi_head
    order = [detector.backbone, detector.neck, detector.rpn_head, heads.bbox_roi_extractor, heads.bbox_head]
    between = [Taking(clock, 128), Taking(clock, 256)]
    order += [between[0], heads.mask_roi_extractor, heads.mask_head, between[1]]
    part_clock = PartClock(detector)
    clock.now += 1000  # between calls
    for _ in range(2):
        assert part_clock(lambda: [module() for module in order]) == 511
    assert part_clock.medians() == dict(zip(TWO_STAGES, [0, 1, 2, 4, 8 + 16 + 32 + 64, 128 + 256]))


@pytest.fixture
def task(root):
    yield DetectorTask(str(root / 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py'), 96, 128)
    detectors._build.cache_clear()


def test_parts_are_told_of_our_detector_and_of_the_peer(task):
    rows = compare(detector_candidates(task, ['optimized']), 1, 0)['rows']
    add_parts(task, rows, rounds=1)
    assert [row['name'] for row in rows] == [task.peer, task.name]
    for row in rows:
        assert tuple(row['parts']) == TWO_STAGES
        assert min(row['parts'].values()) > 0


def test_the_peer_is_mmdetections_own_with_the_same_weights(task):
    peer, _ = detectors._detector('timm', task)
    heads = peer.rpn_head, peer.roi_head, peer.roi_head.bbox_roi_extractor, peer.roi_head.mask_roi_extractor
    assert {type(head).__module__.partition('.')[0] for head in heads} == {'mmdet'}
    _, own = detectors._build(task)
    for name, weight in own.roi_head.state_dict().items():
        assert torch.equal(weight, peer.roi_head.state_dict()[name])
