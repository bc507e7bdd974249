import time

import pytest

from fasternet_mm.benchmark import detectors
from fasternet_mm.benchmark.detector_parts import PARTS, PartTimer
from fasternet_mm.benchmark.detectors import DetectorTask, detector_candidates


@pytest.fixture
def task(root):
    yield DetectorTask(str(root / 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py'), 96, 128)
    detectors._build.cache_clear()


class Module:
    """Stands for a module whose methods take a known time."""

    def __init__(self, **seconds):
        for name, duration in seconds.items():
            setattr(self, name, lambda duration=duration: time.sleep(duration))


class Detector:
    with_neck = True

    def __init__(self):
        self.backbone, self.neck = Module(forward=0.02), Module(forward=0)
        self.rpn_head, self.roi_head = Module(predict=0), Module(layers=0.04)
        self.roi_head.with_mask = False
        self.roi_head.bbox_head = Module(predict_by_feat=0.08)
        self.roi_head.predict = lambda: (self.roi_head.layers(), self.roi_head.bbox_head.predict_by_feat())

    def detect(self):
        for call in (self.backbone.forward, self.neck.forward, self.rpn_head.predict, self.roi_head.predict):
            call()


def test_each_part_has_its_own_time_and_all_are_the_whole(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, 'sleep', lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(time, 'perf_counter', lambda: now[0])
    detector = Detector()
    timer = PartTimer(detector)
    for _ in range(2):
        seconds = timer.measure(detector.detect)
        assert tuple(seconds) == PARTS
        assert [round(seconds[part], 6) for part in PARTS] == [0.02, 0, 0, 0.04, 0.08, 0]


def test_parts_are_told_of_our_detector_and_of_the_peer(task):
    for candidate in detector_candidates(task, ['optimized'], parts=2):
        facts = candidate.result_facts(candidate.prepare()())
        assert facts['detections'] == 100
        assert tuple(facts['parts']) == PARTS
        assert all(seconds > 0 for part, seconds in facts['parts'].items() if part != 'rest')
