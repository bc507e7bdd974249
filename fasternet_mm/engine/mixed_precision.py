"""In which precision a training computes, as its config says it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import nn

from ..registry import OPTIM_WRAPPERS

MIXED = 'AmpOptimWrapper'
"""MMEngine's optimizer wrapper that computes in half precision what is exact enough in it, and the end of ours."""

ON_CPU = 'fasternet_mm.CpuAmpOptimWrapper'
"""The optimizer wrapper for CPUs, where MMEngine's refuses to work."""


def precision_of(cfg: Config) -> str:
    """'float32', or the half precision that is mixed with it: 'float16' or 'bfloat16'."""
    settings = cfg.optim_wrapper
    if ON_CPU in str(settings.get('type')):
        return 'bfloat16'
    return str(settings.get('dtype') or 'float16') if is_mixed(cfg) else 'float32'


def is_mixed(cfg: Config) -> bool:
    """Whether a config trains in mixed precision."""
    return MIXED in str(cfg.get('optim_wrapper', {}).get('type'))


def mix_precision(cfg: Config, half: str) -> None:
    """Let a config train in mixed precision.

    Args:
        cfg: it is changed.
        half: 'bfloat16', or 'float16', whose smallest numbers are so large that the loss has to be scaled up.
    """
    scale = 'dynamic' if half == 'float16' else dict(enabled=False)
    cfg.optim_wrapper.update(type=MIXED, dtype=half, loss_scale=scale)


def mix_precision_on_cpu(cfg: Config) -> None:
    """Let a config train in bfloat16 mixed with float32 on a CPU."""
    compute_in_float32(cfg)
    cfg.optim_wrapper.type = ON_CPU


def compute_in_float32(cfg: Config) -> None:
    """Take mixed precision out of a config."""
    if is_mixed(cfg):
        cfg.optim_wrapper.type = 'OptimWrapper'
        for setting in ('dtype', 'loss_scale', 'use_fsdp'):
            cfg.optim_wrapper.pop(setting, None)


def forget_unused_scaler(checkpoint: dict[str, Any]) -> None:
    """Take the empty state of bfloat16's loss scaler out of a checkpoint, which float16's would refuse."""
    optimizer = checkpoint.get('optimizer')
    if isinstance(optimizer, dict) and optimizer.get('loss_scaler') == {}:
        del optimizer['loss_scaler']


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Computes the forward pass in bfloat16 where that is exact enough, on a CPU.

    bfloat16 has float32's range, so that no loss is scaled.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
