"""Scalars that MMEngine logs while it trains: read, and drawn as curves."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from ..engine.checkpoint_hook import AVERAGE
from ..errors import UserError
from .plots import COLORS, INK

PLACES = ('*/vis_data/scalars.json', 'vis_data/scalars.json', 'scalars.json')
"""Where scalars are in a work directory, in the folder of one start of a training, and in its ``vis_data``."""
NEEDED = "MMEngine's scalars.json is needed"
FORMATS = ('.png', '.svg', '.pdf')
MOST = np.finfo(np.float32).max
COUNTERS = ('step', 'iter', 'epoch')

LITERALLY = rc_context({'text.parse_math': False})
"""Names are no formulas, even with a $."""


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
        values[~(np.abs(values) < MOST) | ((values == -1) & bool(AVERAGE.search(key)))] = np.nan
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
        found = sorted(path.glob(place))
        if found:
            return found
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


@LITERALLY
def plot_runs(runs: Sequence[TrainingLog], keys: Sequence[str] = ()) -> list[Figure]:
    """Curves of losses, of the learning rate and of the validation's metrics, each panel as a figure of its own.

    Of one run a panel shows what belongs together; of several it shows one scalar, to compare them. Figures have no
    background, and colors that stand out from a white and from a dark one.

    Args:
        runs: one or several.
        keys: names or patterns ('coco/*_mAP') of scalars. Default: losses, learning rates and metrics, without those
            of single classes.

    Raises:
        UserError: a name is not among the scalars, or there is nothing to plot.
    """
    figures = []
    for title, names in _panels(runs, keys):
        figure = Figure(figsize=(6.4, 3.6), layout='constrained', facecolor='none')
        axes = figure.add_subplot()
        _draw(axes, title, names, runs)
        _add_legends(figure, [axes], runs)
        figures.append(figure)
    return figures


@LITERALLY
def plot_page(runs: Sequence[TrainingLog], keys: Sequence[str] = ()) -> Figure:
    """As `plot_runs`, all panels on one figure."""
    panels = _panels(runs, keys)
    columns = min(len(panels), 2 if len(panels) <= 4 else 3)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.6 * columns, 3.6 * rows), layout='constrained', facecolor='none')
    axes = [figure.add_subplot(rows, columns, place) for place in range(1, len(panels) + 1)]
    for one, (title, names) in zip(axes, panels):
        _draw(one, title, names, runs)
    _add_legends(figure, axes, runs)
    return figure


def render(figure: Figure, suffix: str, transparent: bool = True) -> bytes:
    """A figure as '.png', '.svg' (with its text as text) or '.pdf'; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    date = {'.svg': dict(Date=None), '.pdf': dict(CreationDate=None)}
    with rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'fasternet_mm'}):
        background = 'none' if transparent else 'white'
        figure.savefig(buffer, format=suffix[1:], dpi=120, facecolor=background, metadata=date.get(suffix))
    return buffer.getvalue()


