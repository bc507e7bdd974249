"""Curves of what was logged in trainings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from ..engine.checkpoint_hook import AVERAGE
from ..engine.validation_loss import NAME as VALIDATION_LOSS
from ..errors import UserError
from .plots import COLORS, INK
from .training_log import COUNTERS, TrainingLog

OVERFITTING = 'loss of training and validation'
"""The title of the panel that shows overfitting: the validation's loss rises again while the training's falls."""

NO_FORMULAS = rc_context({'text.parse_math': False})
"""Names are drawn letter by letter, even with a $."""


@NO_FORMULAS
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


@NO_FORMULAS
def plot_page(runs: Sequence[TrainingLog], keys: Sequence[str] = ()) -> Figure:
    """As `plot_runs`, all panels on one figure."""
    panels = _panels(runs, keys)
    columns = min(len(panels), 2 if len(panels) <= 4 else 3)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.6 * columns, 3.6 * rows), layout='constrained', facecolor='none')
    axes = [figure.add_subplot(rows, columns, place) for place in range(1, len(panels) + 1)]
    for panel, (title, names) in zip(axes, panels):
        _draw(panel, title, names, runs)
    _add_legends(figure, axes, runs)
    return figure


def _panels(runs: Sequence[TrainingLog], patterns: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Titles, and the scalars of each."""
    training = dict.fromkeys(key for run in runs for line in run.training for key in line)
    validation = dict.fromkeys(key for run in runs for line in run.validation for key in line)
    titles = {key: _training_title(key) for key in training}
    titles = dict(sorted(titles.items(), key=lambda item: item[1] == 'learning rate'))  # after the losses
    titles |= {key: _metric_title(key) for key in validation if key not in training}
    if VALIDATION_LOSS in validation and 'loss' in training:
        titles |= {'loss': OVERFITTING, VALIDATION_LOSS: OVERFITTING}
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
        return 'losses'
    return 'learning rate' if key.rpartition('.')[2] == 'lr' else None


def _metric_title(key: str) -> str | None:
    """What a scalar of the validation belongs to, if it is shown unasked: those of single classes are too many."""
    if key in ('time', 'data_time') or key.endswith('_precision'):
        return None
    group, _ = _split(key)
    return f'validation: {group}' if group else 'validation'


def _split(key: str) -> tuple[str, str]:
    """Prefix with task, and name of a metric: 'coco/bbox' and 'mAP_50'."""
    average = AVERAGE.search(key)
    start = average.start() if average else key.rfind('/') + 1
    return key[:start].rstrip('/'), key[start:].lstrip('_')


def _draw(axes: Axes, title: str, keys: Sequence[str], runs: Sequence[TrainingLog]) -> None:
    trained = {key for run in runs for line in run.training for key in line}.intersection(keys)
    evaluations = [line for run in runs for line in run.validation if not line.keys().isdisjoint(keys)]
    at = 'epoch' if not trained and all('epoch' in line for line in evaluations) else 'step'
    curves = [(key, run, *run.curve(key, at)) for key, run in product(keys, runs)]
    if not trained and all(len(x) <= 1 for _, _, x, _ in curves):
        _draw_values(axes, title, {_name(key, run, runs): y[0] for key, run, _, y in curves if len(y)})
        return
    for number, (key, run, x, y) in enumerate(curves):
        if not len(x):  # another of the runs has it
            continue
        # A label that begins with _ would be left out of the legend.
        label = f' {_name(key, run, runs)}'
        look = dict(color=COLORS[number % len(COLORS)], linestyle=('-', '--', ':')[number // len(COLORS) % 3])
        if key in trained and title != 'learning rate':
            axes.plot(x, y, **look, alpha=0.35, linewidth=0.8)
            axes.plot(x, _smooth(y), **look, label=label, linewidth=1.6)
        else:
            axes.plot(x, y, **look, label=label, linewidth=1.6, marker=None if key in trained else 'o', markersize=3)
    _dress(axes, title)
    axes.set_xlabel('epoch' if at == 'epoch' else 'iteration', color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=''))
    axes.ticklabel_format(axis='y', scilimits=(-3, 5))
    if axes.dataLim.width == 0:  # a single step that was logged
        axes.set_xlim(axes.dataLim.xmin - 1, axes.dataLim.xmin + 1)
    if axes.dataLim.ymin >= 0:
        axes.set_ylim(bottom=0)


def _draw_values(axes: Axes, title: str, values: Mapping[str, float]) -> None:
    """A bar for each value of a single evaluation, which makes no curve."""
    drawn = axes.barh(list(values), np.nan_to_num(list(values.values())), height=0.6, color=COLORS[0])
    texts = [f'{value:.3f}' if np.isfinite(value) else 'none' for value in values.values()]
    axes.bar_label(drawn, texts, padding=3, color=INK, fontsize='small')
    _dress(axes, title)
    axes.set_xlabel('evaluated once', color=INK)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.margins(x=0.15)
    axes.grid(axis='y', visible=False)
    axes.set_axisbelow(True)


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, color=INK, loc='left')
    axes.tick_params(colors=INK)
    axes.spines[:].set_color(INK)
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(color=INK, alpha=0.25, linewidth=0.6)
    axes.set_facecolor('none')


def _name(key: str, run: TrainingLog, runs: Sequence[TrainingLog]) -> str:
    """What tells a curve from the others of its panel: the metric, or the run where there are several."""
    return _split(key)[1] if len(runs) == 1 else run.name


def _add_legends(figure: Figure, axes: Sequence[Axes], runs: Sequence[TrainingLog]) -> None:
    """Names of curves beside each panel; of several runs once, above all panels."""
    look = dict(labelcolor=INK, frameon=False, fontsize='small', handlelength=1.2)
    if len(runs) > 1:
        handles = {handle.get_label(): handle for panel in axes for handle in panel.get_legend_handles_labels()[0]}
        figure.legend(handles=list(handles.values()), loc='outside upper left', ncols=min(len(runs), 4), **look)
        return
    for panel in axes:
        if len(panel.get_legend_handles_labels()[0]) > 1:
            panel.legend(loc='upper left', bbox_to_anchor=(1, 1), **look)


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean of a twentieth of the curve around each value."""
    window = np.ones(len(values) // 20 | 1)
    finite = np.isfinite(values)
    sums = np.convolve(np.where(finite, values, 0), window, 'same')
    counts = np.convolve(finite.astype(float), window, 'same')
    return np.where(finite, sums / np.maximum(counts, 1), np.nan)
