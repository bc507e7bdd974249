"""The config and the weights of a trained model, from whatever a user names for it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from mmengine.config import Config

from ..errors import UserError
from ..weights.checkpoint_layouts import recognize
from ..weights.hugging_face import is_on_hub, pinned
from ..weights.sources import read_checkpoint
from .config import load_config, merge_options
from .recorded_config import recorded_config
from .runner import build_model
from .work_dir import config_and_checkpoint


def find_trained_model(
    source: str | PathLike | Config, checkpoint: str | PathLike | None = None, cfg_options: Sequence[str] = ()
) -> tuple[Config, str]:
    """The config of a trained model, and its weights as `local_file` takes them.

    Args:
        source: a work directory of a training; or a config, its file or read already, with ``checkpoint``; or alone one
            of `TRAINED_MODELS`, or a checkpoint of a training or a model on the Hugging Face hub, of a model like those
            in ``configs/``.
        checkpoint: the weights. Default: the work directory's own, see `config_and_checkpoint`.
        cfg_options: changes of the config: 'key=value', as with ``--cfg-options``.

    Raises:
        UserError: the config or the checkpoint is missing or cannot be read, or an option changes nothing.
    """
    if isinstance(source, Config):
        cfg = copy.deepcopy(source)
        if checkpoint is None:
            raise UserError('a config alone is not enough: add a checkpoint')
    elif checkpoint is None and (is_on_hub(source) or (Path(source).is_file() and Path(source).suffix != '.py')):
        checkpoint = pinned(str(source))
        cfg = recorded_config(checkpoint)
        _check_own_model(cfg, checkpoint)
    else:
        config, checkpoint = config_and_checkpoint(str(source), None if checkpoint is None else str(checkpoint))
        cfg = load_config(config)
    merge_options(cfg, cfg_options)
    return cfg, pinned(str(checkpoint))


def _check_own_model(cfg: Config, source: str) -> None:
    """Raise `UserError` where a stranger's config is of no model, or of one that needs more memory than its file."""
    stored = sum(value.numel() for value in recognize(read_checkpoint(source, mmap=True), source).tensors.values())
    try:
        with torch.device('meta'):
            model = build_model(cfg)
    except UserError as error:
        raise UserError(f'checkpoint {source}: {error}') from error
    except (RuntimeError, ArithmeticError, LookupError) as error:  # of PyTorch, for sizes that no tensor has
        raise UserError(f'checkpoint {source} describes a model that cannot be built ({error}): get another') from error
    described = sum(value.numel() for value in model.state_dict().values())
    if described > stored:
        raise UserError(
            f'checkpoint {source} describes a model of {described:,} numbers, but holds {stored:,}: give the config '
            'before it'
        )