def _panels(runs: Sequence[TrainingLog], patterns: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Titles, and the scalars of each."""
    training = dict.fromkeys(key for run in runs for line in run.training for key in line)
    validation = dict.fromkeys(key for run in runs for line in run.validation for key in line)
    titles = {key: _training_title(key) for key in training}
    titles = dict(sorted(titles.items(), key=lambda item: item[1] == 'learning rate'))  # after the losses
    titles |= {key: _metric_title(key) for key in validation if key not in training}
    known = [key for key in titles if key not in COUNTERS]
    for pattern in patterns:
        if not any(fnmatchcase(key, pattern) for key in known):
            raise UserError(f'{pattern!r} is not among the scalars: use {", ".join(known)}')
    chosen = [key for pattern in patterns for key in known if fnmatchcase(key, pattern)]
    chosen = dict.fromkeys(chosen or [key for key in known if titles[key]])
    groups: dict[str, list[str]] = {}
    for key in chosen:
        if any(np.isfinite(run.curve(key)[1]).any() for run in runs):
            title = key if len(runs) > 1 else titles[key] or key
            groups.setdefault(title, []).append(key)
    if not groups:
        raise UserError(f'{", ".join(run.name for run in runs)}: nothing to plot, since no scalar has a finite value')
    most = len(COLORS)
    return [(title, keys[i : i + most]) for title, keys in groups.items() for i in range(0, len(keys), most)]


def _training_title(key: str) -> str | None:
    """What a scalar of the training belongs to, if it is shown unasked."""
    if 'loss' in key:
        return 'training losses'
    return 'learning rate' if key.rpartition('.')[2] == 'lr' else None


def _metric_title(key: str) -> str | None:
    """What a scalar of the validation belongs to, if it is shown unasked: those of single classes are too many."""
    if key in ('time', 'data_time') or key.endswith('_precision'):
        return None
    group, _ = _split(key)
    return f'validation: {group}' if group else 'validation'


def _split(key: str) -> tuple[str, str]:
    """Prefix with task, and name of a metric: 'coco/bbox' and 'mAP_50'."""
    found = AVERAGE.search(key)
    start = found.start() if found else key.rfind('/') + 1
    return key[:start].rstrip('/'), key[start:].lstrip('_')


def _draw(axes: Axes, title: str, keys: Sequence[str], runs: Sequence[TrainingLog]) -> None:
    trained = any(keys[0] in line for run in runs for line in run.training)
    evaluations = [line for run in runs for line in run.validation if not line.keys().isdisjoint(keys)]
    at = 'epoch' if not trained and all('epoch' in line for line in evaluations) else 'step'
    curves = [(_split(key)[1] if len(runs) == 1 else run.name, *run.curve(key, at)) for key in keys for run in runs]
    for number, (label, x, y) in enumerate(curves):
        if not len(x):  # another of the runs has it
            continue
        label = f' {label}'  # else one that begins with _ would be left out of the legend
        look = dict(color=COLORS[number % len(COLORS)], linestyle=('-', '--', ':')[number // len(COLORS) % 3])
        if trained and title != 'learning rate':
            axes.plot(x, y, **look, alpha=0.35, linewidth=0.8)
            axes.plot(x, _smooth(y), **look, label=label, linewidth=1.6)
        else:
            axes.plot(x, y, **look, label=label, linewidth=1.6, marker=None if trained else 'o', markersize=3)
    axes.set_title(title, color=INK, loc='left')
    axes.set_xlabel('epoch' if at == 'epoch' else 'iteration', color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=''))
    axes.ticklabel_format(axis='y', scilimits=(-3, 5))
    axes.tick_params(colors=INK)
    axes.spines[:].set_color(INK)
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(color=INK, alpha=0.25, linewidth=0.6)
    axes.set_facecolor('none')
    if axes.dataLim.width == 0:  # a single evaluation
        axes.set_xlim(axes.dataLim.xmin - 1, axes.dataLim.xmin + 1)
    if axes.dataLim.ymin >= 0:
        axes.set_ylim(bottom=0)


def _add_legends(figure: Figure, axes: Sequence[Axes], runs: Sequence[TrainingLog]) -> None:
    """Names of curves beside each panel; of several runs once, above all panels."""
    look = dict(labelcolor=INK, frameon=False, fontsize='small', handlelength=1.2)
    if len(runs) > 1:
        handles = {handle.get_label(): handle for one in axes for handle in one.get_legend_handles_labels()[0]}
        figure.legend(handles=list(handles.values()), loc='outside upper left', ncols=min(len(runs), 4), **look)
        return
    for one in axes:
        if len(one.get_legend_handles_labels()[0]) > 1:
            one.legend(loc='upper left', bbox_to_anchor=(1, 1), **look)


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean of a twentieth of the curve around each value."""
    window = np.ones(len(values) // 20 | 1)
    there = np.isfinite(values)
    sums, counts = (np.convolve(part, window, 'same') for part in (np.where(there, values, 0), there.astype(float)))
    return np.where(there, sums / np.maximum(counts, 1), np.nan)
