"""Optimizers whose learning rate and weight decay differ from layer to layer."""

from __future__ import annotations

import re
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from ..models.backbone import FasterNet, InvalidArgument
from ..registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class StageDecayConstructor:
    """Weight decay on neither norms nor biases, and a learning rate that falls from the heads to the embedding.

    A backbone of n stages has the learning rate of the heads times ``stage_decay ** (n - i)`` in stage i, counted from
    0 and with the merging before it, and times ``stage_decay ** (n + 1)`` in the embedding: what is nearer to the
    images is more general and should move less, as in ConvNeXt's UPerNets (arXiv 2201.03545). The output norms, which
    no ImageNet checkpoint has, learn as the heads do.

    Args:
        optim_wrapper_cfg: as in MMEngine: ``type``, ``optimizer``, and arguments of the wrapper.
        paramwise_cfg: ``dict(stage_decay=…)``; 1 means the same learning rate everywhere. Default: 1.

    Raises:
        InvalidArgument: ``paramwise_cfg`` has other keys, or the decay is not above 0 and at most 1.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        self.optim_wrapper_cfg = dict(optim_wrapper_cfg)
        paramwise_cfg = dict(paramwise_cfg or {})
        self.stage_decay = paramwise_cfg.pop('stage_decay', 1.0)
        if paramwise_cfg or not 0 < self.stage_decay <= 1:
            raise InvalidArgument(
                f'paramwise_cfg with stage_decay={self.stage_decay} and {sorted(paramwise_cfg)}: it takes stage_decay '
                'alone, above 0 and at most 1'
            )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = getattr(model, 'module', model)
        wrapper = dict(self.optim_wrapper_cfg)
        optimizer = dict(wrapper.pop('optimizer'))
        decays = _decays(model, self.stage_decay)
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                # Norms and biases, and nothing else, have one dimension.
                groups.setdefault((decays.get(name, 1.0), parameter.dim() > 1), []).append(parameter)
        params = [
            dict(params=group, lr=optimizer['lr'] * scale, weight_decay=optimizer['weight_decay'] if decayed else 0.0)
            for (scale, decayed), group in groups.items()
        ]
        wrapper['optimizer'] = OPTIMIZERS.build({**optimizer, 'params': params})
        return OPTIM_WRAPPERS.build({'type': 'OptimWrapper', **wrapper})


def _decays(model: nn.Module, stage_decay: float) -> dict[str, float]:
    """Factor of the learning rate of each parameter in a FasterNet's embedding and stages, by its name."""
    decays = {}
    for prefix, backbone in model.named_modules():
        if isinstance(backbone, FasterNet):
            stages = len(backbone.channels)
            for name, _ in backbone.named_parameters():
                layer = re.match(r'(patch_embed|stages\.(\d+))\.', name)
                if layer:
                    stage = -1 if layer[2] is None else (int(layer[2]) + 1) // 2
                    decays['.'.join(filter(None, (prefix, name)))] = stage_decay ** (stages - stage)
    return decays
