"""Memory of candidates, each in a process of its own: a process knows its memory only as a whole."""

from __future__ import annotations

import ctypes
import gc
import importlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from mmengine.logging import MMLogger
from tqdm import tqdm

from .timing import WARM_UP_CALLS, Candidate

T = TypeVar('T')


def peak_memory(prepare: Callable[[], Callable[[], Any]], packages: Sequence[str] = (), device: str = 'cpu') -> int:
    """Bytes that a process needs to run what it has made ready: weights, activations, working memory.

    In main memory they are those that it occupies (RSS) at its peak, less those of before; what only making ready takes
    does not count. On a GPU they are those that PyTorch has allocated at its peak. Linux only.

    Args:
        prepare: makes it ready, and returns what does it once. It goes to the other process by pickle.
        packages: imported beforehand, so that their code does not count.
        device: 'cpu' or 'cuda'.
    """
    return in_own_process(_measure, prepare, packages, device, torch.get_num_threads())


def in_own_process(function: Callable[..., T], *args: Any) -> T:
    """What ``function(*args)`` returns, in a new process; all goes to it and comes back by pickle."""
    os.environ.setdefault('PYTHONWARNINGS', 'ignore')  # of what it imports this process has been warned already
    processes = multiprocessing.get_context('forkserver')
    processes.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, processes) as pool:
        return pool.submit(function, *args).result()


def add_memory(candidates: Sequence[Candidate], rows: Sequence[dict[str, Any]], device: str = 'cpu') -> None:
    """Put ``memory_bytes`` into each candidate's row: see `peak_memory`; on a CPU under Linux alone."""
    if device == 'cpu' and not Path('/proc/self/clear_refs').exists():
        return
    for candidate, row in tqdm(list(zip(candidates, rows)), 'memory', disable=None):
        row['memory_bytes'] = peak_memory(candidate.prepare, candidate.packages, device)


def _measure(prepare: Callable[[], Callable[[], Any]], packages: Sequence[str], device: str, threads: int) -> int:
    MMLogger.get_current_instance().setLevel('WARNING')
    torch.set_num_threads(threads)
    for package in packages:
        importlib.import_module(package)
    before = _resident_without_leftovers()
    run = prepare()
    for _ in range(WARM_UP_CALLS[device]):  # the second one may record CUDA graphs
        run()
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()
    _resident_without_leftovers()
    begin_new_peak()
    run()
    run()
    return resident('VmHWM') - before


def _resident_without_leftovers() -> int:
    """Give the system back what was freed, which the C library keeps for later, and return what is left."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident('VmRSS')


def resident(key: str) -> int:
    """Bytes of this process in main memory: now, 'VmRSS', or at the peak, 'VmHWM'. Linux only."""
    line = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def begin_new_peak() -> None:
    """Forget the peak so far, for `resident`."""
    Path('/proc/self/clear_refs').write_text('5')
