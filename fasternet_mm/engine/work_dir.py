"""What a training left behind: its config and its weights, found by the name of its work directory."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..files import CHECKPOINT
from .config import CONFIG
from .packaged_configs import config_path
from .runner import latest_checkpoint


def checkpoint_of_training(work_dir: str) -> Path | None:
    """A file that shows that ``work_dir`` holds a training; None where it holds none."""
    return next((file for file in sorted(Path(work_dir).glob('*')) if CHECKPOINT.fullmatch(file.name)), None)


def refuse_earlier_training(work_dir: str) -> None:
    """Raise `UserError` where ``work_dir`` holds a training, whose config and annotations another would replace."""
    checkpoint = checkpoint_of_training(work_dir)
    if checkpoint:
        raise UserError(
            f'{work_dir} holds {checkpoint.name} of an earlier training: go on with --resume, or from a certain one '
            'with --resume CHECKPOINT, or name another --work-dir'
        )


def config_and_checkpoint(source: str, checkpoint: str | None = None) -> tuple[str, str]:
    """The config file and the checkpoint that a user means.

    Args:
        source: a config file, the name of a packaged config, or a work directory: its ``config.py``, else the newest
            config at its top.
        checkpoint: the weights. Default: the work directory's own: its ``best_*.pth`` where there is exactly one, else
            its newest ``epoch_*.pth`` or ``iter_*.pth``.

    Raises:
        UserError: the work directory lacks one of them, or the config came alone or does not exist.
    """
    if Path(source).is_dir():
        return _config_of(Path(source)), checkpoint or trained_checkpoint(Path(source))
    config = config_path(source)
    if checkpoint is None:
        raise UserError(f'{source} alone is not enough: add a checkpoint to a config, or give a work directory')
    return config, checkpoint


def _config_of(work_dir: Path) -> str:
    config = work_dir / CONFIG
    if config.is_file():
        return str(config)
    configs = list(work_dir.glob('*.py'))
    if not configs:
        raise UserError(f'{work_dir} has no config (*.py): give the work directory of a training, or CONFIG CHECKPOINT')
    return str(max(configs, key=lambda path: path.stat().st_mtime))


def trained_checkpoint(work_dir: Path) -> str:
    """The checkpoint that a work directory stands for: its ``best_*.pth`` where there is exactly one, else its newest.

    Raises:
        UserError: it has none.
    """
    best = list(work_dir.glob('best_*.pth'))
    checkpoint = str(best[0]) if len(best) == 1 else latest_checkpoint(str(work_dir))
    if checkpoint is None:
        raise UserError(f'{work_dir} has no checkpoint (best_*.pth, epoch_*.pth, iter_*.pth): train first, or name one')
    return checkpoint
