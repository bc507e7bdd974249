"""The config and the weights of a trained model, from whatever a user names for it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from mmengine.config import Config

from ..errors import UserError
from .config import load_config, merge_options
from .recorded_config import recorded_config
from .work_dir import config_and_checkpoint


def find_trained_model(
    source: str | PathLike | Config, checkpoint: str | PathLike | None = None, cfg_options: Sequence[str] = ()
) -> tuple[Config, str]:
    """The config of a trained model, and its weights as `local_file` takes them.

    Args:
        source: a work directory of a training; or a config, its file or read already, with ``checkpoint``; or a
            checkpoint of a training alone, of a model like those in ``configs/``.
        checkpoint: the weights. Default: the work directory's own, see `config_and_checkpoint`.
        cfg_options: changes of the config: 'key=value', as with ``--cfg-options``.

    Raises:
        UserError: the config or the checkpoint is missing or cannot be read, or an option changes nothing.
    """
    if isinstance(source, Config):
        cfg = copy.deepcopy(source)
        if checkpoint is None:
            raise UserError('a config alone is not enough: add a checkpoint')
    elif checkpoint is None and Path(source).is_file() and Path(source).suffix != '.py':
        cfg, checkpoint = recorded_config(str(source)), source
    else:
        config, checkpoint = config_and_checkpoint(str(source), None if checkpoint is None else str(checkpoint))
        cfg = load_config(config)
    merge_options(cfg, cfg_options)
    return cfg, str(checkpoint)
