"""Pictures with label maps: a class for each pixel, as an index or as a colour."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.parallel import in_threads
from ..engine.storage import write_atomically
from ..errors import UserError
from .class_names import read_class_file
from .content import Kind, LabelMaps, Problem
from .folder import DataFolder, named_splits, split_of, stem
from .label_values import (
    COLOURS,
    UNUSED,
    check_notation,
    meanings,
    number_classes,
    read_content,
    strange_values,
    values_in,
    without_alpha,
)

LABEL_WORD = re.compile(
    'label(l?ed|maps?|ids|trainids|edapproved)?s?|masks?|(train|val|test)?annot|ann(otation)?s?|gt(fine)?|groundtruth|'
    'seg(mentations?|mentationclass)?|l'
)
"""A word in the name of a folder of label maps, or the end of the name of a label map beside its picture."""

PICTURE_WORD = re.compile('(jpeg)?(image|img|picture|photo)s?|leftimg8bit|rgb')
"""A word in the name of a folder of pictures."""

PICTURE_ENDS = ('_leftImg8bit', '_image', '_img', '_rgb', '_sat')
"""Ends of the names of pictures, which their label maps do not have."""

PREFERRED_ENDS = ('labeltrainids', 'labelids')
"""Ends of the label maps to take, the first first, where pictures have several, as in Cityscapes."""

TABLE = 'label_maps.json'
"""Beside label maps that `write_label_maps` wrote: which values became which labels."""


def find_label_maps(folder: DataFolder) -> tuple[dict[str, str], list[Problem]]:
    """The label map of each picture that has one, and what is wrong with the others.

    Label maps are in folders named so, or beside their pictures; they have their pictures' names, with an ending that
    all have or without. Pictures count in the folders in which some have label maps.

    Raises:
        UserError: pictures have several label maps each.
    """
    labels = [file for file in folder.pictures if _is_label_map(file)]
    by_stem = defaultdict(list)
    for picture in folder.pictures:
        if not _is_label_map(picture):
            by_stem[_without_end(stem(picture), PICTURE_ENDS)].append(picture)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    alone = []
    for label in labels:
        name, end = _picture_stem(stem(label), by_stem)
        picture = _nearest(label, by_stem.get(name, ()))
        if picture is None:
            alone.append(label)
        elif end in found[picture]:
            raise UserError(
                f'{folder.root} has two label maps for {picture}, {found[picture][end]} and {label}: leave one'
            )
        else:
            found[picture][end] = label
    end = _one_end(folder, found)
    pairs = {picture: ends[end] for picture, ends in found.items() if end in ends}
    return pairs, _unpaired(folder, pairs, alone) if pairs else []


def read_label_maps(
    folder: DataFolder, pairs: dict[str, str], problems: list[Problem], ignored: int | None = None
) -> LabelMaps:
    """Read label maps, all of them.

    Names come from one of `class_names.CLASS_FILES`: of labels in their order, of the labels that it gives, or of
    colours. Without one, labels up to the largest are classes. 255 does not count, nor does what the file calls void or
    alike. Maps of 0 and 255 alone are background and foreground. The indices of palettes count unless the file has
    colours.

    Args:
        folder: where the pictures are.
        pairs: pictures with their label maps, as from `find_label_maps`.
        problems: what was found wrong so far.
        ignored: a label more that does not count.

    Raises:
        UserError: nothing says which values are which classes; or palettes contradict each other.
    """
    names = read_class_file(folder)
    lossy = [label for label in pairs.values() if not label.lower().endswith('.png')]
    if lossy:
        raise UserError(
            f'{folder.shown(lossy[0])} is not PNG ({len(lossy)} of {len(pairs)} label maps are not): save label maps '
            'as PNG, which keeps each pixel'
        )
    items = sorted(pairs.items())
    maps = dict(zip(items, in_threads(lambda pair: read_content(folder, *pair), items, 'reading label maps')))
    problems = problems + [content.problem for content in maps.values() if content.problem]
    maps = {pair: content for pair, content in maps.items() if not content.problem}
    layout, rows = meanings(folder, names, maps, ignored)
    problems += check_notation(folder, layout, names, rows, maps)
    data = number_classes(folder, layout, rows, maps, ignored)
    if ignored is not None and not any(ignored in content.values for content in maps.values()):
        what = f'--ignore-label {ignored} changes nothing: no label map has the label {ignored}'
        problems.append(Problem(str(folder.root), what, Kind.NEVER_THERE))
    splits = {_split(pair): [] for pair in items}
    counts = {split: Counter() for split in splits}
    for pair, content in maps.items():
        values = values_in(content, layout)
        strange = values - data.labels.keys()
        if strange:
            problems.append(Problem(folder.shown(pair[1]), strange_values(data, names, strange), Kind.UNKNOWN_LABEL))
        else:
            splits[_split(pair)].append(tuple(folder.root / file for file in pair))
            counts[_split(pair)].update({data.labels[value] for value in values})
    class_counts = {split: [count[label] for label in range(len(data.classes))] for split, count in counts.items()}
    splits, class_counts = named_splits(folder, splits), named_splits(folder, class_counts)
    return replace(data, splits=splits, class_counts=class_counts, problems=problems)


def write_label_maps(data: LabelMaps, folder: str | Path) -> LabelMaps:
    """Label maps in which pixels are the numbers of classes, and 255 where they do not count, in 8 bits.

    Those that are so already stay where they are. What was written before is written again only where a label map or
    the classes changed since.

    Args:
        data: as read.
        folder: to write to; files are named as the label maps are.

    Returns:
        The same data with index PNGs.
    """
    if data.fits:
        return data
    folder, key = Path(folder), Path(folder, TABLE)
    description = json.dumps([str(data.root.resolve()), *data.labels.items()]).encode()
    fresh = key.is_file() and key.read_bytes() == description
    if not fresh:
        key.unlink(missing_ok=True)
    table = np.full(1 << 24 if data.layout == COLOURS else 1 << 8, UNUSED, np.uint8)
    for value, label in data.labels.items():
        table[value if isinstance(value, int) else value[0] << 16 | value[1] << 8 | value[2]] = label

    def write(source: Path) -> Path:
        target, changed = folder / source.relative_to(data.root), source.stat().st_mtime_ns
        if not (fresh and target.is_file() and target.stat().st_mtime_ns == changed):
            with Image.open(source) as image:
                image = without_alpha(image)
                if data.layout == COLOURS:
                    red, green, blue = np.moveaxis(np.asarray(image.convert('RGB')).astype(np.uint32), -1, 0)
                    values = red << 16 | green << 8 | blue
                else:
                    values = np.asarray(image.convert('L') if image.mode == '1' else image)
            content = BytesIO()
            Image.fromarray(table[values]).save(content, 'png')
            write_atomically(target, content.getvalue())
            os.utime(target, ns=(changed, changed))
        return target

    splits = {}
    for split, pairs in data.splits.items():
        written = in_threads(write, [label for _, label in pairs], f'writing label maps of {split}')
        splits[split] = [(picture, label) for (picture, _), label in zip(pairs, written)]
    write_atomically(key, description)
    labels = {label: label for label in data.labels.values()}
    return replace(data, layout='index PNGs', splits=splits, labels=labels, fits=True)


def _has_word(name: str, word: re.Pattern) -> bool:
    return any(map(word.fullmatch, re.findall('[a-z0-9]+', name.lower())))


def _is_label_map(file: str) -> bool:
    """By the last folder that says what it has, or else by the end of the name."""
    for part in reversed(posixpath.dirname(file).split('/')):
        if _has_word(part, LABEL_WORD):
            return True
        if _has_word(part, PICTURE_WORD):
            return False
    _, *end = re.split('[_.-]', stem(file).lower())
    return bool(end and LABEL_WORD.fullmatch(end[-1]))


def _without_end(name: str, ends: Iterable[str]) -> str:
    return next((name[: -len(end)] for end in ends if name.endswith(end)), name)


def _picture_stem(name: str, stems: dict[str, list[str]]) -> tuple[str, str]:
    """A label map's name as that of its picture and an ending, which begins with _, - or . or is empty."""
    for place in (len(name), *sorted((match.start() for match in re.finditer('[_.-]', name)), reverse=True)):
        if name[:place] in stems:
            return name[:place], name[place:]
    return name, ''


