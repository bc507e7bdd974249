"""Pictures with label maps: a class for each pixel, as an index or as a colour."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from ..data.parallel import in_threads
from ..data.picture_files import labels_in, picture_size
from ..engine.storage import write_atomically
from ..errors import UserError
from .class_names import IGNORED, ClassFile, default_palette, read_class_file
from .content import Colour, Kind, LabelMaps, Problem, Value
from .folder import DataFolder, named_splits, split_of, stem

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

UNUSED = 255
"""The label of pixels that do not count: in label maps as they come, and in those that are written."""

MOST_CLASSES = 200
"""Without a file with the classes, labels from here on are taken for grey values: of the data sets that are published
with an index a pixel, COCO-Stuff has the most, 182."""

FAR_APART = 25
"""Without a file with the classes, labels that lie so far apart in the median are shades of grey, for people to see:
numbers of classes lie close together, even where some classes do not occur."""

COLOURS = 'RGB colours'


@dataclass(slots=True)
class _Map:
    """What is in a label map.

    Attributes:
        mode: Pillow's: 'P' has a palette, 'RGB' colours, all others have labels.
        values: the labels or colours in it.
        palette: of each label in it its colour, where the file has a palette.
        fits: whether MMSegmentation reads the labels as they are.
        problem: what is wrong with it, or with its picture.
    """

    mode: str = ''
    values: set[Value] = field(default_factory=set)
    palette: dict[int, Colour] = field(default_factory=dict)
    fits: bool = False
    problem: Problem | None = None


_Maps = dict[tuple[str, str], _Map]


@dataclass(slots=True)
class _Row:
    """A value of pixels, and what it means; ``colour`` None is any."""

    value: Value
    name: str
    colour: Colour | None = None


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
    maps = dict(zip(items, in_threads(lambda pair: _read(folder, *pair), items, 'reading label maps')))
    problems = problems + [found.problem for found in maps.values() if found.problem]
    maps = {pair: found for pair, found in maps.items() if not found.problem}
    layout, rows = _rows(folder, names, maps, ignored)
    problems += _check_notation(folder, layout, names, rows, maps)
    data = _numbered(folder, layout, rows, maps, ignored)
    if ignored is not None and not any(ignored in found.values for found in maps.values()):
        what = f'--ignore-label {ignored} changes nothing: no label map has the label {ignored}'
        problems.append(Problem(str(folder.root), what, Kind.NEVER_THERE))
    splits = {_split(pair): [] for pair in items}
    counts = {split: Counter() for split in splits}
    for pair, found in maps.items():
        values = _values(found, layout)
        strange = values - data.labels.keys()
        if strange:
            problems.append(Problem(folder.shown(pair[1]), _strange(data, names, strange), Kind.UNKNOWN_LABEL))
        else:
            splits[_split(pair)].append(tuple(folder.root / file for file in pair))
            counts[_split(pair)].update({data.labels[value] for value in values})
    class_counts = {split: [found[label] for label in range(len(data.classes))] for split, found in counts.items()}
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
    folder, key = Path(folder), Path(folder, 'label_maps.json')
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
                image = _without_alpha(image)
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


def _read(folder: DataFolder, picture: str, label: str) -> _Map:
    size = picture_size(folder.shown(picture))
    if isinstance(size, str):
        return _Map(problem=Problem(folder.shown(picture), size, Kind.UNREADABLE))
    try:
        with Image.open(folder.shown(label)) as image:
            if image.size != size:
                what = 'has {}x{} pixels, its picture {} {}x{}'.format(*image.size, folder.shown(picture), *size)
                return _Map(problem=Problem(folder.shown(label), what, Kind.WRONG_SIZE))
            found = _content(image)
    except UserError as error:
        return _Map(problem=Problem(folder.shown(label), str(error), Kind.NOTATION))
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        return _Map(problem=Problem(folder.shown(label), f'cannot be read ({error})', Kind.UNREADABLE))
    above = sorted(value for value in found.values if isinstance(value, int) and value > UNUSED)
    if above:
        what = f'has the labels {_few(above)}: labels are 0 to 254, and 255 where a pixel does not count'
        return _Map(problem=Problem(folder.shown(label), what, Kind.UNKNOWN_LABEL))
    return found


def _content(image: Image.Image) -> _Map:
    """What is in a file that was opened.

    Raises:
        UserError: it is no label map.
    """
    fits = image.mode in ('L', 'P')
    image = _without_alpha(image)
    if image.mode == 'P':
        labels, palette = labels_in(image), image.getpalette('RGB')
        if 3 * max(labels) + 3 > len(palette):
            raise UserError(f'has the label {max(labels)}, but its palette only {len(palette) // 3} colours')
        return _Map('P', labels, {label: tuple(palette[3 * label : 3 * label + 3]) for label in labels}, fits)
    if image.mode != 'RGB':
        # As PNG has it, 1 in files of one bit is white, the 255 of eight bits.
        return _Map(image.mode, labels_in(image.convert('L') if image.mode == '1' else image), fits=fits)
    colours = image.getcolors(1 << 12)
    if colours is None:
        raise UserError(f'has more than {1 << 12} colours, as no label map has{BLENDED}')
    return _Map('RGB', {colour for _, colour in colours})


BLENDED = (
    ': values between those of classes come of JPEG, and of resizing that is not by the nearest neighbour; '
    'export the label maps anew as PNG, and resize them by the nearest neighbour'
)


def _without_alpha(image: Image.Image) -> Image.Image:
    """The image as it is, or, where it has an alpha channel, on black: nobody sees which colour an eraser left.

    Raises:
        UserError: a pixel is half transparent.
    """
    if image.mode not in ('LA', 'PA', 'RGBA'):
        return image
    alpha = image.getchannel('A')
    if any(alpha.histogram()[1:255]):
        raise UserError('has pixels that are half transparent, as soft brushes make: save it without transparency')
    opaque = image.convert('L' if image.mode == 'LA' else 'RGB')
    on_black = Image.new(opaque.mode, image.size)
    on_black.paste(opaque, mask=alpha)
    return on_black


def _values(found: _Map, layout: str) -> set[Value]:
    """The values in a label map in the notation that all are read in."""
    if layout != COLOURS or found.mode == 'RGB':
        return found.values
    return set(found.palette.values()) if found.mode == 'P' else {(label,) * 3 for label in found.values}


def _rows(folder: DataFolder, names: ClassFile | None, maps: _Maps, ignored: int | None) -> tuple[str, list[_Row]]:
    """The layout, and what each value of a pixel means, in the order of the classes."""
    modes = Counter(found.mode for found in maps.values())
    labels = {label for found in maps.values() if found.mode != 'RGB' for label in found.values}
    if modes['RGB'] or (names and names.colours and (modes['P'] or _are_greys(labels, names))):
        if not names or not names.colours:
            raise UserError(
                f'{modes["RGB"]} of the {len(maps)} label maps in {folder.root} are RGB, such as '
                f'{_example(folder, maps, lambda found: found.mode == "RGB")}: write a file classes.txt there with a '
                'name and its colour a line, as in "road 128 64 128"'
            )
        return COLOURS, [_Row(colour, name, colour) for name, colour in zip(names.names, names.colours)]
    palette = _palette(folder, maps)
    rows = _named_rows(folder, names, labels) if names else _unnamed_rows(folder, labels - {ignored}, bool(palette))
    rows = [replace(row, colour=row.colour or palette.get(row.value)) for row in rows]
    return 'palette PNGs' if modes['P'] else 'index PNGs', rows


def _are_greys(labels: set[int], names: ClassFile) -> bool:
    """Whether the values in files without colours are grey colours of the file with the classes, and no labels."""
    indices = names.labels or range(len(names.names))
    return not labels <= {*indices} and {(label,) * 3 for label in labels} <= {*names.colours}


def _named_rows(folder: DataFolder, names: ClassFile, labels: set[int]) -> list[_Row]:
    count = len(names.names)
    colours = names.colours or [None] * count
    rows = sorted(map(_Row, names.labels or range(count), names.names, colours), key=lambda row: row.value)
    if 255 in labels <= {0, 255} and rows[-1].value == count - 1:
        if count > 2:
            raise UserError(
                f'{names.file} names {count} classes, but the label maps in {folder.root} are black and white, 0 and '
                '255: name the class of 255 there, or those of 0 and 255'
            )
        background = [_Row(0, 'background')] if count == 1 else rows[:1]
        return [*background, replace(rows[-1], value=255)]
    return rows


def _unnamed_rows(folder: DataFolder, labels: set[int], palette: bool) -> list[_Row]:
    counted = sorted({0, *labels} - {UNUSED})
    if not palette and (255 in labels <= {0, 255} or counted[-1] >= MOST_CLASSES):
        return [_Row(0, 'background'), _Row(255, 'foreground')]
    if not palette and len(counted) > 1 and median(np.diff(counted)) >= FAR_APART:
        raise UserError(
            f'the label maps in {folder.root} have the values {_few(sorted(labels))}, so far apart as shades of grey '
            'are and numbers of classes are not: write a file classes.txt there with a value and its class a line, as '
            f'in "{counted[1]} road"'
        )
    return [_Row(label, f'class {label}') for label in range(counted[-1] + 1)]


def _numbered(folder: DataFolder, layout: str, rows: list[_Row], maps: _Maps, ignored: int | None) -> LabelMaps:
    """Classes are numbered afresh, in the order of the rows, without those that do not count."""
    if ignored is not None and layout == COLOURS:
        raise UserError(
            f'--ignore-label {ignored} is for labels, and the label maps in {folder.root} have colours: name the '
            'colour void in the file with the classes'
        )
    counted = [row for row in rows if row.name.lower() not in IGNORED and row.value != ignored]
    if not 0 < len(counted) <= UNUSED:
        raise UserError(
            f'{folder.root} has {len(counted)} classes of pixels, and label maps of 8 bits hold 1 to {UNUSED}, since '
            f'{UNUSED} is the label of what does not count: leave some of them out'
        )
    labels: dict[Value, int] = {} if layout == COLOURS else {UNUSED: UNUSED}
    labels |= {row.value: UNUSED for row in rows}
    if ignored is not None:
        labels[ignored] = UNUSED
    labels |= {row.value: number for number, row in enumerate(counted)}
    palette = [row.colour or colour for row, colour in zip(counted, default_palette(len(counted)))]
    same = layout != COLOURS and all(value == label for value, label in labels.items())
    fits = same and all(found.fits for found in maps.values())
    return LabelMaps(layout, folder.root, {}, [row.name for row in counted], palette, labels, fits)


def _check_notation(
    folder: DataFolder, layout: str, names: ClassFile | None, rows: list[_Row], maps: _Maps
) -> Iterator[Problem]:
    """Label maps of two notations, which cannot be read by one rule; and numbers that no class has."""
    values = {row.value for row in rows}

    def is_other(found: _Map) -> bool:
        if layout == COLOURS:
            return found.mode not in ('P', 'RGB') and not _values(found, layout) <= values
        return found.values == {0, 255}

    others = {pair: found for pair, found in maps.items() if is_other(found)}
    rest = {pair: found for pair, found in maps.items() if pair not in others}
    kinds = ('labels', 'colours') if layout == COLOURS else ('the values 0 and 255 alone', 'labels such as 1')
    # Where 255 is what does not count, it stands beside other labels, too.
    mixed = layout == COLOURS or (
        255 not in values
        and any(not found.values <= {0, 255} for found in rest.values())
        and not any(255 in found.values and len(found.values) > 1 for found in rest.values())
    )
    if others and rest and mixed:
        shown = [f'{len(part)} have {kind} ({_example(folder, part)})' for part, kind in zip((others, rest), kinds)]
        what = (
            f'the label maps are in two notations, {" and ".join(shown)}: write all of them in one, or a classes.txt '
            'with a line for each value, as in "255 void"'
        )
        yield Problem(str(folder.root), what, Kind.NOTATION)
    if layout != COLOURS and not names:
        there = {label for found in maps.values() for label in found.values}
        never = [row.value for row in rows if row.value not in there]
        if there and never and max(values) < UNUSED:
            what = (
                f'no label map has the labels {_ranges(never)}, others have up to {max(values)}: all are classes, '
                f'unless a classes.txt says which are; --ignore-label {max(values)} where that is none'
            )
            yield Problem(str(folder.root), what, Kind.NEVER_THERE)


def _example(folder: DataFolder, maps: _Maps, chosen: Callable[[_Map], bool] = bool) -> str:
    return next(folder.shown(label) for (_, label), found in maps.items() if chosen(found))


def _palette(folder: DataFolder, maps: _Maps) -> dict[int, Colour]:
    """The colours of all palettes together."""
    palette: dict[int, Colour] = {}
    for (_, label), found in maps.items():
        for index, colour in found.palette.items():
            if palette.setdefault(index, colour) != colour:
                raise UserError(
                    f'{folder.shown(label)} has the colour {colour} for the label {index}, other label maps '
                    f'{palette[index]}: write a file classes.txt in {folder.root} with a name and its colour a line, '
                    'as in "road 128 64 128"'
                )
    return palette


def _strange(data: LabelMaps, names: ClassFile | None, strange: set[Value]) -> str:
    """What is wrong with a label map that has these values, which mean nothing."""
    cause = BLENDED if len(strange) > 8 else ''
    if data.layout == COLOURS:
        return f'has the colours {_few(sorted(strange))}, which are no class{cause}'
    ignored = [value for value, label in data.labels.items() if label == UNUSED]
    if names and not cause:
        line = f', as in "{min(strange)} void"' if names.labels else ''
        cause = f': give each a line in {names.file}{line}, or train with --ignore-label {max(strange)}'
    return (
        f'has the labels {_few(sorted(strange))}, but {_ranges(data.labels.keys() - {*ignored})} are classes, '
        f'{_ranges(ignored) or "none"} ignored{cause}'
    )


def _few(values: Sequence[Value]) -> str:
    return ', '.join(map(str, values[:5])) + (', …' if len(values) > 5 else '')


def _ranges(labels: Iterable[int]) -> str:
    """'0 to 4, 7'"""
    runs: list[list[int]] = []
    for label in sorted(labels):
        if runs and label == runs[-1][-1] + 1:
            runs[-1].append(label)
        else:
            runs.append([label])
    return ', '.join(f'{run[0]} to {run[-1]}' if len(run) > 1 else str(run[0]) for run in runs)
