"""How many FLOP/s the machine reaches at the best: in large matrix products (GEMM)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..acceleration.packing import PackedLinear

SIDE = dict(cpu=2048, cuda=8192)
"""Rows and columns of the square matrices, by device: enough to keep it busy, and few enough for a short turn."""


def gemm_flops(device: str) -> int:
    """FLOPs of one product: two, a multiplication and an addition, for each of its multiply-adds."""
    return 2 * SIDE[device] ** 3


def gemms(precision: str, device: str) -> dict[str, Callable[[], Any]]:
    """The ways in which PyTorch multiplies matrices, by name; which is the fastest differs between machines.

    On CPUs ``torch.mm`` uses MKL or oneDNN, a 1x1 convolution always oneDNN, and 'packed' is oneDNN with one of the
    matrices reordered beforehand, as compiled networks keep their weights.
    """
    dtype, side = getattr(torch, precision), SIDE[device]
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    ways = {'mm': lambda: torch.mm(a, b)}
    if device == 'cpu' and torch.backends.mkldnn.is_available():
        pixels = a.t().reshape(1, side, side // 64, 64).contiguous(memory_format=torch.channels_last)
        linear = PackedLinear(nn.Linear(side, side, bias=False, dtype=dtype).requires_grad_(False))
        ways['1x1 convolution'] = lambda: F.conv2d(pixels, b[:, :, None, None])
        ways['packed'] = lambda: linear(a)
    return {name: torch.inference_mode()(way) for name, way in ways.items()}
