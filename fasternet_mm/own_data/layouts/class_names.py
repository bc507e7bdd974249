"""Files with the names, and maybe the colors, of the classes of label maps."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from ...errors import UserError
from .content import Color
from .data_folder import DataFolder

CLASS_FILES = ('classes.txt', 'label_colors.txt', 'class_dict.csv', 'labelmap.txt', '_classes.csv', 'class_names.txt')
"""Ours, CamVid's, its copies', CVAT's, Roboflow's, LabelMe's."""

IGNORED = frozenset(('void', 'ignore', 'ignored', 'unlabelled', 'unlabeled', '__ignore__'))
"""Names of what is no class: its pixels do not count."""

HEADER_WORDS = frozenset(
    ('class', 'classes', 'colour', 'color', 'id', 'index', 'label', 'name', 'names', 'number', 'pixel', 'value')
    + ('r', 'g', 'b', 'red', 'green', 'blue')
)
"""A first line of such words alone says what the columns are."""


@dataclass
class ClassFile:
    """The lines of a file, in its order.

    Attributes:
        file: as the user would find it.
        names: the text of each line.
        colors: of each line, or None where the file has none.
        labels: the number of each line, or None where the file has none: then lines count from 0.
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
    """The first of `CLASS_FILES` that is there, the highest up; None where there is none.

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
    shown, lines = folder.shown(file), _lines(folder, file)
    for other in files:
        if posixpath.basename(other) == posixpath.basename(file) and _lines(folder, other) != lines:
            raise UserError(f'{shown} and {folder.shown(other)} differ: leave one, which is for all label maps')
    if lines and _is_heading(lines[0], file):
        del lines[0]
    rows = [_parse(line) for line in lines]
    if rows and rows[0] == _Line(None, '__ignore__', None):
        del rows[0]
    colors = [row.color for row in rows if row.color]
    labels = [row.label for row in rows if row.label is not None]
    if not {row.name.lower() for row in rows} - IGNORED - {''} or len(colors) not in (0, len(rows)):
        raise UserError(f'{shown} needs a line for each class: a name, or a name and its color as in "road 128 64 128"')
    if len(labels) not in (0, len(rows)) or max(labels, default=0) > 255:
        raise UserError(
            f'{shown} has a number on {len(labels)} of its {len(rows)} lines, up to {max(labels)}: give each line its '
            'label, from 0 to 255, as in "1 road", or none'
        )
    counted = [row.name for row in rows if row.name.lower() not in IGNORED]
    twice = [value for values in (counted, colors, labels) for value in values if values.count(value) > 1]
    if twice:
        raise UserError(f'{shown} has {twice[0]} twice: names, colors and labels of classes must differ')
    return ClassFile(shown, [row.name for row in rows], colors or None, labels or None)


def _lines(folder: DataFolder, file: str) -> list[str]:
    try:
        text = (folder.root / file).read_text('utf-8-sig')
    except (OSError, ValueError) as error:
        raise UserError(f'{folder.shown(file)} is not a text file that can be read ({error})') from error
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
    text = [place for place, word in enumerate(words) if not word.isdecimal()]
    if not text:  # the name is a number, too
        text = [int(len(words) in (2, 5))]
    before, name, after = words[: text[0]], words[text[0] : text[-1] + 1], words[text[-1] + 1 :]
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
