"""The device that computes where nobody names one."""

from __future__ import annotations

import torch


def device_of_choice() -> str:
    """'cuda' where PyTorch can use a GPU through CUDA (or ROCm, which it calls so too), else 'cpu'.

    Apple's MPS is no choice: nothing of this package was tried on it, MMDetection's operators are there only in part,
    and a wrong result is worse than a slow one.
    """
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def unused_gpu() -> str | None:
    """A sentence about a GPU that PyTorch could use and this package does not; None where there is no such GPU."""
    if device_of_choice() == 'cpu' and torch.backends.mps.is_available():
        return "This Mac's GPU (MPS) is not used, since this package was not tested on it: the CPU computes."
    return None


def tell_unused_gpu() -> None:
    """Print the sentence of `unused_gpu`, where there is one."""
    sentence = unused_gpu()
    if sentence:
        print(sentence, flush=True)
