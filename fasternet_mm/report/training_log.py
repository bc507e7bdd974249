"""Scalars that MMEngine logs while it trains."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..engine.checkpoint_hook import AVERAGE
from ..errors import UserError

PLACES = ('*/vis_data/scalars.json', 'vis_data/scalars.json', 'scalars.json')
"""Where scalars are in a work directory, in the folder of one start of a training, and in its ``vis_data``."""

NEEDED = "MMEngine's scalars.json is needed"
"""The end of the messages about files that are something else."""

LARGEST = np.finfo(np.float32).max
"""Values above it are drawn as gaps: a diverging loss would flatten the curve before it."""

COUNTERS = ('step', 'iter', 'epoch')
"""What says in a line when it was logged; it is not a curve."""


@dataclass
class TrainingLog:
    """What was logged in a training, interruptions mended.

    Attributes:
        name: of the run, for legends.
        training: numbers by name, a dict a logged iteration, whose number is 'step'.
        validation: the same of each evaluation; 'step' is the iteration, and 'epoch' is there where the training
            counts its evaluations in epochs.
    """

    name: str
    training: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)

    def curve(self, key: str, at: str = 'step') -> tuple[np.ndarray, np.ndarray]:
        """Steps or epochs, and the values of ``key`` there: NaN where float32 has none, or COCO has -1 for none."""
        lines = [line for line in self.training if key in line] or [line for line in self.validation if key in line]
        values = np.array([line[key] for line in lines], dtype=float)
        values[~(np.abs(values) < LARGEST) | ((values == -1) & bool(AVERAGE.search(key)))] = np.nan
        return np.array([line[at] for line in lines], dtype=float), values


def read_training_logs(paths: Sequence[str | os.PathLike]) -> list[TrainingLog]:
    """Logs of several trainings, named by what tells their paths apart.

    Args:
        paths: of each the work directory, or a ``scalars.json`` in it.

    Raises:
        UserError: a path has no scalars, or they are not what MMEngine writes.
    """
    common = os.path.commonpath([Path(path).absolute().parent for path in paths])
    return [_read(Path(path), os.path.relpath(path, common)) for path in paths]


def _read(path: Path, name: str) -> TrainingLog:
    log = TrainingLog(name)
    for file in _files(path):
        started = False
        for line in _lines(file):
            if 'lr' in line or 'iter' in line:
                if not started:  # what an earlier start logged from here on was lost, or is of another training
                    log.training = [old for old in log.training if old['step'] < line['step']]
                    log.validation = [old for old in log.validation if old['step'] < line['step']]
                    started = True
                log.training.append(line)
            else:
                last = log.training[-1] if log.training else {}
                if line['step'] == last.get('epoch'):
                    line |= dict(epoch=line['step'], step=last['step'])
                log.validation.append(line)
    if not log.training and not log.validation:
        raise UserError(f'{path} has no whole line of scalars yet: {NEEDED}')
    return log


def _files(path: Path) -> list[Path]:
    """The files of scalars, the oldest first: their folders are named by the time."""
    if path.is_file():
        return [path]
    for place in PLACES:
        files = sorted(path.glob(place))
        if files:
            return files
    places = ', '.join(str(path / place) for place in PLACES)
    raise UserError(f'{path} has no scalars (looked for {places}): name the work directory of a training')


def _lines(file: Path) -> Iterator[dict[str, float]]:
    """The numbers of each line."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f'{file} cannot be read ({error.strerror}): {NEEDED}') from error
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line, parse_int=float)
        except (ValueError, RecursionError) as error:
            if number == len(lines):  # cut off by an interruption
                return
            raise UserError(f'{file}: line {number} is not JSON ({error}): {NEEDED}') from error
        numbers = {k: v for k, v in content.items() if isinstance(v, float)} if isinstance(content, dict) else {}
        if 'step' not in numbers or not all(0 <= numbers.get(counter, 0) < 2**53 for counter in COUNTERS):
            raise UserError(f'{file}: line {number} has no step, or one that is no count: {NEEDED}')
        yield numbers
