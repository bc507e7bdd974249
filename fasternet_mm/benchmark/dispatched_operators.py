"""The number of operators that a call dispatches: what a GPU waits for when its kernels are short."""

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class OperatorCounter(TorchDispatchMode):
    """Counts the operators dispatched while it is entered, those of the backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def dispatched_operators(call: Callable[[], object]) -> int:
    """Call once and return the number of operators that PyTorch dispatched, views included."""
    with OperatorCounter() as counter:
        call()
    return counter.count
