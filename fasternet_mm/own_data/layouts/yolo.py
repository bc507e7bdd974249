"""YOLO boxes and polygons with a ``data.yaml``, as Ultralytics reads and Roboflow, CVAT and Label Studio write them.

Format: https://docs.ultralytics.com/datasets/detect/ and https://docs.ultralytics.com/datasets/segment/.
"""

from __future__ import annotations

import os
import posixpath
import reprlib
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ...errors import UserError
from .annotated_data import DetectionData
from .data_folder import DataFolder, stem
from .folder_words import folder_kind, parts_below, split_named, split_of
from .image_matching import composed, is_likely, plain_path
from .named_splits import named_splits
from .normal_form import AnnotatedImage, AnnotatedObject, to_normal_form, usable_objects
from .problems import Fault, UnusableError

USUAL_STEMS = ('data', 'dataset')
"""Names, without suffix, of files that are read though they name no split."""


def yolo_files(folder: DataFolder, splits_needed: bool) -> dict[str, dict[str, Any]]:
    """The content of each file like a ``data.yaml``, with names and splits, and of Darknet's ``obj.data``.

    Unless ``splits_needed``, a file without splits counts where there is no other and images have labels.

    Raises:
        UserError: a file called data.yaml is not YAML.
    """
    with_names = {}
    for file in folder.ending('.yaml', '.yml'):
        try:
            content = yaml.safe_load((folder.root / file).read_bytes())
        except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
            if posixpath.basename(file).startswith('data.'):
                message = ' '.join(str(error).split())
                raise UserError(f'{folder.full_path(file)} is not YAML ({message}): mend it') from error
            continue
        if isinstance(content, dict) and 'names' in content:
            with_names[file] = content
    files = {file: content for file, content in with_names.items() if _split_keys(content)} | _darknet_files(folder)
    if files or splits_needed:
        return files
    files = {file: content for file, content in with_names.items() if stem(file) in USUAL_STEMS}
    return files if any(label_files(folder, folder.images).values()) else {}


def _darknet_files(folder: DataFolder) -> dict[str, dict[str, Any]]:
    """The content of CVAT's ``obj.data``, lines such as ``train = data/train.txt``, with the names in ``obj.names``."""
    contents = {}
    for file in folder.ending('.data'):
        pairs = (line.partition('=') for line in folder.read_lines(file, report=False))
        content = {key.strip(): value.strip() for key, sign, value in pairs if sign}
        names = _find(folder, [posixpath.dirname(file) or '.'], content.get('names', ''))
        if names in folder.all and _split_keys(content):
            contents[file] = content | dict(names=[name for name in folder.read_lines(names, report=False) if name])
    return contents


def _split_keys(content: dict[str, Any]) -> dict[str, str]:
    """The keys that name a split, in any usual way and case, with the split."""
    splits = {key: split_named(key) for key in content if isinstance(key, str)}
    return {key: split for key, split in splits.items() if split}


def read_yolo(folder: DataFolder, files: dict[str, dict[str, Any]]) -> DetectionData:
    """Read a YOLO data set, from the content of the one ``data.yaml``.

    Raises:
        UserError: there are several such files, or it names no classes or no images that have labels.
    """
    if len(files) > 1:
        raise UserError(f'{folder.root} has {len(files)} files like data.yaml ({", ".join(files)}): leave one')
    ((file, content),) = files.items()
    names = _class_names(folder, file, content)
    if 'kpt_shape' in content:
        raise UserError(
            f'{folder.full_path(file)} describes keypoints (kpt_shape), which no model here learns: give it boxes'
        )
    keys = _split_keys(content)
    images: dict[str, list[str]] = defaultdict(list)
    for key, split in keys.items():
        if content[key]:
            images[split] += _images(folder, file, content, key)
    if not keys:
        images = _labeled_images(folder, file)
    images = {split: list(dict.fromkeys(files)) for split, files in images.items() if files}
    if not images:
        raise UserError(f'{folder.full_path(file)} names no folder with images in it')
    labels = label_files(folder, [image for part in images.values() for image in part])
    if not any(labels.values()):
        raise UserError(
            f'{folder.root} has no labels for any of the images that {file} names: looked for '
            f'{_places_of_labels(next(iter(labels)))[0]} and so on'
        )
    splits = {}
    for split, part in named_splits(folder, images).items():
        splits[split] = [
            AnnotatedImage(image, labels[image] or file, _objects(folder, labels[image], names), relative=True)
            for image in part
        ]
    _report_orphans(folder, {text for text in labels.values() if text}, names)
    return to_normal_form('YOLO', folder, splits, list(names.values()))


