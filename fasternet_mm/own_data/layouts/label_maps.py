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
from .annotated_data import SegmentationData
from .class_files import read_class_file
from .data_folder import DataFolder, stem
from .folder_words import file_kind, folder_kind, split_of
from .image_matching import FileIndex, ImageReference, composed, is_likely
from .image_sets import OF_LABEL_MAPS, split_by_lists
from .named_splits import folder_splits, named_splits
from .pixel_values import (
    COLORS,
    UNUSED,
    check_notation,
    gray_values,
    number_classes,
    pixel_classes,
    read_content,
    unknown_values,
    values_in,
    without_alpha,
)
from .problems import Fault, Problem

IMAGE_ENDS = ('_leftImg8bit', '_image', '_img', '_rgb', '_sat')
"""Ends of the names of images, which their label maps do not have."""

PREFERRED_ENDS = ('labeltrainids', 'labelids')
"""Ends of the label maps to take where images have several, as in Cityscapes: the first that there is."""

TABLE = 'label_maps.json'
"""The file beside label maps that `write_label_maps` wrote: which values became which labels."""


def find_label_maps(folder: DataFolder) -> dict[tuple[str, str], str]:
    """Images with their label maps, and the split of each pair.

    Label maps are in folders named so, or beside their images; they have their images' names, with an ending that
    all have or without, and the same folders below those of images and label maps. Images count in the folders in
    which some have label maps. ``ImageSets/Segmentation`` says what is train, val and test, or else the folders' names
    do, of images before those of label maps. Other images and label maps are reported, also where no two are a pair.

    Raises:
        UserError: images have several label maps each, or a label map fits two images equally well.
    """
    labels = [file for file in folder.images if _is_label_map(file)]
    images = [file for file in folder.images if not _is_label_map(file) and is_likely(posixpath.dirname(file))]
    stems = {_image_name(image) for image in images}
    names = {label: _image_stem(composed(stem(label)), stems) for label in labels}
    references = [
        ImageReference(posixpath.join(posixpath.dirname(label), name), label, split_of(posixpath.dirname(label)))
        for label, (name, _) in names.items()
    ]
    by_image: dict[str, dict[str, str]] = defaultdict(dict)
    alone = []
    for label, image in zip(labels, FileIndex(images, _image_name).match(references)):
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
    for label in alone:
        folder.report(label, 'is a label map, but no image has its name', Fault.MISSING_IMAGE)
    if not pairs:
        return {}
    places = {posixpath.dirname(image) for image in pairs}
    images = [image for image in images if posixpath.dirname(image) in places]
    splits = {}
    for image, split in _splits(folder, images, pairs).items():
        if image in pairs:
            splits[image, pairs[image]] = split
        else:
            folder.report(image, 'has no label map', Fault.MISSING_LABELS)
    return splits


def read_label_maps(
    folder: DataFolder, pairs: dict[tuple[str, str], str], ignored: int | None = None
) -> SegmentationData:
    """Read label maps, all of them.

    Names come from one of `class_files.CLASS_FILES`: of labels in their order, of the labels that it gives, or of
    colors. Without one, labels up to the largest are classes. 255 does not count, nor does what the file calls void or
    alike. Maps of 0 and 255 alone are background and foreground. The indices of palettes count unless the file has
    colors.

    ``pairs`` are those of `find_label_maps`; ``ignored`` is another label that does not count.

    Raises:
        UserError: nothing says which values are which classes; or palettes contradict each other.
    """
    names = read_class_file(folder)
    lossy = [label for _, label in pairs if not label.lower().endswith('.png')]
    if lossy:
        raise UserError(
            f'{folder.full_path(lossy[0])} is not PNG ({len(lossy)} of {len(pairs)} label maps are not): save label '
            'maps as PNG, which keeps each pixel'
        )
    items = sorted(pairs)
    maps = {}
    contents = in_threads(lambda pair: read_content(folder, *pair), items, 'reading label maps')
    for content, pair in zip(contents, items):
        if isinstance(content, Problem):
            folder.problems.append(content)
        else:
            maps[pair] = content
    layout, classes = pixel_classes(folder, names, maps, ignored)
    check_notation(folder, layout, names, classes, maps)
    data = number_classes(folder, layout, classes, maps, ignored)
    if ignored is not None and not any(ignored in content.values for content in maps.values()):
        what = f'--ignore-label {ignored} changes nothing: no label map has the label {ignored}'
        folder.report('', what, Fault.NEVER_THERE)
    splits = {pairs[pair]: [] for pair in items}
    for pair, content in maps.items():
        values = values_in(content, layout)
        unknown = values - data.labels.keys()
        if unknown:
            folder.report(pair[1], unknown_values(data, names, unknown), Fault.UNKNOWN_LABEL)
        else:
            image, label = (folder.root / file for file in pair)
            splits[pairs[pair]].append((image, label))
            data.classes_in[image] = {data.labels[value] for value in values} - {UNUSED}
    return replace(data, splits=named_splits(folder, splits))


def write_label_maps(data: SegmentationData, folder: str | Path) -> SegmentationData:
    """Write label maps in which pixels are the numbers of classes, and 255 where they do not count, in 8 bits.

    Label maps that hold these numbers already stay where they are. One that was written before is written again only
    where it or the classes changed since.

    The files in ``folder`` have the label maps' paths. Returns the same data with index PNGs.
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
        if fresh and target.is_file() and target.stat().st_mtime_ns == changed:
            return target
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
        splits[split] = [(image, label) for label, (image, _) in zip(written, pairs)]
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


def _one_end(folder: DataFolder, by_image: dict[str, dict[str, str]]) -> str:
    """The ending of the label maps to take, of all that the label maps of each image have."""
    counts = Counter(end for ends in by_image.values() for end in ends)
    for preferred in PREFERRED_ENDS:
        for end in counts:
            if end.lower().endswith(preferred):
                return end
    several = [ends for ends in by_image.values() if len(ends) > 1]
    if several:
        raise UserError(
            f'{folder.root} has several label maps for {len(several)} images ({", ".join(several[0].values())}): '
            'leave one for each'
        )
    return max(counts, key=counts.get) if counts else ''


def _splits(folder: DataFolder, images: Sequence[str], pairs: dict[str, str]) -> dict[str, str]:
    """The split of each image that should have a label map: where there are lists, of those that they name."""
    lists = split_by_lists(folder, OF_LABEL_MAPS, images, pairs)
    if lists:
        return {image: split for split, listed in lists.items() for image in listed}
    with_labels = [(image, pairs.get(image, '')) for image in images]
    return dict(zip(images, folder_splits(folder, with_labels, 'label maps')))
