"""How long the parts of a two-stage detector take for one image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .clocks import host_seconds

PARTS = 'backbone', 'neck', 'RPN', 'RoI', 'post-processing', 'rest'
"""In a detector's order. RPN: convolutions and proposals. RoI: RoIAlign and the heads' layers. Post-processing: boxes,
their suppression, and masks pasted into the image. Rest: preprocessing and bookkeeping."""


class PartTimer:
    """A detector whose parts are timed, by the host's clock with the GPU's work finished before and after each.

    On a GPU that waiting takes time of its own: the parts together take longer than the detector without it.

    Args:
        detector: its parts' methods are replaced by timed ones, so that it is for this purpose alone.
    """

    def __init__(self, detector: nn.Module) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._time(detector.backbone, 'forward', 'backbone')
        if detector.with_neck:
            self._time(detector.neck, 'forward', 'neck')
        self._time(detector.rpn_head, 'predict', 'RPN')
        self._time(detector.roi_head, 'predict', 'RoI')
        self._time(detector.roi_head.bbox_head, 'predict_by_feat', 'post-processing')
        if detector.roi_head.with_mask:
            self._time(detector.roi_head.mask_head, 'predict_by_feat', 'post-processing')

    def _time(self, module: nn.Module, method: str, part: str) -> None:
        call = getattr(module, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            results = []
            self.seconds[part] += host_seconds(lambda: results.append(call(*args, **kwargs)))
            return results[0]

        setattr(module, method, timed)

    def measure(self, detect: Callable[[], Any]) -> dict[str, float]:
        """Detect once, and return the seconds of each part, in the order of `PARTS`."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        whole = host_seconds(detect)
        self.seconds['RoI'] -= self.seconds['post-processing']
        self.seconds['rest'] = whole - sum(self.seconds.values())
        return self.seconds
