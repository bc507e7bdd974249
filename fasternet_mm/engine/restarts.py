"""Trainings that torchrun or Slurm starts again, by the same command, after their processes have died."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from ..files import write_atomically
from .work_dir import latest_checkpoint

LAUNCH = '.fasternet_mm_launch'
"""The name of a file in a work directory that says which launch trains in it."""


def restarted_in(work_dir: str) -> bool:
    """Whether this is the same launch, started again, that left a checkpoint in ``work_dir``.

    One that was refused there at its first start, since another training is in the folder, does not go on with that.
    """
    counts = (os.environ.get(name, '') for name in ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT'))
    if not any(count.isdecimal() and int(count) for count in counts):
        return False
    try:
        same = Path(work_dir, LAUNCH).read_text() == _launch()
    except OSError:
        return False
    return same and latest_checkpoint(work_dir) is not None


def remember_launch(work_dir: str) -> None:
    """Write down that this launch trains in ``work_dir``, for `restarted_in`; alone where something may restart it."""
    if _launch():
        write_atomically(Path(work_dir, LAUNCH), _launch().encode())


def _launch() -> str:
    if 'SLURM_JOB_ID' in os.environ:
        return f'job {os.environ["SLURM_JOB_ID"]}'
    if 'TORCHELASTIC_RESTART_COUNT' in os.environ:
        return f'{socket.gethostname()} {os.getppid()}'
    return ''
