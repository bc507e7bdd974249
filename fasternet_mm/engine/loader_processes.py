"""Processes that load images, where memory ends."""

from __future__ import annotations

import re
import signal
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.structures import BaseDataElement

from ..errors import RunError

DEATH = re.compile(r'DataLoader worker .* is killed by signal: ([^.]+)')
"""What PyTorch says of a process that has died, with the signal's name."""

GONE = re.compile(r'DataLoader worker .* exited unexpectedly')
"""The same where PyTorch does not know the signal."""


def move_to_shared_memory(sample: Any) -> None:
    """Move the tensors of a sample to where the training process reads them.

    By itself PyTorch does so in a thread, of whose errors nobody hears: where that memory is full, the training would
    wait forever.
    """
    if isinstance(sample, torch.Tensor):
        sample.share_memory_()
    elif isinstance(sample, (Mapping, BaseDataElement)):
        for value in sample.values():
            move_to_shared_memory(value)
    elif isinstance(sample, (list, tuple)):
        for value in sample:
            move_to_shared_memory(value)


def end_loading(loops: Iterable[Any]) -> None:
    """End the processes that load images for loops of MMEngine, at once.

    Left to Python's garbage collection, the queues by which PyTorch tells them of their end are closed before it does,
    and it waits five seconds for each loader.
    """
    for loop in loops:
        for holder, name in ((loop, 'dataloader_iterator'), (getattr(loop, 'dataloader', None), '_iterator')):
            if hasattr(holder, name):
                setattr(holder, name, None)


@contextmanager
def explaining_dead_loaders(workers: str, batch: str, then: str) -> Iterator[None]:
    """Raise a `RunError` with what to do where a process that loads images dies or finds no memory.

    Not only those who wait for it hear of a death: PyTorch raises the error wherever the main process is.

    Args:
        workers: the setting of their number.
        batch: the setting of the images at a time.
        then: what to do afterwards.
    """
    try:
        yield
    except (RuntimeError, MemoryError, EOFError, ConnectionError) as error:
        explanation = _explanation(error, workers, batch)
        if explanation is None:
            raise
        if hasattr(signal, 'SIGCHLD') and threading.current_thread() is threading.main_thread():
            # PyTorch's handler would raise the error again with each other process that ends, wherever this one is.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise RunError(f'{explanation}, and {then}') from error


def _explanation(error: BaseException, workers: str, batch: str) -> str | None:
    errors = [error]
    while cause := errors[-1].__cause__ or errors[-1].__context__:
        errors.append(cause)
    text = '\n'.join(map(str, errors))
    if 'shared memory' in text or 'Bus error' in text:
        return (
            f'the processes that load images have no shared memory left (/dev/shm): set {workers} 0, or give the '
            'container more (docker run --shm-size 8g)'
        )
    less = f'lower the number of these processes ({workers}) or the batch ({batch})'
    if isinstance(error, MemoryError) or 'MemoryError in DataLoader worker' in text:  # NumPy's becomes another one
        return f'no memory was left, of which processes that load images take a part: {less}'
    death = DEATH.search(text)
    if death and death[1] != 'Killed':
        return f'a process that loads images has died ({death[1]}): set {workers} 0 to see where'
    if death or GONE.search(text) or _is_cut_off(error):
        return f'a process that loads images was killed, probably since the memory was full: {less}'
    return None


def _is_cut_off(error: BaseException) -> bool:
    """Whether it was raised since a process has died that PyTorch still takes for alive."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, (EOFError, ConnectionError)) and torch.utils.data.dataloader.__file__ in files
