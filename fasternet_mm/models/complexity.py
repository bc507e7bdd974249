"""Parameters and multiply-adds of a model."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmengine.model import BaseModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


class Complexity(NamedTuple):
    """``parameters`` of the whole model, and ``macs``: multiply-adds of one picture's forward pass."""

    parameters: int
    macs: int


def complexity(model: nn.Module, height: int, width: int) -> Complexity:
    """Count a backbone or segmenter, without computing anything: the model goes to PyTorch's meta device.

    Convolutions and matrix products count; norms, activations and interpolation do not. Papers call the same number
    FLOPs. Auxiliary heads have parameters but no part in the forward pass.

    Args:
        model: a module that takes ``(N, 3, H, W)``; of MMEngine's models, one whose mode 'tensor' does.
        height, width: of the picture, in pixels.
    """
    model = model.to('meta').eval()
    picture = torch.empty(1, 3, height, width, device='meta')
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(picture, mode='tensor') if isinstance(model, BaseModel) else model(picture)
    return Complexity(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2)
