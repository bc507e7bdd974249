"""What a training left behind: its config and its weights, found by the name of its work directory."""

from __future__ import annotations

import logging
from pathlib import Path

from mmengine.logging import print_log

from ..errors import UserError, few
from ..files import CHECKPOINT
from ..weights.catalog import TRAINED_MODELS
from ..weights.hugging_face import is_on_hub, pinned
from ..weights.reading import check_file, read_meta
from .config import CONFIG
from .packaged_configs import config_path


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
            config at its top; or one of `TRAINED_MODELS` alone.
        checkpoint: the weights. Default: the work directory's own, see `trained_checkpoint`.

    Raises:
        UserError: the work directory lacks one of them, or the config came alone or does not exist.
    """
    if Path(source).is_dir():
        return _config_of(Path(source)), pinned(checkpoint) if checkpoint else trained_checkpoint(Path(source))
    if is_on_hub(source):
        raise UserError(
            f'{source} brings no data to test on: name what does before it, a config or a work directory, as in '
            f'fasternet-mm test CONFIG {source}'
        )
    if checkpoint is None and source in TRAINED_MODELS:
        return config_path(TRAINED_MODELS[source]), source
    config = config_path(source)
    if checkpoint is None:
        raise UserError(f'{source} alone is not enough: add a checkpoint to a config, or give a work directory')
    return config, pinned(checkpoint)


def _config_of(work_dir: Path) -> str:
    config = work_dir / CONFIG
    if config.is_file():
        return str(config)
    configs = list(work_dir.glob('*.py'))
    if not configs:
        raise UserError(f'{work_dir} has no config (*.py): give the work directory of a training, or CONFIG CHECKPOINT')
    return str(max(configs, key=lambda path: path.stat().st_mtime))


def trained_checkpoint(work_dir: Path) -> str:
    """The checkpoint that a work directory stands for: its ``best_*.pth`` where there is exactly one, else its latest.

    One that is damaged is passed over, with a warning.

    Raises:
        UserError: it has none, or none that is whole.
    """
    best = list(work_dir.glob('best_*.pth'))
    problem = None
    if len(best) == 1:
        problem = _damage(best[0])
        if not problem:
            return str(best[0])
    checkpoint = latest_checkpoint(work_dir)
    if problem:
        _tell_passed_over(problem)
    if checkpoint is None:
        raise UserError(
            f'{work_dir} has no checkpoint that is whole (best_*.pth, epoch_*.pth, iter_*.pth): train first, or name '
            'one'
        )
    return checkpoint


def latest_checkpoint(work_dir: str | Path) -> str | None:
    """The checkpoint (``epoch_*.pth``, ``iter_*.pth``) with the most steps, as the files themselves say.

    One that is cut short or has a wrong bit is passed over, with a warning, and the one before it counts.

    Args:
        work_dir: of a training.

    Returns:
        Its path; None where there is no checkpoint.

    Raises:
        UserError: all of them are damaged.
    """
    steps, problems = {}, []
    for file in sorted([*Path(work_dir).glob('epoch_*.pth'), *Path(work_dir).glob('iter_*.pth')]):
        try:
            steps[file] = read_meta(file, str(file)).get('iter', 0)
        except UserError as error:
            problems.append(_problem(error))
    for file in sorted(steps, key=steps.get, reverse=True):
        problem = _damage(file)
        if not problem:
            for other in problems:
                _tell_passed_over(other)
            return str(file)
        problems.append(problem)
    if problems:
        raise UserError(
            f'{few(problems, shown=1)}, and {work_dir} has no other checkpoint that is whole: name one of another '
            'folder, or train in another --work-dir'
        )
    return None


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint file, after reading all of it; None where it is whole."""
    try:
        check_file(checkpoint, str(checkpoint), thorough=True)
    except UserError as error:
        return _problem(error)
    return None


def _problem(error: UserError) -> str:
    """The part of a sentence that says what is wrong, without the one that says what to do."""
    return str(error).rpartition(': ')[0]


def _tell_passed_over(problem: str) -> None:
    print_log(f'{problem}: it is passed over', logger='current', level=logging.WARNING)
