"""Plots of benchmarks."""

from __future__ import annotations

import math
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
from .networks import SLICING


def check_plot(path: str | None, kind: str) -> None:
    """Raise `UserError` unless this kind of benchmark has a plot, and the file has a suffix of `FIGURE_SUFFIXES`."""
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
    panels: dict[str, dict[str, list[Mapping[str, Any]]]] = {}  # rows by engine and by line
    for row in comparison['rows']:
        if row['top1'] and row['precision'] == 'float32':
            engine = 'eager' if row['engine'] == 'optimized' else row['engine']
            panels.setdefault(engine, {}).setdefault(_line_of(row), []).append(row)
    columns, rows = min(len(panels), 2), math.ceil(len(panels) / 2)
    figure = Figure((4.6 * columns, 0.5 + 3.6 * rows), layout='constrained')
    for place, (engine, lines) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, place, sharey=figure.axes[0] if figure.axes else None)
        _latency_panel(axes, lines)
        axes.set_title(engine, fontsize=10)
    figure.supxlabel('latency, ms', fontsize=10)
    figure.supylabel('ImageNet-1k top-1 in %, as published', fontsize=10)
    handles = {}
    for axes in figure.axes:
        handles.update({label: handle for handle, label in zip(*axes.get_legend_handles_labels())})
    figure.legend(handles.values(), handles.keys(), loc='outside upper center', ncols=4, fontsize=8)
    return figure


LINE_COLORS = {
    'FasterNet, ours': COLORS[0],
    'FasterNet, optimized': COLORS[1],
    'FasterNet, timm': COLORS[2],
    'FasterNet, timm, slicing': COLORS[3],
}
"""Lines of the plot: FasterNets, from variant to variant."""


def _line_of(row: Mapping[str, Any]) -> str:
    """The line that a network belongs to; '' where it stands alone."""
    package, _, model = row['name'].rpartition('/')
    if not model.startswith('fasternet_'):
        return ''
    if not package:
        return 'FasterNet, optimized' if row['engine'] == 'optimized' else 'FasterNet, ours'
    return 'FasterNet, timm, slicing' if model.endswith(SLICING) else 'FasterNet, timm'


def _latency_panel(axes: Axes, lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for line, rows in lines.items():
        points = sorted((row['p50'] * 1e3, row['top1'], row['name'].rpartition('/')[2]) for row in rows)
        latencies, accuracies, names = zip(*points)
        if line:
            axes.plot(latencies, accuracies, 'o-', color=LINE_COLORS[line], label=line, markersize=4)
            continue
        axes.plot(latencies, accuracies, 's', color=INK, markersize=3)
        for name, *point in zip(names, latencies, accuracies):
            axes.annotate(name, point, xytext=(3, 2), textcoords='offset points', fontsize=6)
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
        speeds = [row['flops_per_second'] / 1e9 for row in rows if row['name'] == operator]
        axes.plot(shapes, speeds, 'o-', color=COLORS[number], label=operator, markersize=4)
    axes.axhline(median(comparison['peak_flops_per_second']['float32']) / 1e9, color=INK, linestyle=':', label='GEMM')
    axes.set(xlabel='channels × pixels', ylabel='GFLOP/s', yscale='log')
    _plain_numbers(axes.yaxis)
    figure.legend(loc='outside lower center', ncols=2, fontsize=8)
    return figure


PLOTS = {'networks': latency_accuracy, 'layers': layer_speeds}
"""By kind of benchmark."""
