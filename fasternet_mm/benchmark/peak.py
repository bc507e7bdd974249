"""How many FLOP/s the machine reaches at the best: in large matrix products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from .machine import finished

SIDE = dict(cpu=2048, cuda=8192)


class Gemm(NamedTuple):
    """One way to multiply two square matrices: its ``name``, ``flops`` of one product, and what computes one."""

    name: str
    flops: int
    run: Callable[[], Any]


def gemms(precision: str, device: str = 'cpu') -> Iterator[Gemm]:
    """The ways in which PyTorch multiplies matrices; which is the fastest differs between machines.

    On CPUs ``torch.mm`` uses MKL or oneDNN, a 1x1 convolution always oneDNN, and 'packed' is oneDNN with one of the
    matrices reordered beforehand, as compiled networks keep their weights.
    """
    dtype, side = getattr(torch, precision), SIDE[device]
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    flops = 2 * side**3
    yield Gemm('mm', flops, finished(lambda: torch.mm(a, b), device))
    if device == 'cpu' and torch.backends.mkldnn.is_available():
        pixels = a.t().reshape(1, side, side // 64, 64).contiguous(memory_format=torch.channels_last)
        yield Gemm('1x1 convolution', flops, finished(lambda: F.conv2d(pixels, b[:, :, None, None]), device))
        packed = torch.ops.mkldnn._reorder_linear_weight(b, side)
        linear = torch.ops.mkldnn._linear_pointwise
        yield Gemm('packed', flops, finished(lambda: linear(a, packed, None, 'none', [], ''), device))
