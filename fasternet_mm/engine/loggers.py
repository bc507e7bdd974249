"""The experiment trackers that a training can write for, beside its own log: their names and what they need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..extras import require

if TYPE_CHECKING:
    from mmengine.config import Config

LOGGERS = {
    'tensorboard': 'TensorboardVisBackend',
    'wandb': 'WandbVisBackend',
    'mlflow': 'MLflowVisBackend',
    'clearml': 'ClearMLVisBackend',
}
"""The package of each tracker, and the name of the class that writes for it, MMEngine's and ours."""

ENVIRONMENT = {
    'tensorboard': 'the environment',
    'wandb': 'WANDB_API_KEY',
    'mlflow': 'MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN',
    'clearml': 'CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY',
}
"""Where each tracker's package looks for secrets."""

SECRET_KEY = re.compile(r'api_?key|access_?key|secret|passw|token|credential', re.IGNORECASE)
"""Names of settings that are secrets."""

SECRET_IN_URL = re.compile(r'(?<=//)[^/\s@]+@')
"""User and password in an address."""


def add_loggers(cfg: Config, names: Iterable[str]) -> None:
    """Add trackers to what the config's visualizer writes for, those of `LOGGERS` that it does not have yet."""
    for name in names:
        if 'visualizer' not in cfg:
            cfg.visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
        if name not in dict(_loggers(cfg)):
            backends = cfg.visualizer.get('vis_backends') or []
            cfg.visualizer.vis_backends = [*backends, dict(type=f'fasternet_mm.{LOGGERS[name]}')]


def check_loggers(cfg: Config) -> None:
    """Raise `UserError` where the package of a tracker is missing, or a tracker's settings hold a secret.

    A config is written into the work directory, the log and all checkpoints.
    """
    for name, settings in _loggers(cfg):
        require(name, f'--logger {name}')
        for key, value in _settings(settings):
            if value and (SECRET_KEY.search(key) or SECRET_IN_URL.search(str(value))):
                raise UserError(
                    f"{key} of --logger {name} holds a secret, and a config is written into the training's log and "
                    f'checkpoints: leave it out, and put it into the environment: {ENVIRONMENT[name]}'
                )


def leave_out_loggers(cfg: Config) -> None:
    """Remove all trackers, for a run that is no training: each would begin an experiment there."""
    used = [settings for _, settings in _loggers(cfg)]
    if used:
        cfg.visualizer.vis_backends = [part for part in cfg.visualizer.vis_backends if part not in used]


def without_secrets(text: str) -> str:
    """A message without users and passwords in addresses."""
    return SECRET_IN_URL.sub('', text)


def _loggers(cfg: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The trackers of a config, by name, with their settings."""
    for settings in cfg.get('visualizer', {}).get('vis_backends') or ():
        for name, backend in LOGGERS.items():
            if backend in str(settings.get('type')):
                yield name, settings


def _settings(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Settings by their path, such as 'init_kwargs.project'."""
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, part in value.items():
        yield from _settings(part, f'{name}.{key}' if name else str(key))
