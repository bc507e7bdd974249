"""Optimizers that step in one operator, and learning rates and weight decays that differ from layer to layer."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn
from torch.optim import Optimizer

from ..errors import UserError
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


IMPLEMENTATIONS = 'fused', 'foreach'
"""Options of PyTorch's optimizers that say how a step is computed, and not what."""


def in_few_operators(settings: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """An ``optim_wrapper`` config whose step takes a few operators for all tensors, where PyTorch has them.

    Tensor by tensor, AdamW calls about ten for each, and a GPU waits for Python. The results are the same.

    Args:
        settings: of the config, which is left as it is; what it says about ``fused`` or ``foreach`` holds.
        model: where training computes.
    """
    settings = copy.deepcopy(dict(settings))
    devices = {parameter.device for parameter in model.parameters()}
    optimizer = settings.get('optimizer')
    if len(devices) != 1 or not isinstance(optimizer, dict):
        return settings
    if not set(IMPLEMENTATIONS) & optimizer.keys() and can_be_fused(optimizer, *devices):
        settings['optimizer'] = {**optimizer, 'fused': True}
    if settings.get('clip_grad'):
        settings['clip_grad'] = {'foreach': True, **settings['clip_grad']}
    return settings


def can_be_fused(optimizer: dict[str, Any], device: torch.device) -> bool:
    """Whether PyTorch has a fused step of this optimizer on this device, found by one step of one number.

    Args:
        optimizer: its config: ``type`` and arguments.
        device: of the parameters.
    """
    parameter = nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.ones_like(parameter)
    try:
        OPTIMIZERS.build({**optimizer, 'params': [parameter], 'fused': True}).step()
    except Exception:  # each optimizer and each PyTorch says it in its own way; a real mistake shows without fused, too
        return False
    return True


def keep_implementation(optimizer: Optimizer) -> None:
    """Let an optimizer load checkpoints that were written on another device, in another memory layout, or not fused.

    Those whose parameters are in other groups are refused with a `UserError`.

    PyTorch would take from the checkpoint how to compute a step as well; and fused steps on the CPU go through
    weights and moments in the order of memory, so that moments in another layout would be other weights' moments.
    """
    optimizer.register_load_state_dict_pre_hook(_with_own_implementation)
    optimizer.register_load_state_dict_post_hook(_lay_out_as_parameters)


def _with_own_implementation(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    before, now = ([len(group['params']) for group in part] for part in (state['param_groups'], optimizer.param_groups))
    if before != now:
        raise UserError(
            f'the checkpoint has the state of an optimizer for {_counts(before)}, and the config makes one for '
            f'{_counts(now)}: keep optim_wrapper.paramwise_cfg and what is frozen as they were, or begin a new '
            'training with --start CHECKPOINT'
        )
    own = {name: optimizer.defaults[name] for name in IMPLEMENTATIONS if name in optimizer.defaults}
    return {**state, 'param_groups': [{**group, **own} for group in state['param_groups']]}


def _counts(groups: list[int]) -> str:
    return f'{sum(groups)} tensors in {len(groups)} group{"s" * (len(groups) > 1)}'


def _lay_out_as_parameters(optimizer: Optimizer) -> None:
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            moment = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if moment and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
