"""Steps of a training whose losses or gradients are NaN or infinite: the weights never take them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.runner import Runner
from torch.optim import Optimizer

from ..errors import RunError, few
from .data_order import seed_step
from .work_dir import latest_checkpoint

MOST_SKIPPED = 0.01
"""The share of steps that may be skipped. More are no accidents: the training has diverged."""

LEAST_SKIPPED = 10
"""As many may be skipped in any case."""


class NotFinite(RunError):
    """The gradients of a step are not finite. `SkippedSteps` says more about it, in the loops that have it."""


def refuse_not_finite(optimizer: Optimizer) -> None:
    """Let an optimizer raise `NotFinite` instead of a step with gradients that are not finite.

    Processes that share gradients raise it together, whichever of them had the loss. A step of float16 whose loss was
    scaled too much is skipped by its scaler, and is no error.
    """
    optimizer.register_step_pre_hook(_check)


def _check(optimizer: Optimizer, *_: Any) -> None:
    if getattr(optimizer, 'found_inf', None) is not None:  # set by the loss scaler, which looks itself
        return
    parameters = (parameter for group in optimizer.param_groups for parameter in group['params'])
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    # Few operators, and one wait for a GPU: a sum of numbers that are not negative is finite where each of them is.
    if gradients and not math.isfinite(torch.stack(torch._foreach_norm(gradients)).sum()):
        raise NotFinite(
            'training stopped: losses or gradients are not finite; lower the learning rate or clip gradients'
        )


class SkippedSteps:
    """What is done instead of a step that is not finite.

    Args:
        runner: of the training; ``on_nan='skip'`` in its config goes on with the next step, at first. Default: 'stop'.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.skips = runner.cfg.get('on_nan', 'stop') == 'skip'
        self.count = 0
        self.begun_at: int | None = None
        self._buffers: list[torch.Tensor] = []

    def before_step(self) -> None:
        """Keep the statistics of norms, which a forward pass spoils, where the training is to go on."""
        if self.begun_at is None:
            self.begun_at = self.runner.iter
        if self.skips:
            self._buffers = [buffer.clone() for buffer in self.runner.model.buffers()]

    def skip(self, batch: Mapping[str, Any]) -> None:
        """Go on without the step.

        Args:
            batch: of the step.

        Raises:
            RunError: the training is to stop, or has skipped too many steps.
        """
        runner = self.runner
        self.count += 1
        steps = runner.iter - self.begun_at + 1
        many = self.count > max(LEAST_SKIPPED, MOST_SKIPPED * steps)
        if not self.skips or many:
            raise RunError(self._sentence(batch, f'{self.count:,} of {steps:,} steps' if self.skips else ''))
        runner.optim_wrapper.zero_grad()
        for buffer, kept in zip(runner.model.buffers(), self._buffers):
            buffer.copy_(kept)
        runner.logger.warning(
            f'Step {runner.iter + 1} is skipped ({self.count} so far): its losses or gradients are not finite; its '
            f'images: {_images(batch)}'
        )

    def _sentence(self, batch: Mapping[str, Any], skipped: str) -> str:
        runner = self.runner
        losses = ', '.join(f'{name} {value:.4g}' for name, value in self._losses(batch).items())
        checkpoint = latest_checkpoint(runner.work_dir)
        back = f'go on from {checkpoint} with --resume' if checkpoint else 'train again'
        others = f' after {skipped} were skipped' if skipped else ''
        skip = '' if skipped else ', or add --on-nan skip where single images do it'
        return (
            f'training stopped at step {runner.iter + 1}{others}, which the weights have not taken: its losses or '
            f'gradients are not finite ({losses}); its images: {_images(batch)}; lower the learning rate '
            f'(--cfg-options optim_wrapper.optimizer.lr=…) or clip gradients (optim_wrapper.clip_grad.max_norm=…), and '
            f'{back}{skip}'
        )

    @torch.no_grad()
    def _losses(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """The losses of a step once more, which nothing has kept: means over the images."""
        runner = self.runner
        seed_step(runner)
        model = getattr(runner.model, 'module', runner.model)
        micro_batches = runner.train_loop.micro_batches
        means: dict[str, float] = {}
        for images, share in micro_batches.split(batch) if micro_batches else [(batch, 1.0)]:
            with runner.optim_wrapper.optim_context(model):
                losses = model._run_forward(model.data_preprocessor(images, True), mode='loss')
            for name, value in model.parse_losses(losses)[1].items():
                means[name] = means.get(name, 0.0) + share * float(value)
        return means


def _images(batch: Mapping[str, Any]) -> str:
    paths = [getattr(sample, 'img_path', None) for sample in batch.get('data_samples') or ()]
    return few([path for path in paths if path]) or 'without names'
