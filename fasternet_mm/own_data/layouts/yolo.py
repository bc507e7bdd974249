"""YOLO boxes and polygons with a ``data.yaml``, as Ultralytics reads and Roboflow, CVAT and Label Studio write them.

Format: https://docs.ultralytics.com/datasets/detect/ and https://docs.ultralytics.com/datasets/segment/.
"""

from __future__ import annotations

import os
import posixpath
import reprlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ...errors import UserError
from .annotated_data import DetectionData, Fault, Problem, Report
from .data_folder import DataFolder, named_splits, stem
from .folder_words import folder_kind, parts_below, split_named, split_of
from .image_matching import composed, is_likely, plain_path
from .normal_form import AnnotatedImage, AnnotatedObject, to_instances

NAMES = ('data', 'dataset')
"""Names of files that are read though they name no split."""


def yolo_files(folder: DataFolder, with_splits: bool = True) -> dict[str, dict[str, Any]]:
    """The content of each file like a ``data.yaml``, with names and splits, and of Darknet's ``obj.data``."""
    contents = {}
    for file in folder.ending('.yaml', '.yml'):
        try:
            content = yaml.safe_load((folder.root / file).read_bytes())
        except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
            if posixpath.basename(file).startswith('data.'):
                message = ' '.join(str(error).split())
                raise UserError(f'{folder.shown(file)} is not YAML ({message}): mend it') from error
            continue
        if isinstance(content, dict) and 'names' in content and (_split_keys(content) or not with_splits):
            contents[file] = content
    if not with_splits:
        contents = {file: content for file, content in contents.items() if stem(file) in NAMES}
        return contents if any(label_files(folder, folder.images).values()) else {}
    return contents | _darknet_files(folder)


def _darknet_files(folder: DataFolder) -> dict[str, dict[str, Any]]:
    """The content of CVAT's ``obj.data``, lines such as ``train = data/train.txt``, with the names in ``obj.names``."""
    contents = {}
    for file in folder.ending('.data'):
        pairs = (line.partition('=') for line in folder.read_lines(file, []))
        content = {key.strip(): value.strip() for key, sign, value in pairs if sign}
        names = _find(folder, [posixpath.dirname(file) or '.'], content.get('names', ''))
        if names in folder.all and _split_keys(content):
            contents[file] = content | dict(names=[name for name in folder.read_lines(names, []) if name])
    return contents


def _split_keys(content: dict[str, Any]) -> dict[str, str]:
    """The keys that name a split, in any usual way and case, with the split."""
    splits = {key: split_named(key) for key in content if isinstance(key, str)}
    return {key: split for key, split in splits.items() if split}


def read_yolo(folder: DataFolder, files: dict[str, dict[str, Any]], problems: list[Problem]) -> DetectionData:
    """Read YOLO data sets.

    Args:
        folder: where the images are.
        files: the content of the one ``data.yaml``, by its file.
        problems: to add to.

    Raises:
        UserError: there are several; or it names folders that are not there, or no classes; or no image has labels.
    """
    if len(files) > 1:
        raise UserError(f'{folder.root} has {len(files)} files like data.yaml ({", ".join(files)}): leave one')
    ((file, content),) = files.items()
    names = _names(folder, file, content, problems)
    if 'kpt_shape' in content:
        raise UserError(f'{folder.shown(file)} describes keypoints (kpt_shape), which are not learned here: boxes are')
    images: dict[str, list[str]] = {}
    for key, split in _split_keys(content).items():
        if content[key]:
            images.setdefault(split, []).extend(_images(folder, file, content, key, problems))
    if not _split_keys(content):
        images = _labeled_images(folder, file, problems)
    images = {split: list(dict.fromkeys(files)) for split, files in images.items() if files}
    if not images:
        raise UserError(f'{folder.shown(file)} names no folder with images in it')
    labels = label_files(folder, [name for part in images.values() for name in part])
    if not any(labels.values()):
        raise UserError(
            f'{folder.root} has no labels for any of the images that {file} names: looked for '
            f'{_label_files(next(iter(labels)))[0]} and so on'
        )
    splits = {
        split: [
            AnnotatedImage(name, labels[name] or file, _objects(folder, labels[name], names, problems), relative=True)
            for name in part
        ]
        for split, part in named_splits(folder, images).items()
    }
    problems += _without_image(folder, {file for file in labels.values() if file}, names)
    return to_instances('YOLO', folder, splits, list(names.values()), problems)


def _names(folder: DataFolder, file: str, content: dict[str, Any], problems: list[Problem]) -> dict[int, str]:
    """The classes by the numbers that label files have for them."""
    names = content['names']
    if isinstance(names, list):
        names = dict(enumerate(names))
    shown = folder.shown(file)
    numbered = isinstance(names, dict) and all(str(number).strip().isdecimal() for number in names)
    if not names or not numbered or not all(type(name) in (str, int) for name in names.values()):
        raise UserError(
            f'{shown} has the names {reprlib.repr(content["names"])}: a list is needed, or a number for each, with '
            'quotes around names such as yes, no and 1.5'
        )
    names = {int(number): str(name) for number, name in sorted(names.items(), key=lambda item: int(item[0]))}
    if len(set(names.values())) < len(content['names']):
        raise UserError(f'{shown} has a name or number twice in names: {", ".join(names.values())}')
    if [*names] != [*range(len(names))]:
        afresh = ', '.join(f'{old} {name} → {new}' for new, (old, name) in enumerate(names.items()))
        problems.append(Problem(shown, f'its names are numbered afresh: {afresh}', Fault.NAMES_CHANGED))
    return names


