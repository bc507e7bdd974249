"""From a config to a checked, ready MMEngine runner."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from ..data.checks import check_data
from ..errors import UserError
from ..weights.loading import load_weights, read_checkpoint, use_safe_loading
from .storage import register_atomic_backend


def build_runner(cfg: Config, splits: Sequence[str], checkpoint: str | None = None) -> Runner:
    """Check everything that can be checked, then build the runner for the ``splits`` ('train', 'val', 'test') used.

    Nothing is written before the checks have passed.

    Args:
        cfg: with ``work_dir`` set.
        splits: those that will be used.
        checkpoint: weights of exactly this model, to be loaded. Default: none.

    Raises:
        UserError: data, model, checkpoint or work directory cannot be used.
    """
    use_safe_loading()
    check_data(cfg, splits)
    model = build_model(cfg)
    if checkpoint:
        load_weights(model, checkpoint)
    if cfg.get('resume'):
        read_checkpoint(cfg.load_from)
    check_writable(cfg.work_dir)
    register_atomic_backend()
    checkpoint_hook = cfg.get('default_hooks', {}).get('checkpoint')
    if checkpoint_hook:
        checkpoint_hook.setdefault('backend_args', dict(backend='atomic'))
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='fasternet_mm.PlainCheckpointHook')]
    if not torch.cuda.is_available():
        # MMEngine sets up processes and DistributedDataParallel on CUDA devices, unless it finds this done.
        wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
        cfg.setdefault('model_wrapper_cfg', wrapper)
        if cfg.get('launcher') == 'pytorch' and not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
    runner = Runner.from_cfg(cfg)
    if checkpoint:
        getattr(runner.model, 'module', runner.model).load_state_dict(model.state_dict())
    return runner


def build_model(cfg: Config) -> nn.Module:
    """The model of a config, with initial weights not yet set.

    Raises:
        UserError: the config's ``model`` cannot be built.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    try:
        return MODELS.build(cfg.model)
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        message = error.args[0] if error.args else type(error).__name__
        raise UserError(f"the config's model cannot be built: {message}") from error


def check_writable(folder: str) -> None:
    """Raise `UserError` unless files can be made in ``folder``, which is made when it is missing."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f'{folder} cannot be written ({error.strerror}): name another folder') from error


def latest_checkpoint(work_dir: str) -> str | None:
    """The newest training checkpoint in ``work_dir``. Since they are written atomically, each one is whole."""
    found = [*Path(work_dir).glob('epoch_*.pth'), *Path(work_dir).glob('iter_*.pth')]
    return str(max(found, key=lambda path: path.stat().st_mtime)) if found else None
