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
    with ThreadPoolExecutor(usable_cpus()) as pool:
        yield from tqdm(pool.map(function, items), title, len(items), leave=False, disable=None)
