"""What a run shows on the terminal. Its log file has all of it, and the environment, the config and the hooks."""

from __future__ import annotations

import logging

import torch
from mmengine.dist import get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import IterBasedTrainLoop, Runner

from ..devices import device_of_choice

FOR_THE_FILE = (
    '\n------',  # the environment
    'Config:\n',
    'Hooks will be executed in the following order:',
    'Exp name: ',
    'Checkpoints will be saved to ',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'image shape: height=',
    'The current default scope ',
    'The prefix is not set in metric class ',
    'Using SyncBatchNorm()',
)
"""How messages of MMEngine's and MMCV's begin that are for the log file alone, being long or asking for nothing."""


class TerminalFormatter(logging.Formatter):
    """The time of day and the message; before that the level, where it is not that of ordinary messages."""

    def __init__(self) -> None:
        super().__init__('%(asctime)s %(level)s%(message)s', '%H:%M:%S')

    def format(self, record: logging.LogRecord) -> str:
        record.level = '' if record.levelno == logging.INFO else f'{record.levelname.lower()}: '
        return super().format(record)


def is_for_terminal(record: logging.LogRecord) -> bool:
    """Whether a record is more than a line of `FOR_THE_FILE`, and was not logged with ``extra=dict(for_file=True)``."""
    return not (getattr(record, 'for_file', False) or record.getMessage().startswith(FOR_THE_FILE))


def shorten(logger: MMLogger | None = None) -> None:
    """Have a logger of MMEngine's show on the terminal what people need there; its file still gets everything.

    Args:
        logger: Default: the current one.
    """
    for handler in (logger or MMLogger.get_current_instance()).handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(is_for_terminal)
            handler.setFormatter(TerminalFormatter())


class HeadingHook(Hook):
    """Shows before the first step on what and of what a run is, how long a training, and where the rest is told.

    Args:
        planned: data and schedule are shown already, by a plan. Default: False.
    """

    def __init__(self, planned: bool = False) -> None:
        self.planned = planned

    @master_only
    def before_train(self, runner: Runner) -> None:
        lines = {'device': device(), **({} if self.planned else data_and_schedule(runner))}
        if runner.iter:
            lines['goes on'] = f'after step {runner.iter:,} of {runner.max_iters:,}'
        _show({**lines, 'log': f'{runner.logger.log_file}, which also has the environment, the config and the hooks'})

    @master_only
    def before_test(self, runner: Runner) -> None:
        _show(dict(device=device(), data=counted(len(runner.test_dataloader.dataset), 'image')))


def _show(lines: dict[str, str]) -> None:
    print('\n'.join(f'{name + ":":15}{text}' for name, text in lines.items()), flush=True)


def data_and_schedule(runner: Runner) -> dict[str, str]:
    """How many images a training has, and how many steps, in words."""
    loop, validation = runner.train_loop, runner.val_loop
    unit = 'step' if isinstance(loop, IterBasedTrainLoop) else 'epoch'
    length = counted(runner.max_iters, 'step')
    if unit == 'epoch':
        length = f'{counted(runner.max_epochs, "epoch")} of {counted(len(loop.dataloader), "step")}'
    data = counted(len(loop.dataloader.dataset), 'image')
    schedule = f'{length}, {counted(runner.cfg.train_dataloader.batch_size * get_world_size(), "image")} each'
    if validation is not None:
        data += f' to train on, {len(validation.dataloader.dataset):,} to validate'
        schedule += f'; validated every {unit if loop.val_interval == 1 else counted(loop.val_interval, unit)}'
    return dict(data=data, schedule=schedule)


def counted(number: int, noun: str) -> str:
    """'1 step' or '1,000 steps'."""
    return f'{number:,} {noun}' if number == 1 else f'{number:,} {noun}s'


def device() -> str:
    """What computes: 'CPU, 2 threads' or 'NVIDIA H100', and in how many processes."""
    if device_of_choice() == 'cuda':
        name = torch.cuda.get_device_name()
    else:
        name = f'CPU, {counted(torch.get_num_threads(), "thread")}'
    processes = get_world_size()
    return name if processes == 1 else f'{name}, in each of {processes} processes'
