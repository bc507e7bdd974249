"""The paper's study of layers (section 3, table 1): which operator reaches the most FLOP/s?

Conv, GConv, DWConv and PConv of the same width, ten of a kind in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..models import PartialConv
from ..models.multiply_adds import count_macs
from .clocks import device_clock
from .timing import Candidate

DEPTH = 10
"""Layers in a row, as in the paper."""

GROUPS = 16
"""Groups of GConv, as in the paper."""

SHAPES = ((96, 56), (192, 28), (384, 14), (768, 7))
"""(channels, side in pixels) of the maps of a network's four stages at 224x224."""


class PartialConvInPlace(PartialConv):
    """PConv that overwrites its input, which is possible where nobody else needs that. For inference."""

    def forward(self, x: Tensor) -> Tensor:
        convolved = x[:, : self.dim_conv]
        convolved.copy_(self.partial_conv3(convolved))
        return x


def _convolution(channels: int, groups: int = 1) -> nn.Module:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)


BASELINE = 'Conv 3×3'

OPERATORS: dict[str, Callable[[int], nn.Module]] = {
    BASELINE: _convolution,
    f'GConv 3×3, {GROUPS} groups': partial(_convolution, groups=GROUPS),
    'DWConv 3×3': lambda channels: _convolution(channels, groups=channels),
    'PConv 3×3, 1/4': PartialConv,
    'PConv 3×3, 1/4, in place': PartialConvInPlace,
}


def layer_candidates(
    shapes: Sequence[tuple[int, int]] = SHAPES, batch: int = 1, channels_last: bool = False, device: str = 'cpu'
) -> list[Candidate]:
    """Every operator at every shape; each is compared with Conv of the same shape.

    Args:
        shapes: channels and side of the maps, in pixels.
        batch: maps at a time.
        channels_last: the memory layout of the maps. Default: PyTorch's own.
        device: 'cpu' or 'cuda'.

    Raises:
        UserError: the channels cannot be divided among GConv's groups.
    """
    candidates = []
    for channels, side in shapes:
        if channels < 1 or side < 1 or channels % GROUPS:
            raise UserError(f'shape {channels}x{side}: give CHANNELSxSIDE as in 96x56, channels divisible by {GROUPS}')
        for operator in OPERATORS:
            candidate = Candidate(
                name=operator,
                engine=f'{channels}x{side}',
                prepare=partial(_prepare, operator, channels, side, batch, channels_last, device),
                baseline=(BASELINE, f'{channels}x{side}'),
                images=batch,
                macs=count_macs(_prepare(operator, channels, side, batch, channels_last, 'meta')),
                clock=device_clock(device),
                facts=dict(channels=channels, side=side, channels_last=channels_last),
            )
            candidates.append(candidate)
    return candidates


def _prepare(
    operator: str, channels: int, side: int, batch: int, channels_last: bool, device: str
) -> Callable[[], Any]:
    layers = nn.Sequential(*(OPERATORS[operator](channels) for _ in range(DEPTH))).requires_grad_(False)
    for conv in layers.modules():
        if isinstance(conv, nn.Conv2d):
            # Values stay as they are, however often they go round; tiny ones would slow some processors down.
            nn.init.dirac_(conv.weight, conv.groups)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    layers.to(device, memory_format=layout)
    maps = torch.randn(batch, channels, side, side, device=device).contiguous(memory_format=layout)
    return torch.inference_mode()(lambda: layers(maps))