def _labeled_images(folder: DataFolder, file: str, problems: list[Problem]) -> dict[str, list[str]]:
    """Images of a ``data.yaml`` that names none: those in folders in which some have labels."""
    places = {posixpath.dirname(image) for image, file in label_files(folder, folder.images).items() if file}
    splits: dict[str, list[str]] = defaultdict(list)
    for image in folder.images:
        place = posixpath.dirname(image)
        if place in places and is_likely(place):
            splits[split_of(place) or 'train'].append(image)
    shown = ', '.join(sorted(place or '.' for place in places))
    what = f'has names but no train: the images in {shown}, which have labels, are taken; or add "train: FOLDER"'
    problems.append(Problem(folder.shown(file), what, Fault.ASSUMED))
    return splits


def _images(folder: DataFolder, file: str, content: dict[str, Any], key: str, problems: list[Problem]) -> list[str]:
    """The images of a split: of a folder, a list of files, or several of these."""
    entries = content[key] if isinstance(content[key], list) else [content[key]]
    bases = _bases(folder, file, content)
    images: list[str] = []
    for entry in entries:
        if not isinstance(entry, str):
            raise UserError(
                f'{folder.shown(file)} has {key}: {reprlib.repr(entry)}: name a folder, or a list of images'
            )
        path = _find(folder, bases, entry)
        if path in folder.all:
            images += _listed(folder, path, split_named(key), problems)
        elif path is not None:
            if split_of(path) not in (None, split_named(key)):
                what = f'its {key} is {path}, whose name says {split_of(path)}: {key} counts'
                problems.append(Problem(folder.shown(file), what, Fault.SPLITS_DIFFER))
            below = [image for image in folder.images if path == '.' or image.startswith(f'{path}/')]
            images += [image for image in below if is_likely(posixpath.dirname(image))] or below
        elif split_named(key) == 'test':  # Roboflow names it whether it wrote one or not
            what = f'its {key}: {entry} is not in {folder.root}'
            problems.append(Problem(folder.shown(file), what, Fault.MISSING_SPLIT))
        else:
            raise UserError(
                f'{folder.shown(file)} has {key}: {entry}, which is not in {folder.root} (looked in '
                f'{", ".join(bases)}): name a folder or a list of images in there'
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
        end = '/'.join(parts[start:])
        for base in bases:
            path = folder.inside(base, end)
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


def _listed(folder: DataFolder, file: str, split: str | None, problems: list[Problem]) -> list[str]:
    """Images that a text file lists: from it, from the data's folder, or by the longest end of their paths."""
    names = [line for line in folder.read_lines(file, problems) if line]
    if not names:
        return []
    images = folder.find_images(names, file, split, problems)
    for number, (name, image) in enumerate(zip(names, images), start=1):
        if image is None:
            what = f'entry {number} is {name}, which is not in the folder'
            problems.append(Problem(folder.shown(file), what, Fault.OUTSIDE_FOLDER))
        elif image not in folder.all:
            what = f'does not exist, but entry {number} of {folder.shown(file)} names it'
            problems.append(Problem(folder.shown(image), what, Fault.MISSING_IMAGE))
    return [image for image in images if image in folder.all]


def _label_files(image: str) -> list[str]:
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
        places = _label_files(image)
        files = [file for file in places if file in folder.all]
        files = files or [texts[path] for path in map(composed, places) if path in texts]
        others = by_path[_path_below(image)]
        labels[image] = files[0] if files else others[0] if len(others) == 1 else None
    return labels


def _path_below(file: str) -> tuple[str, ...]:
    folder, name = posixpath.split(composed(file))
    return (*parts_below(folder), stem(name))


def _objects(
    folder: DataFolder, file: str | None, names: dict[int, str], problems: list[Problem]
) -> list[AnnotatedObject]:
    if file is None:
        return []
    lines, report = folder.read_lines(file, problems), folder.reporter(file, problems)
    objects = [_object(f'line {number}', line.split(), names, report) for number, line in enumerate(lines, 1) if line]
    return [obj for obj in objects if obj]


def _object(place: str, values: list[str], names: dict[int, str], report: Report) -> AnnotatedObject | None:
    try:
        label, *numbers = map(float, values)
    except ValueError:
        return report(f'{place} has something else than numbers ({" ".join(values)[:60]})')
    if label not in names:
        return report(f'{place} has the class {values[0]}, but names has {_numbers(names)}', Fault.UNKNOWN_ID)
    name = names[int(label)]
    if len(numbers) == 4:
        x, y, width, height = numbers
        return AnnotatedObject(name, place, box=[x - width / 2, y - height / 2, width, height])
    if len(numbers) < 4 or len(numbers) % 2:
        return report(f'{place} has {len(values)} values: 5 are a box; 7, 9, 11, … are a polygon')
    return AnnotatedObject(name, place, segmentation=[numbers])


def _numbers(names: dict[int, str]) -> str:
    first, last = min(names), max(names)
    return f'{first} to {last}' if last - first == len(names) - 1 else reprlib.repr(list(names))[1:-1]


def _without_image(folder: DataFolder, used: set[str], names: dict[int, str]) -> list[Problem]:
    """Labels of which no image made use, in the folders of those that are used.

    In a folder of labels these are all text files, elsewhere, such as beside images, those that begin with an object.
    """
    places = {posixpath.dirname(file) for file in used}

    def has_labels(file: str) -> bool:
        lines = [line.split() for line in folder.read_lines(file, []) if line]
        return bool(lines) and _object('', lines[0], names, lambda *_: None) is not None

    return [
        Problem(folder.shown(file), 'has the labels of no image that data.yaml names', Fault.ORPHAN_LABELS)
        for file in folder.ending('.txt')
        if posixpath.dirname(file) in places
        and file not in used
        and posixpath.basename(file) != 'classes.txt'
        and (folder_kind(posixpath.dirname(file)) == 'label' or has_labels(file))
    ]
