"""Work on many files with all CPUs that this process may use, under a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from .cpus import usable_cpus

Item = TypeVar('Item')
Result = TypeVar('Result')


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], title: str) -> Iterator[Result]:
    """``map`` with a thread for each CPU: for decoders, which release Python's lock."""
    pool = ThreadPoolExecutor(usable_cpus())
    closed_early = False
    try:
        yield from tqdm(pool.map(function, items), title, len(items), leave=False, disable=None)
    except GeneratorExit:
        closed_early = True
        raise
    finally:
        # An iterator that nobody finished may be closed by the garbage collector, in the middle of starting a thread
        # of another pool, where waiting for threads never ends.
        pool.shutdown(wait=not closed_early, cancel_futures=True)
