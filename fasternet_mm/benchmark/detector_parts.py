"""How long the parts of a detector take for one image."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from torch import nn

from .clocks import wait_for_gpu

PARTS = 'preprocessing', 'backbone', 'neck', 'RPN', 'RoI', 'head', 'post-processing'
"""In a detector's order. Of two stages, RPN: convolutions and proposals; RoI: RoIAlign and the heads' layers. Of one
stage, head: its convolutions. Post-processing: boxes, their suppression, and masks in the image."""


class PartClock:
    """A `Clock` for calls of a detector that also knows how long each part took, by the host's clock.

    Hooks on the detector's modules tell where a part begins; it ends where the next one begins, when the GPU's work is
    finished. This waiting takes time of its own: on a GPU the parts together take longer than the detector without it.

    Args:
        detector: of MMDetection, with one stage or two; it keeps the hooks.
    """

    def __init__(self, detector: nn.Module) -> None:
        self._calls: list[dict[str, float]] = []
        two_stages = hasattr(detector, 'roi_head')
        self.parts = tuple(part for part in PARTS if part not in (('head',) if two_stages else ('RPN', 'RoI')))
        self._restart()
        self._begin('backbone', before=detector.backbone)
        self._begin('neck', after=detector.backbone)
        if not two_stages:
            self._begin('head', before=detector.bbox_head)
            self._begin('post-processing', after=detector.bbox_head)
            return
        heads = detector.roi_head
        self._begin('RPN', before=detector.rpn_head)
        self._begin('RoI', before=heads.bbox_roi_extractor)
        self._begin('post-processing', after=heads.bbox_head)
        if heads.with_mask:
            self._begin('RoI', before=heads.mask_head if heads.share_roi_extractor else heads.mask_roi_extractor)
            self._begin('post-processing', after=heads.mask_head)

    def __call__(self, call: Callable[[], Any]) -> float:
        self._restart()
        call()
        self._switch(self.parts[0])
        self._calls.append(self._seconds)
        return sum(self._seconds.values())

    def medians(self) -> dict[str, float]:
        """Seconds of each of `PARTS` that the detector has, the medians of all calls so far."""
        return {part: median(seconds[part] for seconds in self._calls) for part in self.parts}

    def _restart(self) -> None:
        wait_for_gpu()
        self._seconds = dict.fromkeys(self.parts, 0.0)
        self._part, self._start = self.parts[0], time.perf_counter()

    def _begin(self, part: str, before: nn.Module | None = None, after: nn.Module | None = None) -> None:
        if before is not None:
            before.register_forward_pre_hook(lambda *_: self._switch(part))
        if after is not None:
            after.register_forward_hook(lambda *_: self._switch(part))

    def _switch(self, part: str) -> None:
        wait_for_gpu()
        now = time.perf_counter()
        self._seconds[self._part] += now - self._start
        self._part, self._start = part, now
