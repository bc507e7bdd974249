"""Pictures with label maps: a class for each pixel, as an index or as a colour."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.parallel import in_threads
from ..data.picture_files import ONE_CHANNEL, labels_in, picture_size
from ..engine.storage import write_atomically
from ..errors import UserError
from .class_names import IGNORED, ClassFile, default_palette, read_class_file
from .content import Colour, Kind, LabelMaps, Problem
from .folder import DataFolder, named_splits, stem
from .folder_words import file_kind, folder_kind, split_of
from .image_sets import OF_LABEL_MAPS, split_by_lists
from .matching import FileIndex, Wanted, composed, is_likely

PICTURE_ENDS = ('_leftImg8bit', '_image', '_img', '_rgb', '_sat')
"""Ends of the names of pictures, which their label maps do not have."""

PREFERRED_ENDS = ('labeltrainids', 'labelids')
"""Ends of the label maps to take, the first first, where pictures have several, as in Cityscapes."""

UNUSED = 255
"""The label of pixels that do not count, unless a file with the classes says otherwise."""

COLOURS = 'RGB colours'
BLACK_AND_WHITE = ((0, 0, 0), (255, 255, 255))


@dataclass(slots=True)
class _Map:
    """What is in a label map.

    Attributes:
        mode: 'index', 'palette' or 'colour'; '' where it cannot be read.
        labels: the indices in it.
        colours: the colours in it, of a palette by index.
        problem: what is wrong with it, or with its picture.
    """

    mode: str = ''
    labels: set[int] = field(default_factory=set)
    colours: dict[int, Colour] | set[Colour] = field(default_factory=set)
    problem: Problem | None = None


def find_label_maps(folder: DataFolder, problems: list[Problem]) -> dict[tuple[str, str], str]:
    """Pictures with their label maps, and the split of each pair.

    Label maps are in folders named so, or beside their pictures; they have their pictures' names, with an ending that
    all have or without, and the same folders below those of pictures and label maps. Pictures count in the folders in
    which some have label maps. ``ImageSets/Segmentation`` says what is train, val and test, or else the folders' names
    do, of pictures before those of label maps.

    Args:
        folder: with the data.
        problems: to add to: what is wrong with other pictures and label maps.

    Raises:
        UserError: pictures have several label maps each, or a label map fits two pictures equally well.
    """
    labels = [file for file in folder.pictures if _is_label_map(file)]
    pictures = [file for file in folder.pictures if not _is_label_map(file) and is_likely(posixpath.dirname(file))]
    stems = {_picture_name(picture) for picture in pictures}
    names = {label: _picture_stem(composed(stem(label)), stems) for label in labels}
    wanted = [
        Wanted(posixpath.join(posixpath.dirname(label), name), label, split_of(posixpath.dirname(label)))
        for label, (name, _) in names.items()
    ]
    by_picture: dict[str, dict[str, str]] = defaultdict(dict)
    alone = []
    for label, picture in zip(labels, FileIndex(pictures, _picture_name).match(wanted)):
        end = names[label][1]
        if picture is None:
            alone.append(label)
        elif end in by_picture[picture]:
            raise UserError(
                f'{folder.root} has two label maps for {picture}, {by_picture[picture][end]} and {label}: leave one'
            )
        else:
            by_picture[picture][end] = label
    end = _one_end(folder, by_picture)
    pairs = {picture: ends[end] for picture, ends in by_picture.items() if end in ends}
    if not pairs:
        return {}
    places = {posixpath.dirname(picture) for picture in pairs}
    pictures = [picture for picture in pictures if posixpath.dirname(picture) in places]
    splits = _splits(folder, pictures, pairs, problems)
    problems += [
        Problem(folder.shown(picture), 'has no label map', Kind.MISSING_LABELS)
        for picture in splits
        if picture not in pairs
    ]
    problems += [
        Problem(folder.shown(label), 'is the label map of no picture', Kind.MISSING_PICTURE) for label in alone
    ]
    return {(picture, pairs[picture]): split for picture, split in splits.items() if picture in pairs}


def read_label_maps(folder: DataFolder, pairs: dict[tuple[str, str], str], problems: list[Problem]) -> LabelMaps:
    """Read label maps, all of them.

    Names come from a file ``classes.txt``, ``label_colors.txt`` or ``class_dict.csv``: names in the order of their
    labels, or a name and its colour a line. Without one, labels up to the largest are classes. 255 is ignored, and
    so is what the file calls void or alike: any colour, and of indices the last. Maps of 0 and 255 alone are taken for
    black and white: background and foreground. The indices of palettes count unless the file has colours.

    Args:
        folder: where the pictures are.
        pairs: pictures with their label maps, and their splits, as from `find_label_maps`.
        problems: to add to.

    Raises:
        UserError: label maps have colours, but no file says which class they are; or palettes contradict each other.
    """
    names = read_class_file(folder)
    lossy = [label for _, label in pairs if not label.lower().endswith('.png')]
    if lossy:
        raise UserError(
            f'{folder.shown(lossy[0])} is not PNG ({len(lossy)} of {len(pairs)} label maps are not): save label maps '
            'as PNG, which keeps each pixel'
        )
    items = sorted(pairs)
    maps = dict(zip(items, in_threads(lambda pair: _read(folder, *pair), items, 'reading label maps')))
    problems += [found.problem for found in maps.values() if found.problem]
    maps = {pair: found for pair, found in maps.items() if not found.problem}
    data = _described(folder, names, maps)
    classes = data.palette if data.layout == COLOURS else range(len(data.classes))
    allowed = {*classes, *(data.ignored_colours if data.layout == COLOURS else [data.ignored])}
    splits = {pairs[pair]: [] for pair in items}
    counts = {split: Counter() for split in splits}
    for pair, found in maps.items():
        values = found.colours if data.layout == COLOURS else found.labels
        if values <= allowed:
            splits[pairs[pair]].append(tuple(folder.root / file for file in pair))
            counts[pairs[pair]].update(values)
        else:
            problems.append(Problem(folder.shown(pair[1]), _strange(data, values - allowed), Kind.UNKNOWN_LABEL))
    class_counts = {split: [found[value] for value in classes] for split, found in counts.items()}
    splits, class_counts = named_splits(folder, splits), named_splits(folder, class_counts)
    return replace(data, splits=splits, class_counts=class_counts, problems=problems)


def write_label_maps(data: LabelMaps, folder: str | Path) -> LabelMaps:
    """Label maps in which pixels are the numbers of classes: those of colours are written so, others are as they are.

    What was written before is written again only where a label map or the classes changed since.

    Args:
        data: as read.
        folder: to write to; files are named as the label maps are.

    Returns:
        The same data with index PNGs.
    """
    if data.layout != COLOURS:
        return data
    folder, key = Path(folder), Path(folder, 'colours.json')
    colours = [[*zip(data.palette, range(len(data.palette)))], [(colour, UNUSED) for colour in data.ignored_colours]]
    description = json.dumps(colours).encode()
    fresh = key.is_file() and key.read_bytes() == description
    if not fresh:
        key.unlink(missing_ok=True)
    table = np.full(1 << 24, UNUSED, np.uint8)
    for (red, green, blue), label in (*colours[0], *colours[1]):
        table[red << 16 | green << 8 | blue] = label

    def write(source: Path) -> Path:
        target, changed = folder / source.relative_to(data.root), source.stat().st_mtime_ns
        if not (fresh and target.is_file() and target.stat().st_mtime_ns == changed):
            with Image.open(source) as image:
                red, green, blue = np.moveaxis(np.asarray(image.convert('RGB')).astype(np.uint32), -1, 0)
            content = BytesIO()
            Image.fromarray(table[red << 16 | green << 8 | blue]).save(content, 'png')
            write_atomically(target, content.getvalue())
            os.utime(target, ns=(changed, changed))
        return target

    splits = {}
    for split, pairs in data.splits.items():
        written = in_threads(write, [label for _, label in pairs], f'writing label maps of {split}')
        splits[split] = [(picture, label) for (picture, _), label in zip(pairs, written)]
    write_atomically(key, description)
    return replace(data, layout='index PNGs', splits=splits, ignored_colours=[])


def _is_label_map(file: str) -> bool:
    """By the last folder that says what it has, or else by the end of the name."""
    return (folder_kind(posixpath.dirname(file)) or file_kind(stem(file))) == 'label'


def _picture_name(picture: str) -> str:
    return _without_end(composed(stem(picture)), PICTURE_ENDS)


def _without_end(name: str, ends: Iterable[str]) -> str:
    return next((name[: -len(end)] for end in ends if name.endswith(end)), name)


def _picture_stem(name: str, stems: Set[str]) -> tuple[str, str]:
    """A label map's name as that of its picture and an ending, which begins with _, - or . or is empty."""
    for place in (len(name), *sorted((match.start() for match in re.finditer('[_.-]', name)), reverse=True)):
        if name[:place] in stems:
            return name[:place], name[place:]
    return name, ''


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


