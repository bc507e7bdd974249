"""Which images each step of a training is of, and by which random numbers they vary.

Both follow from the run's seed and from where the step is in the training. So a training that goes on needs nothing of
what was drawn before, neither the images nor the state of any generator, which data loaders' workers could not give.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_dist_info, get_rank
from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, Sampler

from ..errors import UserError
from ..registry import DATA_SAMPLERS, DATASETS
from .bad_samples import WatchedDataset


def seed_generators(*numbers: int) -> None:
    """Start Python's, NumPy's and PyTorch's generators, those of GPUs too, from whole numbers from 0 on.

    Other numbers, or the same in another order, give independent random numbers.
    """
    python, numpy, pytorch = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(python))
    np.random.seed(numpy)
    torch.default_generator.manual_seed(int(pytorch))
    if torch.cuda.is_initialized():  # else torch.manual_seed would take milliseconds to note a seed for later
        torch.cuda.manual_seed_all(int(pytorch))


def base_seed(runner: Runner) -> int:
    """The seed of a run, the same in all its processes."""
    own = get_rank() if runner._randomness_cfg.get('diff_rank_seed') else 0
    return runner.seed - own


def seed_step(runner: Runner) -> None:
    """Start the generators for a run's present step, in each process from numbers of its own."""
    seed_generators(base_seed(runner), runner.iter, get_rank())


class Draw(int):
    """The number of an image in its data set, and in which pass over the data, counted from 0, it is seen."""

    epoch: int

    def __new__(cls, number: int, epoch: int) -> Draw:
        draw = super().__new__(cls, number)
        draw.epoch = epoch
        return draw

    def __reduce__(self) -> tuple[type, tuple[int, int]]:
        return Draw, (int(self), self.epoch)


@DATASETS.register_module()
class SeededDataset(WatchedDataset):
    """A data set whose images vary by the seed, the epoch and their number alone, in whatever process they are read.

    Args:
        dataset: a data set, or its config.
        seed: of the run.
        skip_bad: see `WatchedDataset`. Default: False.
    """

    remedy = 'go on with --resume, or add --on-bad-sample skip'

    def __init__(self, dataset: Any, seed: int, skip_bad: bool = False) -> None:
        super().__init__(dataset, skip_bad)
        self.__dict__.update(seed=seed)

    def read(self, drawn: Draw, number: int) -> Any:
        seed_generators(self.seed, drawn.epoch, number)
        return super().read(drawn, number)


class DrawnSampler(Sampler):
    """A sampler whose numbers say in which pass over the data they are.

    Args:
        sampler: one process's part of the order of all, as MMEngine's samplers give it.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.dataset = sampler.dataset  # where samplers of batches look for the shapes of images
        self.epoch = 0
        self.behind = 0

    def __iter__(self) -> Iterator[Draw]:
        rank, processes = get_dist_info()
        images = len(self.dataset)
        behind, self.behind = self.behind, 0
        for place, number in enumerate(itertools.islice(self.sampler, behind, None), behind):
            yield Draw(number, self.epoch + (place * processes + rank) // images)

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins, counted from 0. MMEngine's ``DistSamplerSeedHook`` does so too."""
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)


@DATA_SAMPLERS.register_module()
class BatchOrder(Sampler):
    """Batches of a training, which may begin in the middle of an epoch. What lies behind is counted, not read.

    Args:
        sampler: of MMEngine or MMDetection.
        batch_size: images per step of this process.
        drop_last: leave out a last batch with fewer. Default: False.
        batch_sampler: config of what groups the sampler's numbers instead, such as ``AspectRatioBatchSampler``.
            Default: they are grouped as they come.

    Raises:
        UserError: there is not a single batch.
    """

    def __init__(
        self, sampler: Any, batch_size: int, drop_last: bool = False, batch_sampler: dict[str, Any] | None = None
    ) -> None:
        self.sampler = DrawnSampler(sampler)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.behind = 0
        if batch_sampler is None:
            self.batches = BatchSampler(self.sampler, batch_size, drop_last)
        else:
            arguments = dict(sampler=self.sampler, batch_size=batch_size, drop_last=drop_last)
            self.batches = MMENGINE_DATA_SAMPLERS.build(batch_sampler, default_args=arguments)
        if not len(self):
            raise UserError(
                f'the training data give {len(sampler)} images to a process, which are no whole batch of {batch_size}, '
                'and drop_last leaves out all others: give a smaller batch, or train_dataloader.drop_last=False'
            )

    def begin(self, epoch: int, behind: int = 0) -> None:
        """Let the next pass over the data be that of an epoch, from its batch ``behind`` on."""
        self.sampler.set_epoch(epoch)
        self.behind = behind

    def begin_at_step(self, step: int) -> int:
        """Let the next pass be the one that a step of the whole training, counted from 0, is in; return its number."""
        if isinstance(self.sampler.sampler, InfiniteSampler):
            epoch, behind = 0, step
        else:
            epoch, behind = divmod(step, len(self))
        self.begin(epoch, behind)
        return epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        behind, self.behind = self.behind, 0
        if type(self.batches) is BatchSampler:
            # As many numbers lie behind each batch as it has: those of 100,000 steps are skipped in a second.
            self.sampler.behind, behind = behind * self.batch_size, 0
        yield from itertools.islice(self.batches, behind, None)

    def __len__(self) -> int:
        return len(self.batches)


def in_known_order(dataloader: Mapping[str, Any], seed: int, skip_bad: bool = False) -> dict[str, Any]:
    """The config of a training's data loader, with a `SeededDataset` and a `BatchOrder`.

    Args:
        dataloader: as the config has it; it is not changed.
        seed: of the run, the same in all processes.
        skip_bad: see `WatchedDataset`. Default: False.
    """
    settings = dict(dataloader)
    order = dict(type='fasternet_mm.BatchOrder', batch_sampler=settings.pop('batch_sampler', None))
    if 'drop_last' in settings:
        order['drop_last'] = settings.pop('drop_last')
    dataset = dict(type='fasternet_mm.SeededDataset', dataset=settings['dataset'], seed=seed, skip_bad=skip_bad)
    sampler = {'seed': seed, **settings['sampler']}
    return {**settings, 'dataset': dataset, 'sampler': sampler, 'batch_sampler': order}
