"""Plots of a report, as SVG that takes its text color from the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO, StringIO
from os import PathLike
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ..errors import UserError
from ..files import write_atomically
from .error_analysis import ThresholdCurve

FIGURE_SUFFIXES = ('.png', '.svg', '.pdf')
"""Suffixes of the files that `write_figure` writes."""

INK = '#7f7e7d'
"""Seen on white and on black; in a page it becomes the text's color, so no plot draws anything else in it."""

COLORS = ('#3377dd', '#dd7711', '#9900ff', '#889988', '#cc2244', '#aa5599')
"""Far apart to the color-blind too (as Machado et al. 2009 simulate them), and of contrast 3 on white and #1e1e1e."""

SHADES = LinearSegmentedColormap.from_list('shades', ['#7f9fc4', '#7a5fc0', '#b8336a'])
"""From few to many, each seen on white as well as on black and under white numbers."""

STYLE = {
    'axes.edgecolor': INK,
    'axes.labelcolor': INK,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'font.size': 10,
    'grid.alpha': 0.15,
    'grid.color': INK,
    'legend.frameon': False,
    'legend.fontsize': 9,
    'savefig.bbox': 'tight',
    'savefig.pad_inches': 0.05,
    'savefig.transparent': True,
    'svg.fonttype': 'none',
    'svg.hashsalt': 'fasternet_mm',
    'text.color': INK,
    'text.parse_math': False,  # a class may be called $5
    'xtick.color': INK,
    'ytick.color': INK,
}


@rc_context(STYLE)
def new_figure(width: float = 4.6, height: float = 3.2) -> tuple[Figure, Axes]:
    """An empty plot in the report's style, in inches; narrow, so that its text is readable on a phone."""
    figure = Figure((width, height), layout='constrained')
    return figure, figure.add_subplot()


def check_figure_path(path: str | PathLike, option: str) -> None:
    """Raise `UserError` where the file that an option names is of no format that `write_figure` writes."""
    if Path(path).suffix not in FIGURE_SUFFIXES:
        raise UserError(f'{option} {path}: the name must end in {", ".join(FIGURE_SUFFIXES)}')


@rc_context(STYLE)
def write_figure(path: str | PathLike, figure: Figure, transparent: bool = False) -> None:
    """Write a figure on white or without a background, whole or not at all; the same figure gives the same bytes."""
    suffix = Path(path).suffix
    content = BytesIO()
    figure.savefig(
        content,
        format=suffix[1:],
        dpi=160,
        facecolor='none' if transparent else 'white',
        transparent=transparent,
        metadata={'.svg': dict(Date=None), '.pdf': dict(CreationDate=None)}.get(suffix),
    )
    write_atomically(path, content.getvalue())


@rc_context(STYLE)
def to_svg(figure: Figure, description: str) -> str:
    """An ``<svg>`` element for HTML, in the page's text color, with ``description`` for those who cannot see it."""
    text = StringIO()
    figure.savefig(text, format='svg', metadata={'Date': None, 'Creator': None})
    svg = text.getvalue()
    svg = svg[svg.index('<svg') :].replace(INK, 'currentColor')
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
    svg = re.sub(r' id="\w+?_\d+"', '', svg)  # names of groups, the same in every figure
    return re.sub(
        r'width="[\d.]+pt" height="[\d.]+pt"', lambda _: f'role="img" aria-label="{escape(description)}"', svg, count=1
    )


@rc_context(STYLE)
def precision_recall(curves: Mapping[float, np.ndarray], recalls: np.ndarray) -> Figure:
    """One line per IoU: precision at each recall."""
    figure, axes = new_figure()
    shades = np.linspace(1, 0.25, len(curves))
    for (iou, precision), shade in zip(curves.items(), shades):
        axes.plot(recalls, precision, color=COLORS[0], alpha=shade, label=f'IoU {iou:.2f}')
    axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(loc='outside lower center', ncols=5, fontsize=7, handlelength=1)
    return figure


