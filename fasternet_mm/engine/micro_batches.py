"""Training steps whose images go through the model in parts, where a GPU's memory does not hold all of them at once.

Gradients of the parts add up, and then the weights change once. All around it is as in one step of the whole batch: the
length of an epoch, schedules, warm-up, learning rate and logs. (MMEngine's ``accumulative_counts`` makes each part a
step of its own, by which all of these are counted.) Two things differ: batch norms see the images of one part, and
losses that are averaged over objects are averaged part by part.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn


class MicroBatches:
    """A step of a training, in parts.

    Args:
        images_at_once: the most images that go through the model together, of each process.
        least_images: the fewest that the model can learn from at once, as 2 where a norm pools to one pixel. After an
            out-of-memory error, halving ends here. Default: 1.
    """

    def __init__(self, images_at_once: int, least_images: int = 1) -> None:
        self.images_at_once = images_at_once
        self.least_images = least_images

    def step(self, model: nn.Module, batch: Mapping[str, Any], wrapper: OptimWrapper) -> dict[str, torch.Tensor]:
        """Change the weights once; in a single process with half the images at once after each out-of-memory error.

        Several processes cannot repeat a step: the others wait in the middle of it.

        Args:
            model: of MMEngine, or distributed.
            batch: of a data loader: lists with an entry for each image, one of them ``inputs``.
            wrapper: without MMEngine's gradient accumulation.

        Returns:
            The losses to log: means over the images.

        Raises:
            torch.cuda.OutOfMemoryError: even ``least_images`` do not fit, or there are several processes.
        """
        count = len(batch['inputs'])
        while True:
            at_once = min(self.images_at_once, count)
            try:
                return self._attempt(model, batch, wrapper)
            except torch.cuda.OutOfMemoryError:
                if at_once <= self.least_images or get_world_size() > 1:
                    raise
            # Only here, after the exception, nothing holds the tensors of the step any more.
            wrapper.zero_grad()
            torch.cuda.empty_cache()
            self.images_at_once = max(self.least_images, at_once // 2)
            print_log(
                f"The GPU's memory did not hold {at_once} images at once. From now on it gets {self.images_at_once} at "
                f'a time, and their gradients are added up: a step is still one of {count} images.',
                logger='current',
                level=logging.WARNING,
            )

    def _attempt(self, model: nn.Module, batch: Mapping[str, Any], wrapper: OptimWrapper) -> dict[str, torch.Tensor]:
        count = len(batch['inputs'])
        if count <= self.images_at_once:
            return model.train_step(batch, optim_wrapper=wrapper)
        logged: dict[str, torch.Tensor] = {}
        parts = self.split(batch)
        for number, (images, share) in enumerate(parts, start=1):
            losses = model.train_step(images, optim_wrapper=PartOfStep(wrapper, share, last=number == len(parts)))
            for name, loss in losses.items():
                logged[name] = logged.get(name, 0) + share * loss.detach()
        wrapper.step()
        wrapper.zero_grad()
        return logged

    def split(self, batch: Mapping[str, Any]) -> list[tuple[dict[str, Any], float]]:
        """The parts of a batch, each with its share of the images."""
        count = len(batch['inputs'])
        return [
            ({key: values[part.start : part.stop] for key, values in batch.items()}, len(part) / count)
            for part in _parts(count, self.images_at_once, self.least_images)
        ]


class PartOfStep(OptimWrapper):
    """What a model is given for an optimizer wrapper in a part of a step: gradients add up, and weights stay.

    Args:
        wrapper: of the whole step.
        share: of the step's images that are in this part, by which its loss counts.
        last: whether processes share their gradients after this part.
    """

    def __init__(self, wrapper: OptimWrapper, share: float, last: bool) -> None:
        super().__init__(wrapper.optimizer)
        self.wrapper = wrapper
        self.share = share
        self.last = last

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        alone = nullcontext() if self.last or not hasattr(model, 'no_sync') else model.no_sync()
        with alone, self.wrapper.optim_context(model):
            yield

    def update_params(self, loss: torch.Tensor, **_: Any) -> None:
        self.wrapper.backward(loss * self.share)


def _parts(count: int, at_once: int, least: int) -> Sequence[range]:
    """The numbers of ``count`` images in parts of about the same length.

    Each has ``at_once`` at most, but for an odd number of images in pairs, where one part would be below ``least``.
    """
    parts = max(1, min(math.ceil(count / at_once), count // least))
    bounds = [count * part // parts for part in range(parts + 1)]
    return [range(start, end) for start, end in pairwise(bounds)]
