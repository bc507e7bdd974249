"""In which precision a training computes, as its config says it."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

MIXED = 'AmpOptimWrapper'
"""MMEngine's optimizer wrapper that computes in half precision what is exact enough in it."""


def precision_of(cfg: Config) -> str:
    """'float32', or the half precision that is mixed with it: 'float16' or 'bfloat16'."""
    settings = cfg.optim_wrapper
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
