"""Parameters and multiply-adds of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

PROPOSALS, MASKS = 1000, 100
"""Regions that go through the heads of boxes and of masks, as in MMDetection's ``get_flops``, whatever the image."""


class Complexity(NamedTuple):
    """``parameters`` of the whole model, and ``macs``: multiply-adds of one image's forward pass, each of two FLOPs."""

    parameters: int
    macs: int


def complexity(model: nn.Module, height: int, width: int, proposals: int = PROPOSALS) -> Complexity:
    """Count a backbone, classifier, detector or segmenter. Nothing is computed: it goes to PyTorch's meta device.

    Multiply-adds of convolutions and matrix products count; norms, activations, interpolation, RoIAlign and NMS do not.
    Papers print the same number, in billions (GMACs), under the name of FLOPs, of which it has twice as many. Auxiliary
    heads have parameters but no part in the forward pass.

    Args:
        model: a module that takes ``(N, 3, H, W)``; of MMEngine's models, a detector with one or two stages, or one
            whose mode 'tensor' takes images alone.
        height, width: of the image, in pixels.
        proposals: regions that go through a two-stage detector's box head; `MASKS` go through its mask head.
            Default: 1000, as in MMDetection's ``get_flops``.
    """
    model = model.to('meta').eval()
    image = torch.empty(1, 3, height, width, device='meta')
    if hasattr(model, 'extract_feat') and not hasattr(model, 'decode_head'):
        macs = count_macs(lambda: _detect(model, image, proposals))
    elif isinstance(model, BaseModel):
        macs = count_macs(lambda: model(image, mode='tensor'))
    else:
        macs = count_macs(lambda: model(image))
    return Complexity(sum(p.numel() for p in model.parameters()), macs)


def count_macs(call: Callable[[], Any]) -> int:
    """Multiply-adds of the convolutions and matrix products in a call; PyTorch counts their FLOPs, two of each."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops() // 2


def _detect(model: nn.Module, image: Tensor, proposals: int) -> None:
    """What a detector computes on tensors of known sizes; how many regions it finds is up to the image."""
    maps = model.extract_feat(image)
    if not hasattr(model, 'roi_head'):
        model.bbox_head(maps)
        return
    model.rpn_head(maps)
    heads = model.roi_head
    heads.bbox_head(_regions(heads.bbox_roi_extractor, proposals))
    if heads.with_mask:
        heads.mask_head(_regions(heads.mask_roi_extractor, MASKS))


def _regions(extractor: nn.Module, count: int) -> Tensor:
    return torch.empty(count, extractor.out_channels, *extractor.roi_layers[0].output_size, device='meta')
