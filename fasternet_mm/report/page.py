"""A report as one HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup
from matplotlib.figure import Figure

from ..files import write_atomically
from ..version import __version__
from .plots import to_svg
from .training_log import read_training_logs
from .training_plots import plot_runs


@dataclass
class Plot:
    """A figure, and what it shows in a sentence."""

    figure: Figure
    caption: str

    @property
    def svg(self) -> Markup:
        return Markup(to_svg(self.figure, self.caption))


@dataclass
class Table:
    """Rows of text under a header; the first column names the row. Folded, it opens on demand.

    ``sentences`` is the column, by its name in the header, that has sentences, which may go over several lines.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False
    sentences: str | None = None


@dataclass
class ImagePair:
    """An image with the truth and with the prediction drawn in, as ``data:`` URLs; names and CSS colors of a legend."""

    name: str
    caption: str
    truth: str
    prediction: str
    legend: Sequence[tuple[str, str]] = ()


@dataclass
class Section:
    """One part of the page; ``id`` is its anchor."""

    id: str
    title: str
    text: str
    figures: list[Plot] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    images: list[ImagePair] = field(default_factory=list)


def training_plots(work_dir: str | PathLike) -> list[Plot]:
    """Training curves of a work directory: losses, learning rate, metrics.

    Raises:
        UserError: nothing was logged there.
    """
    return [Plot(figure, figure.axes[0].get_title(loc='left')) for figure in plot_runs(read_training_logs([work_dir]))]


def write_report(
    out: str | PathLike, title: str, subtitle: str, sections: Sequence[Section], training: Sequence[Plot]
) -> None:
    """Write the page, whole or not at all, with training curves where there are some.

    The names that strangers gave to classes and files are shown as text.
    """
    if training:
        sections = [*sections, Section('training', 'Training', 'What was logged on the way.', list(training))]
    template = Environment(autoescape=True).from_string(Path(__file__).with_name('page.html').read_text('utf-8'))
    page = template.render(title=title, subtitle=subtitle, sections=sections, version=__version__)
    write_atomically(out, page.encode())
