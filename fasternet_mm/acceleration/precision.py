"""What a device computes in."""

from __future__ import annotations

import torch

from ..devices import gpu_computes_bfloat16
from ..models.backbone import InvalidArgument

SHORT_DTYPES = {'float16': torch.float16, 'bfloat16': torch.bfloat16}
"""Types in which a trained model can be run, by the names that MMEngine has for mixed precision."""


def supported_dtypes(device: str) -> list[torch.dtype]:
    """float32, and what is shorter that a device computes in by itself.

    Args:
        device: its type: 'cuda', 'cpu', or another, of which nothing but float32 is known.
    """
    if device == 'cuda':
        return [torch.float32, torch.float16, *([torch.bfloat16] if gpu_computes_bfloat16() else [])]
    if device != 'cpu':
        return [torch.float32]
    # The operator is private to PyTorch: without it the question has no answer, and float32 is right everywhere.
    has_bfloat16 = getattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: False)
    return [torch.float32, *([torch.bfloat16] if torch.backends.mkldnn.is_available() and has_bfloat16() else [])]


def check_dtype(dtype: torch.dtype | None, device: str) -> None:
    """Raise `InvalidArgument` unless the device computes in ``dtype``; None stands for whatever a model has."""
    supported = supported_dtypes(device)
    if dtype not in (None, *supported):
        others = ''.join(f'{name}, or ' for name, short in SHORT_DTYPES.items() if short in supported)
        name = str(dtype).removeprefix('torch.')
        raise InvalidArgument(f'this {device} does not compute in {name}: use {others}float32, which is the default')


def short_dtype(name: str | None, bf16: bool = False) -> torch.dtype | None:
    """The type of a name.

    Args:
        name: 'float16', 'bfloat16', or None, which stands for float32.
        bf16: the older way to say 'bfloat16'. Default: False.

    Raises:
        InvalidArgument: the name is another, or contradicts ``bf16``.
    """
    if name not in (None, *SHORT_DTYPES):
        raise InvalidArgument(f"dtype={name!r}: use 'float16', 'bfloat16', or None for float32")
    if bf16 and name not in (None, 'bfloat16'):
        raise InvalidArgument(f'dtype={name!r} and bf16=True contradict each other: give dtype alone')
    return torch.bfloat16 if bf16 else SHORT_DTYPES.get(name)