def _nearest(label: str, pictures: Sequence[str]) -> str | None:
    """Of pictures of one name that in the label map's split, in a folder of pictures, with the most folders alike."""

    def likeness(picture: str) -> tuple[bool, bool, int]:
        mine, other = posixpath.dirname(label), posixpath.dirname(picture)
        common = len(set(mine.split('/')) & set(other.split('/')))
        return split_of(mine) == split_of(other), _has_word(other, PICTURE_WORD), common

    best = sorted(pictures, key=likeness)[-2:]
    return best[-1] if len(best) == 1 or (best and likeness(best[0]) < likeness(best[1])) else None


def _one_end(folder: DataFolder, found: dict[str, dict[str, str]]) -> str:
    """The ending of the label maps to take."""
    counts = Counter(end for ends in found.values() for end in ends)
    for preferred in PREFERRED_ENDS:
        for end in counts:
            if end.lower().endswith(preferred):
                return end
    several = [ends for ends in found.values() if len(ends) > 1]
    if several:
        raise UserError(
            f'{folder.root} has several label maps for {len(several)} pictures ({", ".join(several[0].values())}): '
            'leave one for each'
        )
    return max(counts, key=counts.get) if counts else ''


def _split(pair: tuple[str, str]) -> str:
    """The split that the folder of a picture says, or that of its label map."""
    picture, label = map(posixpath.dirname, pair)
    return split_of(picture) or split_of(label) or 'train'


def _unpaired(folder: DataFolder, pairs: dict[str, str], alone: list[str]) -> list[Problem]:
    places = {posixpath.dirname(picture) for picture in pairs}
    without = [
        picture
        for picture in folder.pictures
        if posixpath.dirname(picture) in places and picture not in pairs and not _is_label_map(picture)
    ]
    return [
        *(Problem(folder.shown(picture), 'has no label map', Kind.MISSING_LABELS) for picture in without),
        *(Problem(folder.shown(label), 'is the label map of no picture', Kind.MISSING_PICTURE) for label in alone),
    ]
