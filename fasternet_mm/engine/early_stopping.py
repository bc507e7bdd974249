"""An end of training where evaluations do not get better any more."""

from __future__ import annotations

from mmengine.hooks import EarlyStoppingHook as MMEngineEarlyStoppingHook
from mmengine.runner import Runner

from ..registry import HOOKS
from .checkpoint_hook import is_figure

EARLY_STOPPING = 'early_stopping'
"""The name under which the message hub has the best figure, and the number of evaluations since."""


@HOOKS.register_module()
class EarlyStoppingHook(MMEngineEarlyStoppingHook):
    """MMEngine's hook, with the same arguments, for which only figures count, and which goes on in a resumed training.

    In MMEngine's an AP without objects, -1, is an evaluation without progress and NaN ends the training at once; and
    after a resumption it begins to count anew.
    """

    priority = 'LOW'  # before the checkpoint hook, which saves the count

    def before_run(self, runner: Runner) -> None:
        """Do nothing: MMEngine's would have a test build the loop of training, and so read the training images."""

    def before_train(self, runner: Runner) -> None:
        """Go on with the count of a resumed training, which ends at once where it had ended."""
        begun = self.best_score, self.wait_count
        self.best_score, self.wait_count = runner.message_hub.runtime_info.get(EARLY_STOPPING, begun)
        if self.wait_count >= self.patience:
            self._end(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        figure = (metrics or {}).get(self.monitor)
        nothing_yet = figure == 0 and self.best_score <= 0  # the first evaluations from random weights
        if not is_figure(self.monitor, figure) or nothing_yet:
            return
        stop, reason = self._check_stop_condition(figure)
        runner.message_hub.update_info(EARLY_STOPPING, (float(self.best_score), self.wait_count))
        if stop:
            self._end(runner, reason)

    def _end(self, runner: Runner, reason: str = '') -> None:
        runner.train_loop.stop_training = True
        if self.wait_count >= self.patience:
            last = f'{self.wait_count} evaluations' if self.wait_count > 1 else 'evaluation'
            reason = (
                f'{self.monitor} was not better than {self.best_score:.3f} in the last {last}, and the patience is for '
                f'{self.patience}.'
            )
        runner.logger.info(f'The training ends here: {reason}')
