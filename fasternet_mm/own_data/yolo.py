"""YOLO boxes and polygons with a ``data.yaml``, as Ultralytics reads and Roboflow, CVAT and Label Studio write them.

Format: https://docs.ultralytics.com/datasets/detect/ and https://docs.ultralytics.com/datasets/segment/.
"""

from __future__ import annotations

import os
import posixpath
import reprlib
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from .content import Instances, Kind, Problem
from .folder import DataFolder, named_splits
from .normal_form import AnnotatedObject, AnnotatedPicture, to_instances

KEYS = dict(train='train', val='val', valid='val', validation='val', test='test')


def yolo_files(folder: DataFolder) -> dict[str, dict[str, Any]]:
    """The content of each file like a ``data.yaml``."""
    found = {}
    for file in folder.ending('.yaml', '.yml'):
        try:
            content = yaml.safe_load((folder.root / file).read_bytes())
        except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
            if posixpath.basename(file).startswith('data.'):
                message = ' '.join(str(error).split())
                raise UserError(f'{folder.shown(file)} is not YAML ({message}): mend it') from error
            continue
        if isinstance(content, dict) and 'names' in content and KEYS.keys() & content.keys():
            found[file] = content
    return found


def read_yolo(folder: DataFolder, files: dict[str, dict[str, Any]]) -> Instances:
    """Read YOLO data sets.

    Args:
        folder: where the pictures are.
        files: the content of the one ``data.yaml``, by its file.

    Raises:
        UserError: there are several; or it names folders that are not there, or no classes; or no picture has labels.
    """
    if len(files) > 1:
        raise UserError(f'{folder.root} has {len(files)} files like data.yaml ({", ".join(files)}): leave one')
    ((file, content),) = files.items()
    problems: list[Problem] = []
    classes = _classes(folder, file, content)
    if 'kpt_shape' in content:
        raise UserError(f'{folder.shown(file)} describes keypoints (kpt_shape), which are not learnt here: boxes are')
    pictures = {}
    for key, split in KEYS.items():
        if content.get(key):
            pictures.setdefault(split, []).extend(_pictures(folder, file, content, key, problems))
    pictures = {split: found for split, found in pictures.items() if found}
    if not pictures:
        raise UserError(f'{folder.shown(file)} names no folder with pictures in it')
    labels = {name: _labels(folder, name) for found in pictures.values() for name in found}
    if not any(labels.values()):
        raise UserError(
            f'{folder.root} has no labels for any of the pictures that {file} names: looked for '
            f'{_label_files(next(iter(labels)))[0]} and so on'
        )
    splits = {
        split: [
            AnnotatedPicture(
                name, labels[name] or file, _objects(folder, labels[name], classes, problems), relative=True
            )
            for name in found
        ]
        for split, found in named_splits(folder, pictures).items()
    }
    problems += _without_picture(folder, {file for file in labels.values() if file})
    return to_instances('YOLO', folder, splits, classes, problems)


def _classes(folder: DataFolder, file: str, content: dict[str, Any]) -> list[str]:
    names = content['names']
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(type(name) in (str, int) for name in names):
        raise UserError(
            f'{folder.shown(file)} has the names {reprlib.repr(names)}: a list is needed, or a number from 0 for each, '
            'with quotes around names such as yes, no and 1.5'
        )
    names = [str(name) for name in names]
    if len(set(names)) < len(names):
        raise UserError(f'{folder.shown(file)} has a name twice in names: {", ".join(names)}')
    return names


def _pictures(folder: DataFolder, file: str, content: dict[str, Any], key: str, problems: list[Problem]) -> list[str]:
    """The pictures of a split: of a folder, a list of files, or several of these."""
    entries = content[key] if isinstance(content[key], list) else [content[key]]
    bases = _bases(folder, file, content)
    found: list[str] = []
    for entry in entries:
        if not isinstance(entry, str):
            raise UserError(
                f'{folder.shown(file)} has {key}: {reprlib.repr(entry)}: name a folder, or a list of pictures'
            )
        path = _find(folder, bases, entry)
        if path in folder.all:
            found += _listed(folder, path, bases, problems)
        elif path is not None:
            found += [picture for picture in folder.pictures if path == '.' or picture.startswith(f'{path}/')]
        elif key == 'test':  # Roboflow names it whether it wrote one or not
            what = f'its test: {entry} is not in {folder.root}'
            problems.append(Problem(folder.shown(file), what, Kind.MISSING_SPLIT))
        else:
            raise UserError(
                f'{folder.shown(file)} has {key}: {entry}, which is not in {folder.root} (looked in '
                f'{", ".join(bases)}): name a folder or a list of pictures in there'
            )
    return list(dict.fromkeys(found))


def _bases(folder: DataFolder, file: str, content: dict[str, Any]) -> list[str]:
    """Folders that the file's paths may be relative to: its ``path``, where that is in the data's folder; its own."""
    own, path = posixpath.dirname(file) or '.', content.get('path')
    named = _inside(folder, own, path) if isinstance(path, str) else None
    return list(dict.fromkeys(base for base in (named, own) if base in folder.folders))


