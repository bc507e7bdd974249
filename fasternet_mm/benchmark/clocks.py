"""What times a call: the host's clock, or events on a GPU's stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

Clock = Callable[[Callable[[], Any]], float]
"""Takes a call, makes it once, and returns its seconds."""


def host_seconds(call: Callable[[], Any]) -> float:
    """By the host's clock, until a GPU that is in use has computed everything. Counts what the host itself does."""
    wait_for_gpu()
    start = time.perf_counter()
    call()
    wait_for_gpu()
    return time.perf_counter() - start


def event_seconds(call: Callable[[], Any]) -> float:
    """Between two events on the GPU's stream, so that the host's way of waiting does not count.

    The GPU is idle at the first event: a call whose kernels are short takes as long as the host needs to launch them.
    """
    wait_for_gpu()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def device_clock(device: str) -> Clock:
    """For tensors that stay on the device, 'cpu' or 'cuda', all the time."""
    return event_seconds if device == 'cuda' else host_seconds


def wait_for_gpu() -> None:
    """Until it has computed everything; at once where none is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
