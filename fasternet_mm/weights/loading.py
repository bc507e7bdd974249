"""Reading checkpoints: strictly, and without executing anything that they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import nn

from ..errors import UserError

SAFE_TYPES = [
    HistoryBuffer,
    np.dtype,
    np.ndarray,
    np.float64,
    np.int64,
    type(np.dtype(np.float64)),
    type(np.dtype(np.int64)),
    # MMEngine pickles numbers by these two; their module is numpy._core from NumPy 2 on, numpy.core before.
    np.float64(0).__reduce__()[0],
    np.zeros(1).__reduce__()[0],
]
"""What MMEngine's training checkpoints hold besides tensors and plain Python (its message hub's histories)."""


def read_checkpoint(path: str, map_location: Any = 'cpu') -> dict[str, Any]:
    """The content of a checkpoint file, through PyTorch's restricted unpickler.

    The config text in ``meta`` is left out: MMEngine would execute it when training resumes.

    Raises:
        UserError: the file is missing or broken, or holds objects of types that a checkpoint does not need.
    """
    if not Path(path).is_file():
        raise UserError(f'checkpoint {path} does not exist: give the path of a .pth file')
    try:
        with torch.serialization.safe_globals(SAFE_TYPES):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        reason = str(error).split('\n')[0]
        raise UserError(f'checkpoint {path} is broken, or not safe to load: {reason}') from error
    if not isinstance(checkpoint, dict):
        raise UserError(f'checkpoint {path} holds a {type(checkpoint).__name__}: a dict of tensors is needed')
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('cfg', None)
        checkpoint['meta'].pop('config', None)
    return checkpoint


def load_weights(model: nn.Module, path: str) -> None:
    """Load a checkpoint of exactly this model.

    Raises:
        UserError: `read_checkpoint` refuses the file, or names or shapes differ from the model's.
    """
    checkpoint = read_checkpoint(path)
    weights = checkpoint.get('state_dict', checkpoint)
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - weights.keys())
    unknown = sorted(weights.keys() - wanted.keys())
    reshaped = sorted(name for name in wanted.keys() & weights.keys() if wanted[name].shape != weights[name].shape)
    if missing or unknown or reshaped:
        lists = [('missing', missing), ('unknown', unknown), ('of another shape', reshaped)]
        found = '; '.join(f'{len(names)} {what} ({names[0]}, …)' for what, names in lists if names)
        raise UserError(
            f'checkpoint {path} is not of this model: tensors {found}; use the config that it was trained with'
        )
    model.load_state_dict(weights)


def use_safe_loading() -> None:
    """Have MMEngine read local checkpoints by `read_checkpoint`, also where it loads by itself (``--resume``)."""
    CheckpointLoader.register_scheme(prefixes='', loader=_load_for_mmengine, force=True)


def _load_for_mmengine(filename: str, map_location: Any = None) -> dict[str, Any]:
    return read_checkpoint(filename, map_location)
