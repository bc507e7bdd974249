"""The configs that come with the package: people name them without a path. Nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError, nearest

PACKAGE = Path(__file__).parent.parent


def configs_folder() -> Path:
    """Where the configs are: in the package where it was installed from a wheel, else beside it, in the clone."""
    installed = PACKAGE / '.mim' / 'configs'
    return installed if installed.is_dir() else PACKAGE.parent / 'configs'


def config_names() -> list[str]:
    """The names of the packaged configs, such as ``shapes/mask_rcnn_fasternet_t0_shapes``."""
    folder = configs_folder()
    paths = [path.relative_to(folder) for path in folder.rglob('*.py')]
    return sorted(path.with_suffix('').as_posix() for path in paths if path.parts[0] != '_base_')


def config_path(config: str) -> str:
    """The file of a config: ``config`` itself where it is a file, else the packaged config of that name.

    Args:
        config: a path, or the name of a packaged config, with or without ``.py``.

    Raises:
        UserError: it is neither; the message names the nearest.
    """
    if Path(config).is_file():
        return config
    name = config.removesuffix('.py')
    if name in config_names():
        return str(configs_folder() / f'{name}.py')
    raise UserError(f'config {config} does not exist: {_nearest_config(config)}')


def _nearest_config(config: str) -> str:
    folder = Path(config).parent
    beside = [str(path) for path in folder.glob('*.py')]
    otherwise = f'give a file, or the name of a config that comes with the package, such as {config_names()[0]}'
    return nearest(config, [*beside, *config_names()], otherwise)