def _class_names(folder: DataFolder, file: str, content: dict[str, Any]) -> dict[int, str]:
    """The classes by the numbers that label files have for them."""
    names = content['names']
    if isinstance(names, list):
        names = dict(enumerate(names))
    is_numbered = isinstance(names, dict) and all(str(number).strip().isdecimal() for number in names)
    if not names or not is_numbered or not all(type(name) in (str, int) for name in names.values()):
        raise UserError(
            f'{folder.full_path(file)} has the names {reprlib.repr(content["names"])}: a list is needed, or a number '
            'for each, with quotes around names such as yes, no and 1.5'
        )
    names = {int(number): str(name) for number, name in sorted(names.items(), key=lambda item: int(item[0]))}
    if len(set(names.values())) < len(content['names']):
        raise UserError(f'{folder.full_path(file)} has a name or number twice in names: {", ".join(names.values())}')
    if list(names) != list(range(len(names))):
        afresh = ', '.join(f'{old} {name} → {new}' for new, (old, name) in enumerate(names.items()))
        folder.report(file, f'its names are numbered afresh: {afresh}', Fault.NAMES_CHANGED)
    return names


def _labeled_images(folder: DataFolder, file: str) -> dict[str, list[str]]:
    """Images of a ``data.yaml`` that names none: those in folders in which some have labels."""
    places = {posixpath.dirname(image) for image, text in label_files(folder, folder.images).items() if text}
    splits: dict[str, list[str]] = defaultdict(list)
    for image in folder.images:
        place = posixpath.dirname(image)
        if place in places and is_likely(place):
            splits[split_of(place) or 'train'].append(image)
    named = ', '.join(sorted(place or '.' for place in places))
    what = f'has names but no train: the images in {named}, which have labels, are taken; or add "train: FOLDER"'
    folder.report(file, what, Fault.ASSUMED)
    return splits


def _images(folder: DataFolder, file: str, content: dict[str, Any], key: str) -> list[str]:
    """The images of a split: of a folder, a list of files, or several of these."""
    entries = content[key] if isinstance(content[key], list) else [content[key]]
    bases, split, full_path = _bases(folder, file, content), split_named(key), folder.full_path(file)
    images: list[str] = []
    for entry in entries:
        if not isinstance(entry, str):
            raise UserError(f'{full_path} has {key}: {reprlib.repr(entry)}: name a folder, or a list of images')
        path = _find(folder, bases, entry)
        if path in folder.all:
            images += _listed(folder, path, split)
        elif path is not None:
            if split_of(path) not in (None, split):
                what = f'its {key} is {path}, whose name says {split_of(path)}: {key} counts'
                folder.report(file, what, Fault.SPLITS_DIFFER)
            below = [image for image in folder.images if path == '.' or image.startswith(f'{path}/')]
            images += [image for image in below if is_likely(posixpath.dirname(image))] or below
        elif split == 'test':  # Roboflow names it whether it wrote one or not
            folder.report(file, f'its {key}: {entry} is not in {folder.root}', Fault.MISSING_SPLIT)
        else:
            raise UserError(
                f'{full_path} has {key}: {entry}, which is not in {folder.root} (looked in {", ".join(bases)}): name a '
                'folder or a list of images in there'
            )
    return images


def _bases(folder: DataFolder, file: str, content: dict[str, Any]) -> list[str]:
    """Folders that the file's paths may be relative to: its ``path``, where that is in the data's folder; its own."""
    own, path = posixpath.dirname(file) or '.', content.get('path')
    named = _inside(folder, own, path) if isinstance(path, str) else None
    return list(dict.fromkeys(base for base in (named, own) if base in folder.folders))


def _find(folder: DataFolder, bases: list[str], entry: str) -> str | None:
    """The folder or list that an entry names: from one of the bases, or by the longest end of its path.

    Roboflow writes ../train/images for a folder beside the file, others where it was on their machine.
    """
    entry = entry.replace('\\', '/')
    for base in bases:
        path = _inside(folder, base, entry)
        if path in folder.all or path in folder.folders:
            return path
    parts = plain_path(entry).split('/')
    for start in range(len(parts)):
        for base in bases:
            path = folder.inside(base, '/'.join(parts[start:]))
            if path in folder.all or (path in folder.folders and path != base):
                return path
    return None


def _inside(folder: DataFolder, base: str, name: str) -> str | None:
    """As `DataFolder.inside`, but absolute paths into the folder count: they are common in these files."""
    path = Path(os.path.normpath(name))
    if not path.is_absolute():
        return folder.inside(base, name)
    roots = os.path.abspath(folder.root), os.path.realpath(folder.root)  # as it was named, and without links
    return next((path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root)), None)