def _splits(
    folder: DataFolder, pictures: Iterable[str], pairs: dict[str, str], problems: list[Problem]
) -> dict[str, str]:
    """The split of each picture that should have a label map: where there are lists, of those that they name."""
    lists = split_by_lists(folder, OF_LABEL_MAPS, pictures, pairs, problems)
    if lists:
        return {picture: split for split, listed in lists.items() for picture in listed}
    splits, contradictory = {}, []
    for picture in pictures:
        of_picture, of_label = (split_of(posixpath.dirname(file)) for file in (picture, pairs.get(picture, '')))
        splits[picture] = of_picture or of_label or 'train'
        if None not in (of_picture, of_label) and of_picture != of_label:
            contradictory.append(picture)
    if contradictory:
        what = (
            f'{len(contradictory)} label maps lie in a folder of another split than their pictures, which counts '
            f'(the first is {pairs[contradictory[0]]}, its picture {contradictory[0]})'
        )
        problems.append(Problem(str(folder.root), what, Kind.SPLITS_DIFFER))
    return splits


def _read(folder: DataFolder, picture: str, label: str) -> _Map:
    size = picture_size(folder.shown(picture))
    if isinstance(size, str):
        return _Map(problem=Problem(folder.shown(picture), size, Kind.UNREADABLE))
    try:
        with Image.open(folder.shown(label)) as image:
            if image.size != size:
                what = 'has {}x{} pixels, its picture {} {}x{}'.format(*image.size, folder.shown(picture), *size)
                return _Map(problem=Problem(folder.shown(label), what, Kind.WRONG_SIZE))
            if image.mode == 'P':
                labels, palette = labels_in(image), image.getpalette('RGB')
                return _Map('palette', labels, {i: tuple(palette[3 * i : 3 * i + 3]) for i in labels})
            if image.mode in ONE_CHANNEL:
                labels = labels_in(image)
                return _Map('index', {255 * label for label in labels} if image.mode == '1' else labels)
            colours = image.convert('RGB').getcolors(1 << 12)
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        return _Map(problem=Problem(folder.shown(label), f'cannot be read ({error})', Kind.UNREADABLE))
    if colours is None:
        what = 'has more than 4096 colours, as no label map has'
        return _Map(problem=Problem(folder.shown(label), what, Kind.UNKNOWN_LABEL))
    return _Map('colour', colours={colour for _, colour in colours})


