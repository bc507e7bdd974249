"""Memory of what is timed, each in a process of its own, since a process never tells whose memory it is."""

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

from .timing import Candidate

T = TypeVar('T')


def peak_memory(prepare: Callable[[], Callable[[], Any]], packages: Sequence[str] = (), device: str = 'cpu') -> int:
    """Bytes that a process needs, when it runs, for what it has made ready: weights, activations, working memory.

    Of main memory these are the pages that stand in it (RSS) at their peak, less those of before; making ready may have
    taken more, which does not count. Of a GPU's memory it is what PyTorch allocates at its peak. Linux only.

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
    """Put ``memory`` into each candidate's row: see `peak_memory`; None where there is no Linux to tell."""
    possible = device == 'cuda' or Path('/proc/self/clear_refs').exists()
    for candidate, row in tqdm(list(zip(candidates, rows)), 'memory', disable=None):
        row['memory'] = peak_memory(candidate.prepare, candidate.packages, device) if possible else None


def _measure(prepare: Callable[[], Callable[[], Any]], packages: Sequence[str], device: str, threads: int) -> int:
    MMLogger.get_current_instance().setLevel('WARNING')
    torch.set_num_threads(threads)
    for package in packages:
        importlib.import_module(package)
    before = _resident_without_leftovers()
    run = prepare()
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