def _listed(folder: DataFolder, file: str, split: str | None) -> list[str]:
    """Images that a text file lists: from it, from the data's folder, or by the longest end of their paths."""
    names = [line for line in folder.read_lines(file) if line]
    if not names:
        return []
    images = folder.find_images(names, file, split)
    for number, (name, image) in enumerate(zip(names, images), start=1):
        if image is None:
            folder.report(file, f'entry {number} is {name}, which is not in the folder', Fault.OUTSIDE_FOLDER)
        elif image not in folder.all:
            what = f'does not exist, but entry {number} of {folder.full_path(file)} names it'
            folder.report(image, what, Fault.MISSING_IMAGE)
    return [image for image in images if image in folder.all]


def _places_of_labels(image: str) -> list[str]:
    """Where an image's labels may be: in ``labels`` for ``images``, the last first; or beside it."""
    parts = posixpath.splitext(image)[0].split('/')
    places = [number for number, part in enumerate(parts[:-1]) if part == 'images']
    swapped = ['/'.join([*parts[:number], 'labels', *parts[number + 1 :]]) for number in reversed(places)]
    return [f'{path}.txt' for path in (*swapped, '/'.join(parts))]


def label_files(folder: DataFolder, images: Iterable[str]) -> dict[str, str | None]:
    """The file with each image's labels: where Ultralytics looks, or the only one below a folder called labels or
    alike that has the image's path below images or alike; None where there is none."""
    texts = {composed(file): file for file in folder.ending('.txt')}
    by_path = defaultdict(list)
    for file in texts.values():
        if folder_kind(posixpath.dirname(file)) == 'label':
            by_path[_path_below(file)].append(file)
    labels = {}
    for image in images:
        places = _places_of_labels(image)
        files = [file for file in places if file in folder.all]
        files += [texts[path] for path in map(composed, places) if path in texts]
        others = by_path[_path_below(image)]
        if not files and len(others) == 1:
            files = others
        labels[image] = files[0] if files else None
    return labels


def _path_below(file: str) -> tuple[str, ...]:
    folder, name = posixpath.split(composed(file))
    return (*parts_below(folder), stem(name))


def _objects(folder: DataFolder, file: str | None, names: dict[int, str]) -> list[AnnotatedObject]:
    if file is None:
        return []
    lines = [(f'line {number}', line) for number, line in enumerate(folder.read_lines(file), start=1) if line]
    return usable_objects(partial(_object, names=names), lines, partial(folder.report, file))


def _object(line: str, place: str, names: dict[int, str]) -> AnnotatedObject:
    values = line.split()
    try:
        label, *numbers = map(float, values)
    except ValueError as error:
        raise UnusableError(f'{place} has something else than numbers ({" ".join(values)[:60]})') from error
    if label not in names:
        what = f'{place} has the class {values[0]}, but names has {_numbers(names)}'
        raise UnusableError(what, Fault.UNKNOWN_ID)
    name = names[int(label)]
    if len(numbers) == 4:
        x, y, width, height = numbers
        return AnnotatedObject(name, place, box=[x - width / 2, y - height / 2, width, height])
    if len(numbers) < 4 or len(numbers) % 2:
        raise UnusableError(f'{place} has {len(values)} values: 5 are a box; 7, 9, 11, … are a polygon')
    return AnnotatedObject(name, place, segmentation=[numbers])


def _numbers(names: dict[int, str]) -> str:
    first, last = min(names), max(names)
    return f'{first} to {last}' if last - first == len(names) - 1 else reprlib.repr(list(names))[1:-1]


def _report_orphans(folder: DataFolder, used: set[str], names: dict[int, str]) -> None:
    """Report labels that no image uses, in the folders of those that are used.

    In a folder of labels these are all text files, elsewhere, such as beside images, those that begin with an object.
    """
    places = {posixpath.dirname(file) for file in used}
    for file in folder.ending('.txt'):
        place, name = posixpath.split(file)
        if place not in places or file in used or name == 'classes.txt':
            continue
        if folder_kind(place) == 'label' or _begins_with_object(folder, file, names):
            folder.report(file, 'has the labels of no image that data.yaml names', Fault.ORPHAN_LABELS)


def _begins_with_object(folder: DataFolder, file: str, names: dict[int, str]) -> bool:
    lines = [line for line in folder.read_lines(file, report=False) if line]
    try:
        return bool(lines) and _object(lines[0], '', names) is not None
    except UnusableError:
        return False
