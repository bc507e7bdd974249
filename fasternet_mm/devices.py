"""The device that computes where nobody names one."""

from __future__ import annotations

import torch

FIRST_WITH_BFLOAT16 = 8
"""NVIDIA's first generation, by its major compute capability, with bfloat16 in its tensor cores (Ampere)."""


def device_of_choice() -> str:
    """'cuda' where PyTorch can use a GPU through CUDA (or ROCm, which it calls so too), else 'cpu'.

    Apple's MPS is no choice: nothing of this package was tried on it, MMDetection's operators are there only in part,
    and a wrong result is worse than a slow one.
    """
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def gpu_computes_bfloat16() -> bool:
    """Whether the current GPU computes in bfloat16 by itself.

    On older ones PyTorch converts each value to float32 and back, which is slower than float32, and some of its
    releases count that as support.
    """
    by_itself = torch.version.hip or torch.cuda.get_device_capability()[0] >= FIRST_WITH_BFLOAT16
    return bool(by_itself) and torch.cuda.is_bf16_supported()


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16, as Intel's since 2020 and AMD's since Zen 4 have them.

    PyTorch's name for the question is private: a release without it leaves it open, and float32 is right everywhere.
    """
    has_instructions = getattr(torch.cpu, '_is_avx512_bf16_supported', lambda: False)
    return torch.backends.mkldnn.is_available() and bool(has_instructions())


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
