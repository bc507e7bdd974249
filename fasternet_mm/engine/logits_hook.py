"""A warning of logits that are NaN or infinite, which label maps do not show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from ..registry import HOOKS


def has_broken_logits(sample: BaseDataElement) -> bool:
    """Whether a segmenter's logits of an image are NaN or infinite anywhere; the first NaN of a pixel is its class."""
    if 'seg_logits' not in sample:
        return False
    logits = sample.seg_logits.data
    # A sum is cheaper than isfinite; where it is not finite, it may still have overflowed.
    return not logits.sum().isfinite() and not bool(logits.isfinite().all())


@HOOKS.register_module()
class BrokenLogitsHook(Hook):
    """Warns after a validation or test of images with logits that are not finite: their labels mean nothing."""

    def __init__(self) -> None:
        self.images: list[str] = []

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[BaseDataElement] | None = None,
        mode: str = 'train',
    ) -> None:
        if mode != 'train':
            self.images += [sample.get('img_path', '') for sample in outputs or () if has_broken_logits(sample)]

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        if mode == 'train':
            return
        images = [image for part in all_gather_object(self.images) for image in part]  # the log is rank 0's
        self.images = []
        if images:
            runner.logger.warning(
                f'The logits of {len(images)} images are not finite, first of {images[0]}: labels and figures '
                'mean nothing; if the loss is NaN too, train with a lower learning rate'
            )
