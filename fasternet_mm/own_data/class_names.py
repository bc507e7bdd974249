"""Files with the names, and maybe the colours, of the classes of label maps."""

from __future__ import annotations

import colorsys
import posixpath
import re
from dataclasses import dataclass

from ..errors import UserError
from .content import Colour
from .folder import DataFolder

CLASS_FILES = ('classes.txt', 'label_colors.txt', 'class_dict.csv', 'labelmap.txt', '_classes.csv')
"""Ours, CamVid's, its copies', CVAT's, Roboflow's."""

IGNORED = frozenset(('void', 'ignore', 'ignored', 'unlabelled', 'unlabeled'))
"""Names of what is no class: its pixels do not count."""

HEADERS = ('name r g b', 'pixel value class')


@dataclass
class ClassFile:
    """Names in the order of the file, and their colours or None."""

    names: list[str]
    colours: list[Colour] | None


def read_class_file(folder: DataFolder) -> ClassFile | None:
    """The first of `CLASS_FILES` that is there, the highest up; None where there is none.

    A line is a name; a label, counted from 0, and a name; a name and red, green, blue; or these before the name.
    Spaces, tabs, commas or colons separate. Empty lines, those that begin with # and a heading do not count.

    Raises:
        UserError: lines are not alike, or a name or colour is there twice.
    """
    files = [file for file in folder.files if posixpath.basename(file) in CLASS_FILES]
    if not files:
        return None
    file = min(files, key=lambda file: (file.count('/'), CLASS_FILES.index(posixpath.basename(file))))
    shown = folder.shown(file)
    try:
        lines = (folder.root / file).read_text('utf-8-sig').splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f'{shown} is not a text file that can be read ({error})') from error
    rows = [re.split(r'[,:\s]+', line.strip(',: \t')) for line in lines if line.strip() and line.strip()[0] != '#']
    if rows and ' '.join(rows[0]).lower() in HEADERS:
        del rows[0]
    if rows and all(row[0] == str(number) and len(row) > 1 for number, row in enumerate(rows)):
        rows = [row[1:] for row in rows]
    parsed = [_name_and_colour(row) for row in rows]
    names, colours = [name for name, _ in parsed], [colour for _, colour in parsed if colour]
    if not {name.lower() for name in names} - IGNORED or len(colours) not in (0, len(names)):
        raise UserError(
            f'{shown} needs a line for each class: a name, or a name and its colour as in "road 128 64 128"'
        )
    twice = [value for values in (names, colours) for value in values if values.count(value) > 1]
    if twice:
        raise UserError(f'{shown} has {twice[0]} twice: names and colours of classes must differ')
    return ClassFile(names, colours or None)


def default_palette(count: int) -> list[Colour]:
    """Colours that differ from their neighbours: hues a golden angle apart."""
    hues = ((number * 0.618034) % 1 for number in range(count))
    return [tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, 0.95)) for hue in hues]


def _name_and_colour(row: list[str]) -> tuple[str, Colour | None]:
    for colour, name in ((row[-3:], row[:-3]), (row[:3], row[3:])):
        if name and all(value.isdigit() and int(value) < 256 for value in colour):
            return ' '.join(name), tuple(map(int, colour))
    return ' '.join(row), None