@rc_context(STYLE)
def class_bars(values: Mapping[str, float], label: str) -> Figure:
    """A horizontal bar per class, the first on top; where nothing counts (below 0) there is none."""
    figure, axes = new_figure(height=max(1.2, 0.6 + 0.19 * len(values)))
    bars = axes.barh(list(values), np.maximum(list(values.values()), 0), color=COLORS[0], height=0.7)
    axes.bar_label(bars, [f'{v:.3f}' if v >= 0 else 'none' for v in values.values()], padding=3, fontsize=8)
    axes.set(xlabel=label, xlim=(0, 1.12), xticks=np.linspace(0, 1, 6), ylim=(len(values) - 0.4, -0.6))
    axes.tick_params(axis='y', labelsize=8, length=0)
    axes.grid(axis='y', visible=False)
    return figure


@rc_context(STYLE)
def bars(groups: Mapping[str, Sequence[float]], names: Sequence[str], label: str) -> Figure:
    """Horizontal bars, whose values have room however many there are: ``names`` on the axis, one color per group."""
    figure, axes = new_figure(height=max(1.6, 0.9 + 0.24 * len(names) * len(groups)))
    height = 0.8 / len(groups)
    for number, (group, values) in enumerate(groups.items()):
        places = np.arange(len(names)) + height * (number - (len(groups) - 1) / 2)
        drawn = axes.barh(places, np.maximum(values, 0), height * 0.9, color=COLORS[number], label=group)
        texts = [f'{value:.3f}' if value >= 0 else 'none' for value in values]
        axes.bar_label(drawn, texts, fontsize=8, padding=3)
    axes.set(xlabel=label, ylim=(len(names) - 0.4, -0.6))
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis='y', length=0)
    axes.grid(axis='y', visible=False)
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    if len(groups) > 1:
        figure.legend(loc='outside lower center', ncols=len(groups))
    return figure


@rc_context(STYLE)
def confusion_heatmap(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """Shares of each row in shades; numbers are written where there is room."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    count = len(names)
    side = min(max(3.4, 1.2 + 0.32 * count), 8.5)
    figure, axes = new_figure(side + 0.6, side)
    image = axes.imshow(np.ma.masked_less(shares, 0.005), cmap=SHADES, vmin=0, vmax=1, interpolation='nearest')
    figure.colorbar(image, ax=axes, fraction=0.04, label='share of the row')
    size = 9 if count <= 12 else max(3.0, 110 / count)
    axes.set_xticks(range(count), names, rotation=90, fontsize=size)
    axes.set_yticks(range(count), names, fontsize=size)
    axes.set(xlabel='predicted', ylabel='truth')
    axes.grid(visible=False)
    if count <= 12:
        for row, column in zip(*np.nonzero(shares >= 0.005)):
            axes.text(column, row, f'{shares[row, column]:.2f}', ha='center', va='center', color='white', fontsize=7)
    return figure


@rc_context(STYLE)
def reliability(bins: Sequence[Mapping[str, float]]) -> Figure:
    """How often detections of a score are right, and how many there are."""
    figure, axes = new_figure()
    filled = [score_bin for score_bin in bins if score_bin['count']]
    edges = [score_bin['bin_lower'] for score_bin in filled]
    width = bins[0]['bin_upper'] - bins[0]['bin_lower']
    shares = [score_bin['avg_accuracy'] for score_bin in filled]
    axes.bar(edges, shares, width * 0.92, align='edge', color=COLORS[0])
    axes.plot([0, 1], [0, 1], '--', color=COLORS[1], label='as sure as it should be')
    axes.set(xlabel='score', ylabel='share that is right', xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc='upper left')
    return figure


@rc_context(STYLE)
def threshold(curve: ThresholdCurve) -> Figure:
    """Precision, recall and F1 over the score from which detections are kept."""
    figure, axes = new_figure()
    for values, name, line_color in zip(
        (curve.precision, curve.recall, curve.f1), ('precision', 'recall', 'F1'), COLORS
    ):
        # The step goes down in score; a few hundred points are all that can be seen.
        places = np.unique(np.linspace(0, len(values) - 1, 400).astype(int))
        axes.plot(curve.scores[places], values[places], color=line_color, label=name, drawstyle='steps-pre')
    axes.axvline(curve.best[0], color=INK, linestyle=':')
    axes.set(xlabel='score threshold', xlim=(0, 1), ylim=(0, 1.02))
    axes.legend()
    return figure
