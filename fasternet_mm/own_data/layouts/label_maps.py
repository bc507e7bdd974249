"""Images with label maps: a class for each pixel, as an index or as a color."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ...datasets.image_files import last_change
from ...errors import UserError
from ...files import write_atomically
from ...parallel import in_threads
from .class_names import read_class_file
from .content import Kind, LabelMaps, Problem
from .data_folder import DataFolder, folder_splits, named_splits, stem
from .folder_words import file_kind, folder_kind, split_of
from .image_sets import OF_LABEL_MAPS, split_by_lists
from .label_values import (
    COLORS,
    UNUSED,
    check_notation,
    gray_values,
    meanings,
    number_classes,
    read_content,
    strange_values,
    values_in,
    without_alpha,
)
from .matching import FileIndex, Wanted, composed, is_likely

IMAGE_ENDS = ('_leftImg8bit', '_image', '_img', '_rgb', '_sat')
"""Ends of the names of images, which their label maps do not have."""

PREFERRED_ENDS = ('labeltrainids', 'labelids')
"""Ends of the label maps to take, the first first, where images have several, as in Cityscapes."""

TABLE = 'label_maps.json'
"""Beside label maps that `write_label_maps` wrote: which values became which labels."""


def find_label_maps(folder: DataFolder, problems: list[Problem]) -> dict[tuple[str, str], str]:
    """Images with their label maps, and the split of each pair.

    Label maps are in folders named so, or beside their images; they have their images' names, with an ending that
    all have or without, and the same folders below those of images and label maps. Images count in the folders in
    which some have label maps. ``ImageSets/Segmentation`` says what is train, val and test, or else the folders' names
    do, of images before those of label maps.

    Args:
        folder: with the data.
        problems: to add to: what is wrong with other images and label maps, also where no two are a pair.

    Raises:
        UserError: images have several label maps each, or a label map fits two images equally well.
    """
    labels = [file for file in folder.images if _is_label_map(file)]
    images = [file for file in folder.images if not _is_label_map(file) and is_likely(posixpath.dirname(file))]
    stems = {_image_name(image) for image in images}
    names = {label: _image_stem(composed(stem(label)), stems) for label in labels}
    wanted = [
        Wanted(posixpath.join(posixpath.dirname(label), name), label, split_of(posixpath.dirname(label)))
        for label, (name, _) in names.items()
    ]
    by_image: dict[str, dict[str, str]] = defaultdict(dict)
    alone = []
    for label, image in zip(labels, FileIndex(images, _image_name).match(wanted)):
        end = names[label][1]
        if image is None:
            alone.append(label)
        elif end in by_image[image]:
            raise UserError(
                f'{folder.root} has two label maps for {image}, {by_image[image][end]} and {label}: leave one'
            )
        else:
            by_image[image][end] = label
    end = _one_end(folder, by_image)
    pairs = {image: ends[end] for image, ends in by_image.items() if end in ends}
    problems += [Problem(folder.shown(label), 'is the label map of no image', Kind.MISSING_IMAGE) for label in alone]
    if not pairs:
        return {}
    places = {posixpath.dirname(image) for image in pairs}
    images = [image for image in images if posixpath.dirname(image) in places]
    splits = _splits(folder, images, pairs, problems)
    problems += [
        Problem(folder.shown(image), 'has no label map', Kind.MISSING_LABELS) for image in splits if image not in pairs
    ]
    return {(image, pairs[image]): split for image, split in splits.items() if image in pairs}


def read_label_maps(
    folder: DataFolder, pairs: dict[tuple[str, str], str], problems: list[Problem], ignored: int | None = None
) -> LabelMaps:
    """Read label maps, all of them.

    Names come from one of `class_names.CLASS_FILES`: of labels in their order, of the labels that it gives, or of
    colors. Without one, labels up to the largest are classes. 255 does not count, nor does what the file calls void or
    alike. Maps of 0 and 255 alone are background and foreground. The indices of palettes count unless the file has
    colors.

    Args:
        folder: where the images are.
        pairs: images with their label maps, and their splits, as from `find_label_maps`.
        problems: to add to.
        ignored: a label more that does not count.

    Raises:
        UserError: nothing says which values are which classes; or palettes contradict each other.
    """
    names = read_class_file(folder)
    lossy = [label for _, label in pairs if not label.lower().endswith('.png')]
    if lossy:
        raise UserError(
            f'{folder.shown(lossy[0])} is not PNG ({len(lossy)} of {len(pairs)} label maps are not): save label maps '
            'as PNG, which keeps each pixel'
        )
    items = sorted(pairs)
    maps = dict(zip(items, in_threads(lambda pair: read_content(folder, *pair), items, 'reading label maps')))
    problems += [content.problem for content in maps.values() if content.problem]
    maps = {pair: content for pair, content in maps.items() if not content.problem}
    layout, rows = meanings(folder, names, maps, ignored)
    problems += check_notation(folder, layout, names, rows, maps)
    data = number_classes(folder, layout, rows, maps, ignored)
    if ignored is not None and not any(ignored in content.values for content in maps.values()):
        what = f'--ignore-label {ignored} changes nothing: no label map has the label {ignored}'
        problems.append(Problem(str(folder.root), what, Kind.NEVER_THERE))
    splits = {pairs[pair]: [] for pair in items}
    counts = {split: Counter() for split in splits}
    for pair, content in maps.items():
        values = values_in(content, layout)
        strange = values - data.labels.keys()
        if strange:
            problems.append(Problem(folder.shown(pair[1]), strange_values(data, names, strange), Kind.UNKNOWN_LABEL))
        else:
            splits[pairs[pair]].append(tuple(folder.root / file for file in pair))
            counts[pairs[pair]].update({data.labels[value] for value in values})
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
    table = np.full(1 << 24 if data.layout == COLORS else 1 << 8, UNUSED, np.uint8)
    for value, label in data.labels.items():
        table[value if isinstance(value, int) else value[0] << 16 | value[1] << 8 | value[2]] = label

    def write(source: Path) -> Path:
        target, changed = folder / source.relative_to(data.root), last_change(source.stat())
        if not (fresh and target.is_file() and target.stat().st_mtime_ns == changed):
            with Image.open(source) as label_map:
                label_map = without_alpha(label_map)
                if data.layout == COLORS:
                    red, green, blue = np.moveaxis(np.asarray(label_map.convert('RGB')).astype(np.uint32), -1, 0)
                    values = red << 16 | green << 8 | blue
                else:
                    values = gray_values(label_map)
            write_atomically(target, cv2.imencode('.png', table[values])[1].tobytes())
            os.utime(target, ns=(changed, changed))
        return target

    splits = {}
    for split, pairs in data.splits.items():
        written = in_threads(write, [label for _, label in pairs], f'writing label maps of {split}')
        splits[split] = [(image, label) for (image, _), label in zip(pairs, written)]
    write_atomically(key, description)
    labels = {label: label for label in data.labels.values()}
    return replace(data, layout='index PNGs', splits=splits, labels=labels, fits=True)


def _is_label_map(file: str) -> bool:
    """By the last folder that says what it has, or else by the end of the name."""
    return (folder_kind(posixpath.dirname(file)) or file_kind(stem(file))) == 'label'


def _image_name(image: str) -> str:
    return _without_end(composed(stem(image)), IMAGE_ENDS)


def _without_end(name: str, ends: Iterable[str]) -> str:
    return next((name[: -len(end)] for end in ends if name.endswith(end)), name)


def _image_stem(name: str, stems: Set[str]) -> tuple[str, str]:
    """A label map's name as that of its image and an ending, which begins with _, - or . or is empty."""
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
            f'{folder.root} has several label maps for {len(several)} images ({", ".join(several[0].values())}): '
            'leave one for each'
        )
    return max(counts, key=counts.get) if counts else ''


def _splits(
    folder: DataFolder, images: Sequence[str], pairs: dict[str, str], problems: list[Problem]
) -> dict[str, str]:
    """The split of each image that should have a label map: where there are lists, of those that they name."""
    lists = split_by_lists(folder, OF_LABEL_MAPS, images, pairs, problems)
    if lists:
        return {image: split for split, listed in lists.items() for image in listed}
    with_labels = [(image, pairs.get(image, '')) for image in images]
    return dict(zip(images, folder_splits(folder, with_labels, 'label maps', problems)))
