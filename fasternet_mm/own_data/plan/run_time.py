"""How long a training will take on this machine, and how often its log tells of progress."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from mmengine.config import Config

from ...cpus import cpus_per_process
from ...engine.processes import alone
from ...engine.terminal import counted
from .trial_steps import build_dataset, evaluation_seconds, release_memory, train_step_seconds, untouched_chance

LOG_EVERY = 10.0
"""Seconds from one line of the log to the next, about, within an epoch; an epoch of fewer has a line at its end."""

HOUR = 3600


@dataclass(frozen=True)
class RunTime:
    """The time of a training.

    Attributes:
        step: seconds of a step, with its share of reading images.
        steps: that are left.
        evaluation: seconds of an evaluation.
        evaluations: that are left.
    """

    step: float
    steps: int
    evaluation: float
    evaluations: int

    @property
    def seconds(self) -> float:
        return self.step * self.steps + self.evaluation * self.evaluations

    def __str__(self) -> str:
        """'about 12 minutes (0.35 s a step on this machine, measured; 10 evaluations of 7 s)'."""
        plural = 's' if self.evaluations > 1 else ''
        evaluations = f'{self.evaluations} evaluation{plural} of {_in_digits(self.evaluation)} s'
        return f'{_in_words(self.seconds)} ({_in_digits(self.step)} s a step on this machine, measured; {evaluations})'


def measure_run_time(cfg: Config, device: torch.device, processes: int = 1, done: int = 0) -> RunTime:
    """Measure a few steps of a training and of an evaluation, in this process alone; the training is not touched.

    Args:
        cfg: complete, with the classes and files of the data; it is not changed.
        device: where the training computes.
        processes: that train together.
        done: steps that a resumed training has behind it. Default: a new one.
    """
    cfg = copy.deepcopy(cfg)  # constructors of models change their settings
    loop, train, val = cfg.train_cfg, cfg.train_dataloader, cfg.val_dataloader
    with untouched_chance(), alone():
        dataset = build_dataset(train.dataset, cfg.default_scope)
        at_once = min(loop.get('images_at_once', train.batch_size), train.batch_size)
        computing, reading = train_step_seconds(cfg, dataset, device, at_once)
        release_memory()
        step = _together(
            computing * math.ceil(train.batch_size / at_once), reading * train.batch_size, train.num_workers, device
        )
        steps_per_epoch = math.ceil(len(dataset) / (train.batch_size * processes))
        dataset = build_dataset(val.dataset, cfg.default_scope)
        computing, reading = evaluation_seconds(cfg, dataset, device, val.batch_size)
        release_memory()
        batches = math.ceil(len(dataset) / (val.batch_size * processes))
        evaluation = batches * _together(computing, reading * val.batch_size, val.num_workers, device)
    by_epoch = 'max_epochs' in loop
    length = loop.max_epochs if by_epoch else loop.max_iters
    behind = done // steps_per_epoch if by_epoch else done
    evaluations = math.ceil(length / loop.val_interval) - behind // loop.val_interval
    steps = length * steps_per_epoch if by_epoch else length
    return RunTime(step, max(0, steps - done), evaluation, max(0, evaluations))


def _together(computing: float, reading: float, workers: int, device: torch.device) -> float:
    """Seconds of a step whose images are read beside it."""
    if not workers:
        return computing + reading
    if device.type == 'cuda':
        return max(computing, reading / workers)
    return computing + reading / cpus_per_process()  # those who read take CPUs from those who compute


def show_progress(cfg: Config, step: float) -> None:
    """Let the log have its first line soon after the start, and others as often.

    Args:
        cfg: it is changed.
        step: seconds.
    """
    cfg.default_hooks.logger.interval = max(1, int(LOG_EVERY / step))


def _in_digits(time: float) -> str:
    return f'{time:.2g}' if time < 10 else f'{time:.0f}'


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f'about {counted(max(1, round(seconds)), "second")}'
    if seconds < 1.5 * HOUR:
        return f'about {round(seconds / 60)} minutes'
    if seconds < 48 * HOUR:
        return f'about {_in_digits(seconds / HOUR)} hours'
    return f'about {_in_digits(seconds / HOUR / 24)} days'


def advice(seconds: float, device: torch.device, faster: str = '') -> str:
    """What makes a training of more than an hour on a CPU shorter, as a sentence; else nothing.

    Args:
        seconds: of the whole training.
        device: where it computes.
        faster: what to do for a faster model, where there is one, such as 'leave out --accurate'.
    """
    if device.type != 'cpu' or seconds <= HOUR:
        return ''
    ways = filter(None, (faster, 'give a smaller --size', 'give fewer --epochs'))
    return f'that is long: {", ".join(ways)}, or train on a GPU'
