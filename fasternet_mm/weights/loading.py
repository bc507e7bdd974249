"""Reading checkpoints: strictly, and without executing anything that they hold."""

from __future__ import annotations

import pickle
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from packaging.version import Version
from torch import nn

from ..errors import UserError


def _history_statistic(owner: type, name: str) -> Any:
    """Stands in for ``getattr``, by which MMEngine pickles the names of a history's own four statistics."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL getattr.{name}')
    return getattr(owner, name)


SAFE_TYPES = [
    HistoryBuffer,
    (_history_statistic, 'builtins.getattr'),
    np.dtype,
    np.ndarray,
    type(np.dtype(np.float64)),
    type(np.dtype(np.int64)),
    # NumPy pickles numbers and arrays by these two; their module is numpy._core from NumPy 2 on, numpy.core before.
    np.float64(0).__reduce__()[0],
    np.zeros(1).__reduce__()[0],
]
"""What MMEngine's training checkpoints hold besides tensors and plain Python: the histories of its message hub."""


def _safe_types() -> AbstractContextManager:
    """`SAFE_TYPES` where PyTorch takes stand-ins by name, from 2.6 on; our own checkpoints need none of them."""
    if Version(torch.__version__) < Version('2.6'):
        return nullcontext()
    return torch.serialization.safe_globals(SAFE_TYPES)


def read_checkpoint(path: str, map_location: Any = 'cpu') -> dict[str, Any]:
    """The content of a checkpoint file, through PyTorch's restricted unpickler.

    The config text in ``meta`` is left out: MMEngine would execute it when training resumes.

    Raises:
        UserError: the file is missing or broken, or holds objects of types that a checkpoint does not need.
    """
    if not Path(path).is_file():
        raise UserError(f'checkpoint {path} does not exist: give the path of a .pth file')
    try:
        with _safe_types():
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        asked = re.search(r'Unsupported (?:global: GLOBAL|class) (\S+)', str(error))
        if asked:
            raise UserError(
                f'checkpoint {path} is refused: it asks to run {asked[1]}, which is not safe; get it as plain tensors '
                '(the training history in MMEngine checkpoints of others needs PyTorch 2.6 or newer)'
            ) from error
        raise UserError(f'checkpoint {path} is broken, or not a PyTorch checkpoint: fetch or train it again') from error
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