def _find(folder: DataFolder, bases: list[str], entry: str) -> str | None:
    # Roboflow writes ../train/images for a folder beside the file.
    below = entry
    while below.startswith('../'):
        below = below[3:]
    for name in dict.fromkeys((entry, below)):
        for base in bases:
            path = _inside(folder, base, name)
            if path in folder.all or path in folder.folders:
                return path
    return None


def _inside(folder: DataFolder, base: str, name: str) -> str | None:
    """As `DataFolder.inside`, but absolute paths into the folder count: they are common in these files."""
    if Path(name).is_absolute():
        roots = [root for root in map(Path, _roots(folder)) if Path(os.path.normpath(name)).is_relative_to(root)]
        if not roots:
            return None
        name, base = Path(os.path.normpath(name)).relative_to(roots[0]).as_posix(), '.'
    return folder.inside(base, name)


def _roots(folder: DataFolder) -> tuple[str, str]:
    """The data's folder as it was named, and without links."""
    return os.path.abspath(folder.root), os.path.realpath(folder.root)


def _listed(folder: DataFolder, file: str, bases: list[str], problems: list[Problem]) -> list[str]:
    """Pictures that a text file lists, relative to it or to the other folders."""
    found = []
    for number, line in enumerate(_lines(folder, file, problems), start=1):
        paths = [_inside(folder, base, line) for base in (posixpath.dirname(file), *bases)] if line else []
        there = [path for path in paths if path in folder.all]
        if there:
            found.append(there[0])
        elif any(paths):
            what = f'does not exist, but line {number} of {folder.shown(file)} names it'
            path = next(path for path in paths if path)
            problems.append(Problem(folder.shown(path), what, Kind.MISSING_PICTURE))
        elif line:
            what = f'line {number} is {line}, which is not in the folder'
            problems.append(Problem(folder.shown(file), what, Kind.OUTSIDE_FOLDER))
    return found


def _label_files(picture: str) -> list[str]:
    """Where a picture's labels may be: in ``labels`` for ``images``, the last first; or beside it."""
    parts = posixpath.splitext(picture)[0].split('/')
    places = [number for number, part in enumerate(parts[:-1]) if part == 'images']
    swapped = ['/'.join([*parts[:number], 'labels', *parts[number + 1 :]]) for number in reversed(places)]
    return [f'{path}.txt' for path in (*swapped, '/'.join(parts))]


def _labels(folder: DataFolder, picture: str) -> str | None:
    return next((file for file in _label_files(picture) if file in folder.all), None)


def _objects(
    folder: DataFolder, file: str | None, classes: list[str], problems: list[Problem]
) -> list[AnnotatedObject]:
    objects = []
    for number, line in enumerate(_lines(folder, file, problems) if file else [], start=1):
        obj = _object(f'line {number}', line.split(), classes) if line else None
        if isinstance(obj, tuple):
            problems.append(Problem(folder.shown(file), f'line {number} {obj[0]}', obj[1]))
        elif obj:
            objects.append(obj)
    return objects


def _object(place: str, values: list[str], classes: list[str]) -> AnnotatedObject | tuple[str, Kind]:
    """An object from a line's values, or what is wrong with them."""
    try:
        label, *numbers = map(float, values)
    except ValueError:
        return f'has something else than numbers ({" ".join(values)[:60]})', Kind.MALFORMED
    if not (label.is_integer() and 0 <= label < len(classes)):
        return f'has the class {values[0]}, but names has 0 to {len(classes) - 1}', Kind.UNKNOWN_ID
    name = classes[int(label)]
    if len(numbers) == 4:
        x, y, width, height = numbers
        return AnnotatedObject(name, place, box=[x - width / 2, y - height / 2, width, height])
    if len(numbers) < 4 or len(numbers) % 2:
        return f'has {len(values)} values: 5 are a box; 7, 9, 11, … are a polygon', Kind.MALFORMED
    return AnnotatedObject(name, place, segmentation=[numbers])


def _lines(folder: DataFolder, file: str, problems: list[Problem]) -> list[str]:
    try:
        return [line.strip() for line in (folder.root / file).read_text('utf-8').splitlines()]
    except (OSError, ValueError) as error:
        problems.append(Problem(folder.shown(file), f'is not a text file that can be read ({error})', Kind.MALFORMED))
        return []


def _without_picture(folder: DataFolder, used: set[str]) -> list[Problem]:
    """Labels in folders of labels, of which no picture made use."""
    places = {posixpath.dirname(file) for file in used if 'labels' in file.split('/')[:-1]}
    return [
        Problem(folder.shown(file), 'has the labels of no picture that data.yaml names', Kind.MISSING_PICTURE)
        for file in folder.ending('.txt')
        if posixpath.dirname(file) in places and file not in used and posixpath.basename(file) != 'classes.txt'
    ]
