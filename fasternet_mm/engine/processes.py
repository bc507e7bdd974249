"""What the processes of one training have to agree on."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_rank, get_world_size, init_dist
from mmengine.utils.dl_utils import set_multi_processing

from ..devices import device_of_choice
from ..errors import UserError

Result = TypeVar('Result')

PATIENCE = timedelta(days=7)
"""How long the other processes wait for rank 0, which may decode every image first; NCCL would wait ten minutes."""

LAST_SECONDS = 20
"""How long a process may save its training where the launcher is gone."""

STARTERS = dict(pytorch=('torchrun', 'RANK'), slurm=('srun', 'SLURM_PROCID'))
"""By the name of a launcher: the program, and a variable that the processes it starts have in their environment."""

_rank_0: torch.distributed.ProcessGroup | None = None
"""A group of rank 0 alone, for `alone`."""


def start_processes(cfg: Config) -> None:
    """Join the processes that ``cfg.launcher`` started, unless that is done: NCCL on GPUs, gloo on CPUs.

    MMEngine's runner would do it later, and on GPUs alone.

    Raises:
        UserError: the launcher did not start this process.
    """
    launcher = cfg.get('launcher') or 'none'
    if launcher == 'none' or torch.distributed.is_initialized():
        return
    program, variable = STARTERS.get(launcher, ('', ''))
    if program and variable not in os.environ:
        raise UserError(
            f'--launcher {launcher} is for processes that {program} starts, and it did not start this one: leave out '
            '--launcher for one process; docs/gpu-and-cluster.md has the commands for several'
        )
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if device_of_choice() == 'cuda':
        environment = cfg.get('env_cfg', {})
        set_multi_processing(**environment.get('mp_cfg', {}), distributed=True)
        init_dist(launcher, **environment.get('dist_cfg', {}), **_meeting())
    elif launcher == 'pytorch':
        torch.distributed.init_process_group('gloo', **_meeting())
        # While Python still runs: gloo's threads may abort a process that ends below them, when another one has gone.
        atexit.register(_leave_processes)


def _leave_processes() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _meeting() -> dict[str, Any]:
    """Where processes meet that torchrun has started again, as arguments of ``init_process_group``.

    By itself PyTorch (2.14 does) has them read addresses of the processes that are gone.
    """
    start = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    if start == '0':
        return {}
    store, rank, processes = next(torch.distributed.rendezvous('env://'))
    return dict(store=torch.distributed.PrefixStore(f'start {start}', store), rank=rank, world_size=processes)


def _end_with(launcher: int) -> None:
    """Wait until the launcher is gone, then end this process: well, if it can, else hard.

    Nobody else would end it: it would train on, or wait for other processes forever.
    """
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def from_rank_0(function: Callable[[], Result]) -> Result:
    """Call ``function`` in the process of rank 0 alone, and return its result in all processes.

    So all go on from the same data and decisions, whatever is on their own machines.

    Args:
        function: its result is pickled.

    Raises:
        Exception: in rank 0, what ``function`` raises.
        SystemExit: in the others, where it raises: status 2 for a `UserError`, that of a `SystemExit`, else 1. Rank 0
            has the message.
    """
    if get_world_size() == 1:
        return function()
    global _rank_0
    group = torch.distributed.new_group(timeout=PATIENCE, backend='gloo')
    _rank_0 = torch.distributed.new_group([0])  # which all processes have to make together
    answer: list[Any] = [None, 1]
    try:
        if get_rank() == 0:
            answer = [function(), 0]
    except Exception as error:
        answer[1] = 2 if isinstance(error, UserError) else 1
        raise
    except SystemExit as end:  # after a signal
        answer[1] = end.code
        raise
    finally:
        broadcast_object_list(answer, group=group)
    result, status = answer
    if status:
        raise SystemExit(status)
    return result


@contextmanager
def alone() -> Iterator[None]:
    """In a function that `from_rank_0` calls: compute as if this process were the only one.

    Heads share numbers of objects between processes; one that tries a step alone would wait for the others forever.
    """
    if get_world_size() == 1:
        yield
        return
    world = torch.distributed.group.WORLD
    torch.distributed.group.WORLD = _rank_0
    try:
        yield
    finally:
        torch.distributed.group.WORLD = world


def share_of_batch(batch: int, processes: int) -> int:
    """Images per step of each process.

    Raises:
        UserError: they cannot be shared equally.
    """
    if batch % processes:
        raise UserError(
            f'--batch {batch} is for all {processes} processes together, which share it equally: give a multiple of '
            f'{processes}'
        )
    return batch // processes
