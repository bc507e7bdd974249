"""What a device computes in."""

from __future__ import annotations

import torch

from ..models.backbone import InvalidArgument


def supported_dtypes(device: str) -> list[torch.dtype]:
    """float32, and what is shorter that a device computes in by itself.

    Args:
        device: its type, 'cpu' or 'cuda'.
    """
    if device == 'cuda':
        return [torch.float32, torch.float16, *([torch.bfloat16] if torch.cuda.is_bf16_supported() else [])]
    # The operator is private to PyTorch: without it the question has no answer, and float32 is right everywhere.
    has_bfloat16 = getattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: False)
    return [torch.float32, *([torch.bfloat16] if torch.backends.mkldnn.is_available() and has_bfloat16() else [])]


def check_dtype(dtype: torch.dtype | None, device: str) -> None:
    """Raise `InvalidArgument` unless the device computes in ``dtype``; None stands for whatever a model has."""
    supported = supported_dtypes(device)
    if dtype not in (None, *supported):
        raise InvalidArgument(f'this {device} does not compute in {dtype}: use {", ".join(map(str, supported))}')
