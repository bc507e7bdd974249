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
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from ..errors import UserError
from ..report.plots import COLORS, INK, STYLE, check_figure_path
from .networks import SLICING


def check_plot(path: str | None, kind: str) -> None:
    """Raise `UserError` unless this kind of benchmark has a plot, and the file has a suffix of `FIGURE_SUFFIXES`."""
    if path and kind not in PLOTS:
        *others, last = PLOTS
        raise UserError(f'--plot is for {", ".join(others)} and {last}, not for {kind}: leave it out')
    if path:
        check_figure_path(path, '--plot')


def draw(kind: str, comparison: Mapping[str, Any]) -> Figure:
    """The plot of a comparison: see `latency_accuracy`, `layer_speeds` and `models_to_choose`."""
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


METHODS = {
    'rtmdet': 'RTMDet',
    'faster_rcnn': 'Faster R-CNN',
    'rtmdet_ins': 'RTMDet-Ins',
    'mask_rcnn': 'Mask R-CNN',
    'fpn': 'Semantic FPN',
    'upernet': 'UPerNet',
}
"""Names of methods, in the order of the rows from the top: boxes, outlines, label maps."""

POINTS_PER_PARAMETER = 4e-6
"""Area of a mark, in square points: 45 million parameters are a mark of 13 points."""


@rc_context(STYLE)
def models_to_choose(comparison: Mapping[str, Any]) -> Figure:
    """Marks at each model's latency, as large as it has parameters: over known accuracies, the others in rows."""
    rows = comparison['rows']
    panels: dict[str, list[Mapping[str, Any]]] = {}  # rows by the data of their accuracy
    for row in rows:
        if row['accuracy']:
            panels.setdefault('{data} box AP, {source}'.format(**row['accuracy']), []).append(row)
    others = [row for row in rows if not row['accuracy']]
    methods = [method for method in METHODS if any(row['method'] == method for row in others)]
    heights = [1.5] * len(panels) + [0.45 * len(methods)] * bool(methods)
    figure = Figure((4.8, 0.9 + 1.1 * sum(heights)), layout='constrained')
    parts = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    middle = math.sqrt(math.prod(f(row['p50'] for row in rows) for f in (min, max)))
    for axes, (title, known) in zip(parts, panels.items()):
        heights = [row['accuracy']['box_ap'] for row in known]
        for row, height in zip(known, heights):
            _model_mark(axes, row, height)
            side = 'right' if row['p50'] < middle else 'left'
            _model_name(axes, row, height, f'{METHODS[row["method"]]} {row["variant"]}', side)
        axes.set_title(title, fontsize=9, loc='left')
        axes.set_ylim(min(heights) - 1.5, max(heights) + 1.5)  # so that differences look as small as they are
    if methods:
        for row in others:
            height = methods.index(row['method'])
            _model_mark(parts[-1], row, height)
            side = 'below' if row['variant'] == 'S' else 'above'  # T0 may be as fast, where heads take most of the time
            _model_name(parts[-1], row, height, row['variant'], side)
        parts[-1].set_title('accuracy not known', fontsize=9, loc='left')
        parts[-1].set_yticks(range(len(methods)), [METHODS[method] for method in methods])
        parts[-1].set_ylim(len(methods) - 0.3, -0.7)
    parts[-1].set_xscale('log')
    parts[-1].margins(x=0.12)
    _plain_numbers(parts[-1].xaxis)
    parts[-1].set_xlabel('latency of an image, ms')
    figure.legend(*_mark_sizes(), loc='outside lower center', ncols=4, title='parameters', fontsize=8, title_fontsize=8)
    return figure


def _model_mark(axes: Axes, row: Mapping[str, Any], height: float) -> None:
    color = COLORS[list(METHODS).index(row['method'])]
    area = POINTS_PER_PARAMETER * row['parameters']
    axes.scatter(row['p50'] * 1e3, height, s=area, color=color, alpha=0.75, linewidths=0)


def _model_name(axes: Axes, row: Mapping[str, Any], height: float, name: str, side: str) -> None:
    away = 2 + math.sqrt(POINTS_PER_PARAMETER * row['parameters']) / 2
    offset, ha, va = {
        'above': ((0, away), 'center', 'bottom'),
        'below': ((0, -away), 'center', 'top'),
        'right': ((away + 1, 0), 'left', 'center'),
        'left': ((-away - 1, 0), 'right', 'center'),
    }[side]
    point = row['p50'] * 1e3, height
    axes.annotate(name, point, xytext=offset, textcoords='offset points', ha=ha, va=va, fontsize=7)


def _mark_sizes() -> tuple[list[Line2D], list[str]]:
    sizes = 4e6, 20e6, 50e6, 100e6
    style = dict(color='none', marker='o', markerfacecolor=INK, markeredgewidth=0)
    marks = [Line2D([], [], markersize=math.sqrt(POINTS_PER_PARAMETER * size), **style) for size in sizes]
    return marks, [f'{size / 1e6:.0f} M' for size in sizes]


PLOTS = {'networks': latency_accuracy, 'layers': layer_speeds, 'models': models_to_choose}
"""By kind of benchmark."""
