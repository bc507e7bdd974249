"""Checkpoints of a training, of which the best is the best."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from ..registry import HOOKS

AVERAGE = re.compile(r'_?m?A[PR](?![a-z])')
"""Average precision or recall in the name of a metric, as in 'coco/bbox_mAP_50'."""


EARLY_STOPPING = 'early_stopping'
"""The name under which `EarlyStoppingHook` has its best figure, and the evaluations since, in the message hub."""


def is_figure(name: str, value: float | None) -> bool:
    """Whether a metric has a value. NaN is not one, nor COCO's -1, which stands for an average over no objects."""
    return value is not None and math.isfinite(value) and not (value == -1 and AVERAGE.search(name))


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's ``CheckpointHook``, with the same options, except that only a figure can be the best.

    MMEngine keeps the checkpoint of a first AP of -1, which is what COCO gives where no object is, as the best one
    until a validation has a real figure; and a metric that ``save_best`` names and the validation lacks ends the
    training. Here such validations choose nothing, and the log says so.
    """

    def before_train(self, runner: Runner) -> None:
        """Take back a best checkpoint that MMEngine chose without a figure; warn of those of other trainings."""
        super().before_train(runner)
        recorded = runner.message_hub.runtime_info
        own = {Path(path).name for key, path in recorded.items() if key.startswith('best_ckpt')}
        others = [str(path) for path in Path(self.out_dir).glob('best_*.pth') if path.name not in own]
        if self.save_best and others:
            runner.logger.warning(
                f'{", ".join(others)}: not of this training, but commands that are given its work directory may take '
                'it for the best checkpoint: move it to another folder'
            )
        for indicator in self.key_indicators if self.save_best else ():
            suffix = '' if len(self.key_indicators) == 1 else f'_{indicator}'
            path = recorded.get(f'best_ckpt{suffix}')
            if path and not is_figure(Path(path).name, recorded.get(f'best_score{suffix}')):
                self._take_back(runner, suffix, path)

    def _take_back(self, runner: Runner, suffix: str, path: str) -> None:
        recorded = runner.message_hub.runtime_info
        value = recorded.pop(f'best_score{suffix}', None)
        del recorded[f'best_ckpt{suffix}']
        if suffix:
            self.best_ckpt_path_dict[suffix[1:]] = None
        else:
            self.best_ckpt_path = None
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)
        runner.logger.warning(
            f'{path} is removed: it was saved as the best checkpoint with a metric of {value}, which says nothing'
        )

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        metrics = dict(metrics)
        for indicator in self.key_indicators if self.save_best else ():
            name = next(iter(metrics)) if indicator == 'auto' else indicator
            if is_figure(name, metrics.get(name)):
                continue
            reason = (
                f'{name} is {metrics[name]}: there were no objects, or a number was not finite'
                if name in metrics
                else f'save_best asks for {name}, and it has {", ".join(metrics)}'
            )
            runner.logger.warning(f'This validation chooses no best checkpoint: {reason}')
            metrics[name] = None  # which MMEngine passes over
        super()._save_best_checkpoint(runner, metrics)
        if EARLY_STOPPING in runner.message_hub.runtime_info and self.last_ckpt is not None:
            # The last checkpoint was saved before this evaluation, which a resumed training would not count.
            step = runner.epoch if self.by_epoch else runner.iter
            self._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=runner.iter))
