"""Reading a config and the options that a command line adds to it, strictly."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmengine.registry.root
from mmengine.config import Config, DictAction
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..errors import UserError, nearest
from ..extras import mmseg_by_module_name
from ..files import write_atomically
from ..weights.loading import fit_weights
from ..weights.pretrained import strict_loading
from .packaged_configs import config_path

OPTIMIZER_OPTIONS = {'constructor', 'paramwise_cfg'}
"""Keys of ``optim_wrapper`` that are not arguments of its class: MMEngine reads them itself."""

CONFIG = 'config.py'
"""The complete config in a work directory: training, tests and predictions need nothing else."""


class LiteralConfig(Config):
    """A config whose text gives the same values when it is read again, whatever its strings hold.

    MMEngine replaces ``{{$HOME:}}``, ``{{ fileDirname }}`` and ``{{_base_.key}}`` in the text of a config file, in
    strings too, before it is parsed. Names of classes and of files are not ours: in the text of this config, which all
    of MMEngine's own copies have as well (work directory, log, checkpoints), no string has two opening braces.
    """

    @property
    def pretty_text(self) -> str:
        """The config as Python."""
        # Outside of strings, the text of a config never has two of them in a row.
        return super().pretty_text.replace('{{', r'{\x7b')


def write_config(cfg: Config) -> Path:
    """Write the complete config into its work directory, as `CONFIG`."""
    path = Path(cfg.work_dir, CONFIG)
    write_atomically(path, cfg.pretty_text.encode())
    return path


@mmseg_by_module_name()
def load_config(path: str, options: Sequence[str] = ()) -> LiteralConfig:
    """A config with ``options`` ('key=value', as MMDetection's ``--cfg-options``) merged in.

    Args:
        path: a file, or the name of a packaged config.
        options: changes.

    Raises:
        UserError: the file is missing or broken, or an option names a key that nothing would read.
    """
    file = config_path(path)
    try:
        read = Config.fromfile(file)
    except Exception as error:
        raise UserError(f'config {path} cannot be read: {type(error).__name__}: {error}') from error
    cfg = LiteralConfig()
    cfg.__setstate__(read.__getstate__())
    cfg.setdefault('load_options', {})
    merge_options(cfg, options)
    return cfg


@strict_loading()  # ``init_cfg`` takes what it takes in the run
def merge_options(cfg: Config, options: Sequence[str]) -> None:
    """Change settings of ``cfg``: 'key=value', as MMDetection's ``--cfg-options``.

    Raises:
        UserError: an option names a key that nothing would read.
    """
    for key, value in _parse(options).items():
        _check_key(cfg, key)
        cfg.merge_from_dict({key: value})


def _parse(options: Sequence[str]) -> dict[str, Any]:
    for option in options:
        if '=' not in option:
            raise UserError(f'--cfg-options {option!r}: write key=value, as in model.backbone.arch=t1')
    parser = argparse.ArgumentParser()
    parser.add_argument('--options', nargs='*', action=DictAction)
    return parser.parse_args(['--options', *options]).options or {}


def _check_key(cfg: Config, key: str) -> None:
    """Walk down ``key``: each step is in the config, or an argument of the object that is built there."""
    node: Any = cfg
    path = key.split('.')
    for depth, part in enumerate(path):
        if isinstance(node, (list, tuple)):
            if not (part.isdigit() and int(part) < len(node)):
                where = '.'.join(path[:depth])
                raise UserError(f'--cfg-options {key}: {where} is a list, use a number from 0 to {len(node) - 1}')
            node = node[int(part)]
            continue
        known = node if hasattr(node, 'keys') else {}
        if part in known:
            node = node[part]
            continue
        accepted = _accepted_arguments(node, path[:depth], cfg)
        if part in accepted:
            return
        where = '.'.join(path[:depth]) or 'the config'
        choices = sorted({*known, *accepted} - {'type', '_scope_'})
        hint = nearest(part, choices, f'it has {", ".join(choices) or "no keys"}')
        raise UserError(f'--cfg-options {key}: {where} has no {part!r}; {hint}')


def _accepted_arguments(node: Any, path: Sequence[str], cfg: Config) -> set[str]:
    if not path:
        return constructor_arguments(Runner)
    if list(path) == ['load_options']:
        return set(inspect.signature(fit_weights).parameters) - {'model', 'checkpoint', 'source'}
    if not hasattr(node, 'get'):
        return set()
    accepted = OPTIMIZER_OPTIONS if path[-1] == 'optim_wrapper' else set()
    if path[-1].endswith('_dataloader'):
        return accepted | constructor_arguments(DataLoader)
    kind = node.get('type')
    built = kind if isinstance(kind, type) else _find_class(kind, cfg.get('default_scope'))
    return accepted | (constructor_arguments(built) if built else set())


def _find_class(kind: str | None, scope: str | None) -> type | None:
    if kind is None:
        return None
    name = kind if '.' in kind or scope is None else f'{scope}.{kind}'
    for registry in vars(mmengine.registry.root).values():
        built = registry.get(name) if isinstance(registry, Registry) else None
        if inspect.isclass(built):
            return built
    return None


def constructor_arguments(cls: type) -> set[str]:
    """Names that the constructor takes; where it hands ``**kwargs`` on, its base class's too."""
    names: set[str] = set()
    for base in cls.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - {'self'}


def default_work_dir(config: str, data: str | None = None) -> str:
    """MMDetection's convention: ``work_dirs/`` and the config's name; with the user's own data also that folder's."""
    name = Path(config).stem
    return str(Path('work_dirs') / (f'{name}_{Path(data).resolve().name}' if data else name))
