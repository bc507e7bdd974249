"""The loss on images that are not trained on, by which overfitting shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from ..registry import HOOKS

NAME = 'validation_loss'
"""Its name among the scalars of an evaluation."""


@HOOKS.register_module()
class ValidationLossHook(Hook):
    """Logs the mean loss of validation images beside the metrics of each evaluation, of the same weights.

    It chooses no checkpoint. What heads draw at random, as samples of anchors, they draw alike each time.

    Args:
        dataloader: config of a loader of validation images, whose annotations are resized as the images are. Each
            process has to get as many batches, since heads share their numbers of objects between processes.
    """

    priority = 'LOW'  # after the hook of averaged weights has put these in place

    def __init__(self, dataloader: dict[str, Any]) -> None:
        self.dataloader = dataloader

    def before_run(self, runner: Runner) -> None:
        # Of what is named a loss, MMEngine logs the mean over the last times, here over all evaluations so far.
        runner.log_processor.custom_cfg.append(dict(data_src=NAME, method_name='current'))

    def before_val_epoch(self, runner: Runner) -> None:
        if isinstance(self.dataloader, dict):
            self.dataloader = runner.build_dataloader(self.dataloader)
        model = getattr(runner.model, 'module', runner.model)
        total = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad(), _fixed_seed(model), _losses_without_variation(model):
            for batch in self.dataloader:
                prepared = model.data_preprocessor(batch, training=True)  # which pads masks with their images
                loss, _ = model.parse_losses(model(**prepared, mode='loss'))
                total += torch.tensor([loss.item() * len(batch['inputs']), len(batch['inputs'])])
        all_reduce(total)
        runner.message_hub.update_scalar(f'val/{NAME}', float(total[0] / total[1]))


@contextmanager
def _fixed_seed(model: nn.Module) -> Iterator[None]:
    """Random numbers that are the same each time, and the training's own afterwards."""
    gpus = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(0)
        yield


@contextmanager
def _losses_without_variation(model: nn.Module) -> Iterator[None]:
    """Losses as in training, but norms as in evaluation, no dropout, and no variation of batches.

    What computes a loss stays in training mode, since some heads, such as FCOS's, give other numbers for a loss than
    for predictions.
    """
    training, preprocessor = model.training, model.data_preprocessor
    augments = getattr(preprocessor, 'batch_augments', None)
    model.eval()
    for module in model.modules():
        module.training = hasattr(module, 'loss')
    preprocessor.batch_augments = None
    try:
        yield
    finally:
        preprocessor.batch_augments = augments
        model.train(training)
