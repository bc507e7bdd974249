"""Checkpoints of a training: the next one stands before the last one goes, and the best is the best."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from ..errors import RunError, UserError
from ..files import sweep_drafts, write_atomically
from ..registry import HOOKS
from ..weights.reading import read_file

AVERAGE = re.compile(r'_?m?A[PR](?![a-z])')
"""Average precision or recall in the name of a metric, as in 'coco/bbox_mAP_50'."""


def is_figure(name: str, value: float | None) -> bool:
    """Whether a metric has a value. NaN is not one, nor COCO's -1, which stands for an average over no objects."""
    return value is not None and math.isfinite(value) and not (value == -1 and AVERAGE.search(name))


class NotFiniteWeights(Exception):
    """Weights that hold NaN or infinity were to be saved as the best ones."""


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's ``CheckpointHook``, with the same options, except that nothing good is lost.

    - The next checkpoint stands, whole, before an older one is removed. MMEngine removes first, and a training that is
      killed meanwhile has none.
    - Where one cannot be written, as on a full disk, one line says so, those from before stay, and training goes on to
      the next interval. It ends with `RunError` if its last state could not be saved.
    - Checkpoints are recorded by their names, and removed in the training's own folder alone. MMEngine records paths,
      by which the training that goes on in a copy of a work directory removes checkpoints of the original.
    - Only a figure and finite weights can be the best. MMEngine keeps the checkpoint of a first AP of -1, which is what
      COCO gives where no object is, until a validation has a real figure; and a metric that ``save_best`` names and the
      validation lacks ends the training. Here such a validation chooses nothing, and the log says so.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._standing: list[str] = []  # names of the checkpoints to go on from, the oldest first
        self._failure: str | None = None  # why the last of them could not be saved
        self._begun: int | None = None  # the number of steps before the last one that was begun
        self._epochs: int | None = None  # that have ended, until the next step begins
        self._saves_best = False

    def before_train(self, runner: Runner) -> None:
        """Take up what a resumed training recorded, and warn of best checkpoints of others."""
        standing = runner.message_hub.runtime_info.pop('keep_ckpt_ids', [])  # which MMEngine would remove as its own
        super().before_train(runner)
        if is_main_process():
            sweep_drafts(self.out_dir)
        if self._goes_on_in_place(runner):
            taken_up = self._path(self.filename_tmpl.format(runner.epoch if self.by_epoch else runner.iter))
            self.last_ckpt = taken_up if runner.iter and self.file_backend.isfile(taken_up) else None
            names = (self.filename_tmpl.format(entry) if isinstance(entry, int) else entry for entry in standing)
            self._standing = [Path(name).name for name in names]
            self._remove_old(runner)
        for suffix in self._suffixes():
            self._take_up_best(runner, suffix)
            self._take_up_unrecorded_best(runner, suffix)
        self._warn_of_others(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Know, for `save_now`, that a step is being done."""
        self._begun, self._epochs = runner.iter, None

    def after_train_epoch(self, runner: Runner) -> None:
        """Save a checkpoint where the interval says so."""
        self._epochs = runner.epoch + 1
        super().after_train_epoch(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Refuse weights that are not finite as the best ones."""
        if not self._saves_best:
            return
        for name, value in checkpoint['state_dict'].items():
            if value.is_floating_point() and not value.isfinite().all():
                raise NotFiniteWeights(f'{name} has NaN or infinite numbers')

    def after_train(self, runner: Runner) -> None:
        """Try again to save the last state where that failed.

        Raises:
            RunError: it fails again.
        """
        if self._failure and not self.save_now(runner):
            if not is_main_process():
                raise SystemExit(1)
            advice = 'go on with --resume' if self.last_ckpt or runner._resume else 'train again'
            raise RunError(
                f'the last state of this training is not saved: {self.out_dir} cannot be written ({self._failure}); '
                f'make that possible, and {advice}'
            )
        super().after_train(runner)

    def save_now(self, runner: Runner) -> str | None:
        """Save the present state, at whatever step, and remove older checkpoints as usual.

        All processes call it, and rank 0 writes. Hooks call it in ``after_train_iter``, with the priority 'LOWEST', as
        all others have to have done their part of the step; or after an epoch.

        Returns:
            The path of the checkpoint; None where it could not be written.
        """
        if self.by_epoch and self._epochs is not None:
            name = self.filename_tmpl.format(self._epochs)
            meta = dict(epoch=self._epochs, iter=runner.iter)
        else:
            steps = runner.iter + (runner.iter == self._begun)  # MMEngine counts a step after its hooks
            name = ('iter_{}.pth' if self.by_epoch else self.filename_tmpl).format(steps)
            meta = dict(epoch=runner.epoch, iter=steps)
        return self.last_ckpt if self._save_state(runner, name, meta) else None

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        self._save_state(runner, self.filename_tmpl.format(step), meta)

    def _save_state(self, runner: Runner, name: str, meta: dict[str, Any]) -> bool:
        """Save a checkpoint to go on from, then remove what is too much; whether it could be written."""
        before = self._standing
        self._standing = [*(other for other in before if other != name), name]
        if self.max_keep_ckpts > 0:
            # With those that are to be removed: where that is interrupted, the resumed training removes them.
            runner.message_hub.update_info('keep_ckpt_ids', self._standing)
        state = dict(save_optimizer=self.save_optimizer, save_param_scheduler=self.save_param_scheduler)
        self._failure = self._write(runner, name, meta, **state, **self.args)
        if self._failure:
            self._standing = before
            return False
        self.last_ckpt = self._path(name)
        self._remove_old(runner)
        if is_main_process():
            for_mmengine = Path(runner.work_dir, 'last_checkpoint')
            try:
                write_atomically(for_mmengine, self.last_ckpt.encode())
            except OSError as error:
                runner.logger.warning(f'{for_mmengine} could not be written ({error.strerror})')
        return True

    def _write(self, runner: Runner, name: str, meta: dict[str, Any], **options: Any) -> str | None:
        """Write a checkpoint; why that failed, or None. Where the files are local, it appears whole or not at all."""
        files = dict(file_client_args=self.file_client_args, backend_args=self.backend_args)
        failure = [None]
        try:
            runner.save_checkpoint(str(self.out_dir), name, meta=meta, by_epoch=self.by_epoch, **files, **options)
        except (OSError, NotFiniteWeights) as error:
            failure = [getattr(error, 'strerror', None) or str(error)]
            sentence = f'{self._path(name)} is not saved ({failure[0]})'
            runner.logger.warning(f'{sentence}: the checkpoints from before stay, and training goes on')
        broadcast_object_list(failure)  # all processes record the same, and try again together
        return failure[0]

    def _remove_old(self, runner: Runner) -> None:
        if self.max_keep_ckpts > 0:
            for name in self._standing[: -self.max_keep_ckpts]:
                self._remove(runner, name)
            self._standing = self._standing[-self.max_keep_ckpts :]

    def _remove(self, runner: Runner, name: str) -> None:
        path = self._path(name)
        if not is_main_process():
            return
        try:
            if self.file_backend.isdir(path):  # DeepSpeed's
                self.file_backend.rmtree(path)
            elif self.file_backend.isfile(path):
                self.file_backend.remove(path)
        except OSError as error:
            runner.logger.warning(f'{path} could not be removed ({error.strerror})')

    def _path(self, name: str) -> str:
        return self.file_backend.join_path(self.out_dir, name)

    def _goes_on_in_place(self, runner: Runner) -> bool:
        """Whether a resumed training writes where the checkpoint is that it goes on from."""
        source = runner._load_from  # None where MMEngine looked for it in the work directory
        return source is None or os.path.realpath(os.path.dirname(source)) == os.path.realpath(self.out_dir)

    def _suffixes(self) -> list[str]:
        """How the names end under which MMEngine records the best of each metric: not at all where there is one."""
        if not self.save_best:
            return []
        return [''] if len(self.key_indicators) == 1 else [f'_{indicator}' for indicator in self.key_indicators]

    def _take_up_best(self, runner: Runner, suffix: str) -> None:
        """Go on with a recorded best checkpoint, unless MMEngine chose it without a figure."""
        recorded = runner.message_hub.runtime_info
        name = Path(recorded.get(f'best_ckpt{suffix}') or '').name  # MMEngine recorded paths
        if not name:
            return
        in_place = self._goes_on_in_place(runner)
        value = recorded.get(f'best_score{suffix}')
        if is_figure(name, value):
            self._set_best(runner, suffix, name if in_place else None)
            return
        recorded.pop(f'best_score{suffix}', None)
        self._set_best(runner, suffix, None)
        if in_place:
            self._remove(runner, name)
            runner.logger.warning(
                f'{self._path(name)} is removed: it was saved as the best checkpoint with a metric of {value}, which '
                'says nothing'
            )

    def _take_up_unrecorded_best(self, runner: Runner, suffix: str) -> None:
        """Take up a best checkpoint of the very step that training goes on from.

        A training that was killed in its evaluation has saved it, and not yet the state that knows of it.
        """
        if not self._goes_on_in_place(runner):
            return
        recorded = runner.message_hub.runtime_info
        before = recorded.get(f'best_ckpt{suffix}')
        latest = self.filename_tmpl.format(runner.epoch if self.by_epoch else runner.iter)
        for path in Path(self.out_dir).glob(f'best_*_{latest}'):
            try:
                own = read_file(path, str(path), mmap=True)['message_hub']['runtime_info']
            except (UserError, KeyError):
                continue
            if own.get(f'best_ckpt{suffix}') == path.name != before:
                runner.message_hub.update_info(f'best_score{suffix}', own[f'best_score{suffix}'])
                self._set_best(runner, suffix, path.name)
                if before:
                    self._remove(runner, before)

    def _set_best(self, runner: Runner, suffix: str, name: str | None) -> None:
        runner.message_hub.update_info(f'best_ckpt{suffix}', name)
        path = name and self._path(name)
        if suffix:
            self.best_ckpt_path_dict[suffix[1:]] = path
        else:
            self.best_ckpt_path = path

    def _warn_of_others(self, runner: Runner) -> None:
        recorded = runner.message_hub.runtime_info
        own = {recorded.get(f'best_ckpt{suffix}') for suffix in self._suffixes()}
        others = [str(path) for path in sorted(Path(self.out_dir).glob('best_*.pth')) if path.name not in own]
        if self.save_best and others:
            runner.logger.warning(
                f'{", ".join(others)}: not of this training, but commands that are given its work directory may take '
                'it for the best checkpoint: move it to another folder'
            )

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        if self.save_best:
            if 'auto' in self.key_indicators:
                self._init_rule(self.rules, [next(iter(metrics))])
            for choice in zip(self.key_indicators, self.rules, self._suffixes(), strict=True):
                self._save_if_best(runner, *choice, metrics)
        self._save_anew(runner)

    def _save_anew(self, runner: Runner) -> None:
        """Save the state of the step again, if it was, with its validation: a resumed training would do that again."""
        name = self.filename_tmpl.format(runner.epoch if self.by_epoch else runner.iter)
        if self._failure or (self.last_ckpt and Path(self.last_ckpt).name == name):
            self._save_state(runner, name, dict(epoch=runner.epoch, iter=runner.iter))

    def _save_if_best(self, runner: Runner, indicator: str, rule: str, suffix: str, metrics: dict[str, Any]) -> None:
        """Save weights as the best by a metric where they are that, then remove those before."""
        recorded = runner.message_hub.runtime_info
        value = metrics.get(indicator)
        if not is_figure(indicator, value):
            reason = (
                f'{indicator} is {value}: there were no objects, or a number was not finite'
                if indicator in metrics
                else f'save_best asks for {indicator}, and it has {", ".join(metrics)}'
            )
            runner.logger.warning(f'This validation chooses no best checkpoint: {reason}')
            return
        before = recorded.get(f'best_score{suffix}', self.init_value_map[rule]), recorded.get(f'best_ckpt{suffix}')
        if not self.is_better_than[indicator](value, before[0]):
            return
        unit, step = ('epoch', runner.epoch) if self.by_epoch else ('iter', runner.iter)
        name = f'best_{indicator}_{self.filename_tmpl.format(step)}'.replace('/', '_')
        runner.message_hub.update_info(f'best_score{suffix}', value)
        self._set_best(runner, suffix, name)
        self._saves_best = True
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        failure = self._write(runner, name, meta, save_optimizer=False, save_param_scheduler=False)
        self._saves_best = False
        if failure:
            runner.message_hub.update_info(f'best_score{suffix}', before[0])
            self._set_best(runner, suffix, before[1])
            return
        if before[1] not in (None, name):
            self._remove(runner, before[1])
        runner.logger.info(f'The best checkpoint with {value:0.4f} {indicator} at {unit} {step} is saved to {name}.')
