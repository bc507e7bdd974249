"""Trainings that a signal ends: with a checkpoint, and at the same step in all processes."""

from __future__ import annotations

import signal
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from ..registry import HOOKS
from ..signals import exit_status
from .checkpoint_hook import CheckpointHook
from .processes import PATIENCE


@HOOKS.register_module()
class StopSignalsHook(Hook):
    """After SIGTERM, SIGINT, SIGUSR1 or SIGHUP, saves a checkpoint when the running step is done, and ends the process.

    The exit status is 128 and the signal's number. Before the first step there is nothing to save, and `EndingSignals`
    ends the process at once.

    One process also ends within a validation, after the batch, with the state of training from before; a resumed
    training validates again. Several finish their validation first, in which they may have unequal numbers of batches.

    Several processes end after the same step whichever of them got the signal. Each step sends its signal to all
    others without waiting, and the next step reads what came: by then it has long arrived, as processes share their
    gradients in between, so it costs no time, and a training ends one step later than that of one process.
    """

    priority = 'LOWEST'  # after all others have done their part of a step

    def __init__(self) -> None:
        self._shared: _SharedNumber | None = None

    def before_train(self, runner: Runner) -> None:
        if get_world_size() > 1:
            self._shared = _SharedNumber()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        runner.ending_signals.hold()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        received = runner.ending_signals.received
        self._end_by(runner, self._shared.exchange(received) if self._shared else received)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        received = runner.ending_signals.received
        if received and not self._shared:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # puts the weights back in place of their averages
                    hook.after_val_epoch(runner)
            self._end_by(runner, received)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        received = runner.ending_signals.received
        if self._shared:
            earlier = self._shared.exchange(received)
            received = max(earlier, self._shared.exchange(received))
        self._end_by(runner, received)

    def after_train(self, runner: Runner) -> None:
        if self._shared:
            self._shared.finish()

    def _end_by(self, runner: Runner, number: int) -> None:
        if not number:
            return
        saved = [hook.save_now(runner) for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        name = signal.Signals(number).name
        if any(saved):
            runner.logger.info(f'{name}: the training is saved to {saved[0]}: go on with the same command and --resume')
        elif not saved:
            runner.logger.warning(f'{name}: the training ends unsaved, since its config has no checkpoint hook')
        runner.call_hook('after_train')  # which raises an error where the checkpoint could not be written
        raise SystemExit(exit_status(number))


class _SharedNumber:
    """The largest of a number of each process, which all get at the next exchange."""

    def __init__(self) -> None:
        # Of the CPU, so that no GPU is waited for.
        self._group = torch.distributed.new_group(backend='gloo', timeout=PATIENCE)
        self._sent: tuple[torch.Tensor, torch.distributed.Work] | None = None

    def exchange(self, number: int) -> int:
        """Send a number to all processes; the largest of those that were sent at the last exchange."""
        earlier = self.finish()
        sent = torch.tensor(number)
        work = torch.distributed.all_reduce(sent, torch.distributed.ReduceOp.MAX, self._group, async_op=True)
        self._sent = sent, work
        return earlier

    def finish(self) -> int:
        """The largest of the numbers that were sent last; 0 where none are on their way."""
        if self._sent is None:
            return 0
        number, work = self._sent
        work.wait()
        self._sent = None
        return int(number)