def _described(folder: DataFolder, names: ClassFile | None, maps: dict[tuple[str, str], _Map]) -> LabelMaps:
    """Layout, classes and palette, from what is in the label maps and the file with the classes."""
    modes = Counter(found.mode for found in maps.values())
    labels = set().union(*(found.labels for found in maps.values()))
    if modes['colour'] or (modes['palette'] and names and names.colours):
        return _of_colours(folder, names, maps, modes)
    if not modes['palette'] and 255 in labels <= {0, 255}:
        for found in maps.values():
            found.colours = {BLACK_AND_WHITE[label > 0] for label in found.labels}
        two = ['background', *(names.names if names else ['foreground'])][-2:]
        return LabelMaps(COLOURS, folder.root, {}, two, list(BLACK_AND_WHITE))
    classes, ignored = (names.names, UNUSED) if names else ([], UNUSED)
    if names and classes[-1].lower() in IGNORED:
        classes, ignored = classes[:-1], len(classes) - 1
    if not names:
        classes = [f'class {label}' for label in range(max((v for v in labels if v < UNUSED), default=0) + 1)]
    palette = default_palette(len(classes))
    if names and names.colours:
        palette = names.colours[: len(classes)]
    elif modes['palette']:
        used = _palette(folder, maps)
        palette = [used.get(label, colour) for label, colour in enumerate(palette)]
    return LabelMaps('palette PNGs' if modes['palette'] else 'index PNGs', folder.root, {}, classes, palette, ignored)


def _of_colours(
    folder: DataFolder, names: ClassFile | None, maps: dict[tuple[str, str], _Map], modes: Counter
) -> LabelMaps:
    if not names or not names.colours:
        raise UserError(
            f'{modes["colour"]} of the {len(maps)} label maps in {folder.root} are RGB: write a file classes.txt there '
            'with a name and its colour a line, as in "road 128 64 128"'
        )
    for found in maps.values():
        if found.mode == 'palette':
            found.colours = set(found.colours.values())
        elif found.mode == 'index':
            found.colours = {(label, label, label) for label in found.labels}
    both = [*zip(names.names, names.colours)]
    counted = [(name, colour) for name, colour in both if name.lower() not in IGNORED]
    left_out = [colour for name, colour in both if name.lower() in IGNORED]
    classes, palette = ([*part] for part in zip(*counted))
    return LabelMaps(COLOURS, folder.root, {}, classes, palette, UNUSED, ignored_colours=left_out)


def _palette(folder: DataFolder, maps: dict[tuple[str, str], _Map]) -> dict[int, Colour]:
    """The colours of all palettes together."""
    palette: dict[int, Colour] = {}
    for (_, label), found in maps.items():
        for index, colour in found.colours.items() if found.mode == 'palette' else ():
            if palette.setdefault(index, colour) != colour:
                raise UserError(
                    f'{folder.shown(label)} has the colour {colour} for the label {index}, other label maps '
                    f'{palette[index]}: write a file classes.txt in {folder.root} with a name and its colour a line, '
                    'as in "road 128 64 128"'
                )
    return palette


def _strange(data: LabelMaps, strange: set) -> str:
    few = ', '.join(map(str, sorted(strange)[:5])) + (', …' if len(strange) > 5 else '')
    if data.layout == COLOURS:
        return f'has the colours {few}, which are no class'
    return f'has the labels {few}, but 0 to {len(data.classes) - 1} are classes, {data.ignored} ignored'
