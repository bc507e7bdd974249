"""How many CPUs this process may use, which on a shared machine is less than it has."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

THREAD_VARIABLES = {'OMP_NUM_THREADS', 'MKL_NUM_THREADS'}
"""Environment variables by which users say in how many threads PyTorch computes."""


def usable_cpus(root: Path = Path('/')) -> int:
    """CPUs that this process may use: those it is bound to, within the time that a container or a service is granted.

    A grant of one and a half CPUs counts as two, as in ``nproc``. (Of joblib's and loky's ``cpu_count`` neither sees
    the grant of a control group other than the outermost.)

    Args:
        root: where Linux's ``proc`` and ``sys`` are.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return max(1, math.ceil(min([bound, *_granted(root)])))


def cpus_per_process() -> int:
    """This process's share of `usable_cpus`, where torchrun started several on this machine; at least 1."""
    return max(1, usable_cpus() // int(os.environ.get('LOCAL_WORLD_SIZE') or 1))


def processor_name() -> str:
    """The processor's name, as 'AMD EPYC 9B14'; of what kind it is where the system does not tell its name."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), '')
    return name or platform.processor() or platform.machine()


def limit_threads() -> None:
    """Let PyTorch and OpenCV compute in no more threads than this process has CPUs.

    PyTorch's are left alone where the user has said how many. (hotcoco counts the CPUs as `usable_cpus` does.)
    """
    import cv2  # here, since counting CPUs needs neither, and must work where one is broken
    import torch

    cpus = cpus_per_process()
    cv2.setNumThreads(min(cv2.getNumThreads(), cpus))
    if not THREAD_VARIABLES & os.environ.keys():
        torch.set_num_threads(min(torch.get_num_threads(), cpus))


def leave_computing_to_gpu() -> None:
    """Let PyTorch compute in one thread on the CPU, unless the user has said in how many or there is no GPU.

    A training step on a GPU has many small computations on the CPU, for which threads only wait for each other:
    measured, 227 ms a step in place of 281 with 16 threads.
    """
    import torch

    from .devices import device_of_choice

    if device_of_choice() == 'cuda' and not THREAD_VARIABLES & os.environ.keys():
        torch.set_num_threads(1)


def _granted(root: Path) -> Iterator[float]:
    """CPUs' worth of time that Linux grants to each control group around this process, of both generations."""
    groups = root / 'proc/self/cgroup'
    try:
        lines = [line.split(':', 2) for line in groups.read_text(errors='replace').splitlines()]
    except OSError:  # no Linux, or a sandbox that does not let it be read
        return
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and 'cpu' not in controllers.split(','):
            continue
        for mount in ('', 'unified') if not controllers else ('cpu', controllers):
            # In a container the path may be the host's, and the outermost folder is the container's own.
            parts = Path(path).parts[1:]
            for depth in range(len(parts) + 1):
                yield from _grant(root.joinpath('sys/fs/cgroup', mount, *parts[:depth]))


def _grant(group: Path) -> Iterator[float]:
    """Quota over period, in microseconds; there is no quota where it is 'max' or -1."""
    try:
        if (group / 'cpu.max').is_file():
            quota, period = (group / 'cpu.max').read_text().split()
        else:
            quota, period = ((group / f'cpu.cfs_{part}_us').read_text() for part in ('quota', 'period'))
        if quota != 'max' and int(quota) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # not readable, or not as the kernel writes it
        return
