"""Training state as tensors and plain Python, so that any PyTorch from 2.1 on reads it without running anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner

from ..errors import UserError
from ..registry import HOOKS


def check_training_state(checkpoint: dict[str, Any], name: str) -> None:
    """Raise `UserError` unless training can go on from a checkpoint."""
    meta = checkpoint.get('meta')
    has_counts = isinstance(meta, dict) and all(isinstance(meta.get(key), int) for key in ('epoch', 'iter'))
    if not has_counts or not all(isinstance(checkpoint.get(key), dict) for key in ('optimizer', 'message_hub')):
        raise UserError(
            f'checkpoint {name} holds weights but no training to resume: give one that a training wrote '
            '(epoch_N.pth, iter_N.pth), or start from these weights with --start'
        )


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Saves MMEngine's histories as tensors, where MMEngine would pickle objects, and restores them."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        scalars = checkpoint['message_hub']['log_scalars']
        checkpoint['message_hub'] = _plain({**checkpoint['message_hub'], 'log_scalars': {}})
        checkpoint['message_hub']['log_scalars'] = {name: _pack(history) for name, history in scalars.items()}
        for part in {'meta', 'param_schedulers'} & checkpoint.keys():
            checkpoint[part] = _plain(checkpoint[part])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for name, packed in scalars.items():
            if isinstance(packed, dict):
                scalars[name] = HistoryBuffer(
                    *(packed[key].numpy(force=True) for key in ('values', 'counts')), packed['max_length']
                )


def _pack(history: HistoryBuffer) -> dict[str, Any]:
    values, counts = history.data
    tensors = dict(values=torch.from_numpy(values.copy()), counts=torch.from_numpy(counts.copy()))
    return dict(**tensors, max_length=history.max_length)


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, in containers of containers; a history stays as it is."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return value
