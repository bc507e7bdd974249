"""Files with the names, labels and colors of the classes of label maps."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from ...errors import UserError
from .annotated_data import Color
from .data_folder import DataFolder
from .problems import UnusableError

CLASS_FILES = ('classes.txt', 'label_colors.txt', 'class_dict.csv', 'labelmap.txt', '_classes.csv', 'class_names.txt')
"""Names of such files: ours, CamVid's, that of CamVid's copies, CVAT's, Roboflow's and LabelMe's."""

IGNORED = frozenset(('void', 'ignore', 'ignored', 'unlabelled', 'unlabeled', '__ignore__'))
"""Names, in lower case, of what is not a class: its pixels do not count."""

HEADER_WORDS = frozenset(
    ('class', 'classes', 'colour', 'color', 'id', 'index', 'label', 'name', 'names', 'number', 'pixel', 'value')
    + ('r', 'g', 'b', 'red', 'green', 'blue')
)
"""Words of a heading: a first line that has no others names the columns."""


@dataclass
class ClassFile:
    """The lines of a file with classes, in its order.

    Attributes:
        file: its path, as the user would write it.
        names: the name on each line.
        colors: the color on each line, or None where the file has none.
        labels: the number on each line, or None where the file has none: then lines count from 0.
    """

    file: str
    names: list[str]
    colors: list[Color] | None
    labels: list[int] | None


@dataclass
class _Line:
    label: int | None
    name: str
    color: Color | None


def read_class_file(folder: DataFolder) -> ClassFile | None:
    """The file with classes that is nearest to the data's folder, or the first in `CLASS_FILES` of several; or None.

    A line is a name; a label and a name; a name and red, green, blue; or these before the name. Spaces, tabs, commas,
    semicolons, colons or equals signs separate. Empty lines, those that begin with # and a heading do not count.
    LabelMe's first line ``__ignore__`` means the label -1, which no file has.

    Raises:
        UserError: lines are not alike, a label is above 255, or a name, label or color is there twice.
    """
    files = [file for file in folder.files if posixpath.basename(file) in CLASS_FILES]
    if not files:
        return None
    file = min(files, key=lambda file: (file.count('/'), CLASS_FILES.index(posixpath.basename(file))))
    path, lines = folder.full_path(file), _lines(folder, file)
    for other in files:
        if posixpath.basename(other) == posixpath.basename(file) and _lines(folder, other) != lines:
            raise UserError(f'{path} and {folder.full_path(other)} differ: leave one, which is for all label maps')
    if lines and _is_heading(lines[0], file):
        del lines[0]
    rows = [_parse(line) for line in lines]
    if rows and rows[0] == _Line(None, '__ignore__', None):
        del rows[0]
    colors = [row.color for row in rows if row.color]
    labels = [row.label for row in rows if row.label is not None]
    if not {row.name.lower() for row in rows} - IGNORED - {''} or len(colors) not in (0, len(rows)):
        raise UserError(f'{path} needs a line for each class: a name, or a name and its color as in "road 128 64 128"')
    if len(labels) not in (0, len(rows)) or max(labels, default=0) > 255:
        raise UserError(
            f'{path} has a number on {len(labels)} of its {len(rows)} lines, up to {max(labels)}: give each line its '
            'label, from 0 to 255, as in "1 road", or none'
        )
    counted = [row.name for row in rows if row.name.lower() not in IGNORED]
    twice = [value for values in (counted, colors, labels) for value in values if values.count(value) > 1]
    if twice:
        raise UserError(f'{path} has {twice[0]} twice: names, colors and labels of classes must differ')
    return ClassFile(path, [row.name for row in rows], colors or None, labels or None)


def _lines(folder: DataFolder, file: str) -> list[str]:
    try:
        text = folder.read_text(file)
    except UnusableError as error:
        raise UserError(f'{folder.full_path(file)} {error}') from error
    return [line.strip() for line in text.splitlines() if line.strip() and line.strip()[0] != '#']


def _words(line: str) -> list[str]:
    numbered = re.sub(r'^(\d+)[.)]\s', r'\1 ', line.strip(' \t,;:='))
    return [word.strip('"\'') for word in re.split(r'[,;:=\s]+', numbered)]


def _is_heading(line: str, file: str) -> bool:
    words = [part for word in _words(line.lower()) for part in word.split('_')]
    return HEADER_WORDS.issuperset(words) and (len(words) > 1 or file.endswith('.csv'))


def _parse(line: str) -> _Line:
    """Numbers before the name are its label, its color, or both; after it, its color."""
    words = _words(line)
    places = [place for place, word in enumerate(words) if not word.isdecimal()]
    if not places:  # the name is a number, too
        places = [1 if len(words) in (2, 5) else 0]
    start, end = places[0], places[-1] + 1
    before, name, after = words[:start], words[start:end], words[end:]
    color = None
    if _is_color(after[-3:]):
        color, name, after = after[-3:], name + after[:-3], []
    elif _is_color(before[-3:]):
        color, before = before[-3:], before[:-3]
    if len(after) == 1 and not before and re.search(r'[,;:=\t]\s*"?\d+"?$', line):  # a column, not part of the name
        before, after = after, []
    name = [*before[1:], *name, *after]
    return _Line(int(before[0]) if before else None, ' '.join(name), tuple(map(int, color)) if color else None)


def _is_color(words: list[str]) -> bool:
    return len(words) == 3 and all(int(word) < 256 for word in words)
