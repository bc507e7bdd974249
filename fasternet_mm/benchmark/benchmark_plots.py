"""Plots of benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from ..errors import UserError
from ..report.plots import COLORS, INK, STYLE, check_figure_path


def check_plot(path: str | None, kind: str) -> None:
    """Raise `UserError` where a plot is asked for that there is not, or under a name that it cannot have."""
    if path and kind not in PLOTS:
        raise UserError(f'--plot is for {" and ".join(PLOTS)}, not for {kind}: leave it out')
    if path:
        check_figure_path(path, '--plot')


def draw(kind: str, comparison: Mapping[str, Any]) -> Figure:
    """The plot of a comparison: see `latency_accuracy` and `layer_speeds`."""
    return PLOTS[kind](comparison)


@rc_context(STYLE)
def latency_accuracy(comparison: Mapping[str, Any]) -> Figure:
    """Top-1 as published over the median latency of a call; a panel for each engine in float32.

    'optimized' stands beside eager mode; networks of unknown accuracy are left out.
    """
    rows = [row for row in comparison['rows'] if row['top1'] and row['precision'] == 'float32']
    families: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        panel = 'eager' if row['engine'] == 'optimized' else row['engine']
        families.setdefault(panel, {}).setdefault(_family(row), []).append(row)
    columns, lines = min(len(families), 2), -(-len(families) // 2)
    figure = Figure((4.6 * columns, 0.5 + 3.6 * lines), layout='constrained')
    panels = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
    for axes, (engine, members) in zip(panels, families.items()):
        _latency_panel(axes, members)
        axes.set_title(engine, fontsize=10)
    for axes in panels[len(families) :]:
        axes.remove()
    figure.supxlabel('latency, ms', fontsize=10)
    figure.supylabel('ImageNet-1k top-1 in %, as published', fontsize=10)
    labeled = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(labeled.values(), labeled.keys(), loc='outside upper center', ncols=4, fontsize=8)
    return figure


FASTERNETS = ('FasterNet, ours', 'FasterNet, optimized', 'FasterNet, timm', 'FasterNet, timm, slicing')
"""Lines of the plot, each in a color."""


def _family(row: Mapping[str, Any]) -> str:
    """The line that a network belongs to; '' where it stands alone."""
    package, _, model = row['name'].rpartition('/')
    if not model.startswith('fasternet_'):
        return ''
    if package:
        return FASTERNETS[3 if ':' in model else 2]
    return FASTERNETS[1 if row['engine'] == 'optimized' else 0]


def _latency_panel(axes: Axes, families: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for name, rows in families.items():
        places = sorted((row['p50'] * 1e3, row['top1'], row['name'].rpartition('/')[2]) for row in rows)
        line = [x for x, _, _ in places], [y for _, y, _ in places]
        if name:
            axes.plot(*line, 'o-', color=COLORS[FASTERNETS.index(name)], label=name, markersize=4)
            continue
        axes.plot(*line, 's', color=INK, markersize=3)
        for x, y, label in places:
            axes.annotate(label, (x, y), xytext=(3, 2), textcoords='offset points', fontsize=6)
    axes.set_xscale('log')
    _plain_numbers(axes.xaxis)


def _plain_numbers(axis: Axis) -> None:
    """1, 2, 5, 10, … on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter('{x:g}'))
    axis.set_minor_formatter(NullFormatter())


@rc_context(STYLE)
def layer_speeds(comparison: Mapping[str, Any]) -> Figure:
    """FLOP/s of each operator at each shape, under the machine's peak."""
    rows = comparison['rows']
    shapes = list(dict.fromkeys(f'{row["channels"]} × {row["side"]}²' for row in rows))
    figure = Figure((5.4, 3.8), layout='constrained')
    axes = figure.subplots()
    for number, operator in enumerate(dict.fromkeys(row['name'] for row in rows)):
        speeds = [row['flops'] / 1e9 for row in rows if row['name'] == operator]
        axes.plot(shapes, speeds, 'o-', color=COLORS[number], label=operator, markersize=4)
    axes.axhline(median(comparison['peaks']['float32']) / 1e9, color=INK, linestyle=':', label='GEMM')
    axes.set(xlabel='channels × pixels', ylabel='GFLOP/s', yscale='log')
    _plain_numbers(axes.yaxis)
    figure.legend(loc='outside lower center', ncols=2, fontsize=8)
    return figure


PLOTS = {'networks': latency_accuracy, 'layers': layer_speeds}
"""By kind of benchmark."""
