"""Work on many files by all cores, with a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar('Item')
Result = TypeVar('Result')


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], title: str) -> Iterator[Result]:
    """``map`` by a thread for each core: for decoders, which let go of Python's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from tqdm(pool.map(function, items), title, len(items), leave=False, disable=None)
