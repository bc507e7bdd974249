"""A validation split for data that come without one."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import UserError, few
from ..layouts.annotated_data import OwnData
from .decoded_images import DecodedImage

TOO_FEW = 10
"""The number of images below which data is not split: all images are trained on and evaluated on."""

SHARE = 0.2
"""The probability that a group of images is for validation."""

WHOLE_IMAGES = 'images.json'
"""The name of the file, in the ``data`` folder of a work directory, with the images of each split that were cut."""

ROBOFLOW_COPY = re.compile(r'(.+)\.rf\.[0-9A-Za-z]+\.[A-Za-z]+')
"""The path of a copy of an image, one of several that Roboflow augments at random; its group names the image."""

NAMED = 5
"""The number of groups that were moved, or of classes, that the text for people names."""


@dataclass
class ImageGroup:
    """Images that are alike, and so always in the same split.

    Attributes:
        images: their numbers.
        place: a number from 0 to 1 that depends on the group's name and the seed alone.
        validation: whether they are for validation, where the place is below `SHARE` or they were moved.
        settled: whether they stay where they are, as a resumed run has them.
        labels: the classes that are in them.
    """

    images: list[int]
    place: float
    validation: bool
    settled: bool = False
    labels: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class EarlierSplit:
    """The split of a run that is resumed.

    Attributes:
        folder: the folder with its annotations.
        parts: for 'train' and for 'val', the images' paths in the data's folder.
    """

    folder: Path
    parts: Mapping[str, frozenset[str]]


def read_earlier_split(folder: Path, root: Path) -> EarlierSplit | None:
    """The split that a run wrote into the ``data`` folder of its work directory; None where it wrote none.

    Args:
        folder: with ``train.json`` and ``val.json``.
        root: the data's folder, to which the paths in lists of label maps are made relative.

    Raises:
        UserError: a file is there, but cannot be read.
    """
    parts = {}
    if Path(folder, WHOLE_IMAGES).is_file():
        content = json.loads(Path(folder, WHOLE_IMAGES).read_bytes())
        return EarlierSplit(folder, {part: frozenset(paths) for part, paths in content.items()})
    for part in ('train', 'val'):
        file = folder / f'{part}.json'
        if not file.is_file():
            return None
        try:
            content = json.loads(file.read_bytes())
            if isinstance(content, dict):
                parts[part] = frozenset(image['file_name'] for image in content['images'])
            else:
                parts[part] = frozenset(_in_folder(record['img_path'], root) for record in content)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(
                f'{file}, the split of the run to resume, cannot be read ({error}): restore it, or train anew in '
                'another --work-dir'
            ) from error
    return EarlierSplit(folder, parts)


def _in_folder(path: str, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def ensure_validation(
    data: OwnData,
    images: Mapping[Path, DecodedImage],
    seed: int,
    pattern: str | None = None,
    earlier: EarlierSplit | None = None,
) -> str:
    """Give the data a split 'val' where they have none.

    The hash of a group's name and the seed says where its images go, so that adding images does not move others. Images
    are a group where their paths have the same match of ``pattern``, where they are Roboflow's copies of one image (its
    name is before ``.rf.``), where they have the same bytes, or where an image connects them by these. The group's name
    is the match, else the name of the image, else the content: adding another copy does not change it.

    There are two exceptions. Groups that an added image connects become one. And where the hash leaves a class out of
    validation, or out of training, a group that has it is moved there, since each class should be in both. The text for
    people tells what was moved, and ``earlier`` prevents it.

    Args:
        data: as read; its splits are changed.
        images: the decoded images by path.
        seed: another seed gives another split.
        pattern: a regular expression, searched in each image's path in the data's folder. Its first group, or without
            groups the match, names the image's group. Images without a match are in none. Default: no such groups.
        earlier: the split of the run that is resumed, whose images stay where they are. Default: a new run.

    Returns:
        How the data are split, for people, in one or more lines.

    Raises:
        UserError: ``pattern`` is not a regular expression, matches nothing, or the data has a validation split.
    """
    if {'val', 'test'} & data.splits.keys():
        if pattern is not None:
            raise UserError(
                f'--group {pattern!r} is for data that has no validation split yet, but {data.root} has '
                f'{", ".join(data.splits)}: leave it out'
            )
        lines = ['as the data has it']
        if 'val' not in data.splits:
            data.splits['val'] = data.splits['test']
            lines = ['as the data has it; test serves as val, too']
    else:
        lines = _divide(data, images, seed, pattern, earlier)
    return '\n'.join([*lines, *_absent(data)])


def _divide(
    data: OwnData, images: Mapping[Path, DecodedImage], seed: int, pattern: str | None, earlier: EarlierSplit | None
) -> list[str]:
    paths = [path.relative_to(data.root).as_posix() for path in data.image_paths['train']]
    labels = data.image_classes['train']
    groups = group_images(paths, [images[path].sha256 for path in data.image_paths['train']], seed, pattern)
    related = []
    if len(groups) < len(paths):
        count = f'{len(groups)} group{"s" if len(groups) > 1 else ""}'
        related = [f'{len(paths)} images are {count}: images that are equal or belong together']
    if earlier:
        groups = _settle(groups, paths, earlier)
    for group in groups:
        group.labels = set().union(*(labels[number] for number in group.images))
    notes = _balance(groups, paths, data.classes) if earlier or len(paths) >= TOO_FEW else []
    validation = {number for group in groups if group.validation for number in group.images}
    if not validation or (len(paths) < TOO_FEW and not earlier):
        data.splits['val'] = data.splits['train']
        reason = f'fewer than {TOO_FEW} images' if len(paths) < TOO_FEW else 'images that cannot be divided'
        return [f'none: {reason} are evaluated on as well, which says nothing about other images', *related]
    whole = data.splits['train']
    data.splits['train'] = _part(whole, [number for number in range(len(paths)) if number not in validation])
    data.splits['val'] = _part(whole, sorted(validation))
    how = f'{len(validation) / len(paths):.0%} ({len(validation)} of {len(paths)} images) for validation, '
    how += _earlier_text(earlier, paths, seed) if earlier else f'by a hash of each (seed {seed})'
    return [how, *related, *notes]


def _absent(data: OwnData) -> list[str]:
    """A line about the classes that are trained and not evaluated, where there are any."""
    counts = zip(data.classes, data.class_counts['train'], data.class_counts['val'])
    names = [repr(name) for name, trained, evaluated in counts if trained and not evaluated]
    return [f'not in validation, which says nothing about them: {few(names, NAMED)}'] if names else []


def _part(whole: Any, numbers: Sequence[int]) -> Any:
    if isinstance(whole, list):
        return [whole[number] for number in numbers]
    images = [whole['images'][number] for number in numbers]
    ids = {image['id'] for image in images}
    annotations = [annotation for annotation in whole['annotations'] if annotation['image_id'] in ids]
    return {**whole, 'images': images, 'annotations': annotations}


def group_images(
    paths: Sequence[str], contents: Sequence[str], seed: int, pattern: str | None = None
) -> list[ImageGroup]:
    """The groups of images, as `ensure_validation` has them, in the order of their places.

    Args:
        paths: in the data's folder, with ``/``.
        contents: a digest of each file.
        seed: of the places.
        pattern: see `ensure_validation`.
    """
    matches = _matches(paths, pattern)
    names = []
    for path, content, match in zip(paths, contents, matches):
        copy = ROBOFLOW_COPY.fullmatch(path)
        # Kinds are numbered by what names a group in which there are several.
        kinds = enumerate([match, copy and copy[1], content])
        names.append([(kind, name) for kind, name in kinds if name is not None])
    groups = []
    for numbers in _connected(names):
        own = {name for number in numbers for name in names[number]}
        naming = min(kind for kind, _ in own)
        place = min(_place(kind, name, seed) for kind, name in own if kind == naming)
        groups.append(ImageGroup(numbers, place, place < SHARE))
    return sorted(groups, key=lambda group: (group.place, group.images))


def _matches(paths: Sequence[str], pattern: str | None) -> list[str | None]:
    if pattern is None:
        return [None] * len(paths)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f'--group {pattern!r} is not a regular expression ({error}): write one such as "(video[0-9]+)_"'
        ) from error
    matches = [compiled.search(path) for path in paths]
    texts = [match and (match[1] if compiled.groups else match[0]) for match in matches]
    if not any(texts):
        raise UserError(
            f'--group {pattern!r} matches none of the {len(paths)} images, whose paths are such as {paths[0]}: write a '
            'regular expression for them'
        )
    return [text or None for text in texts]


def _connected(names: Sequence[Sequence[Any]]) -> list[list[int]]:
    """Numbers of the entries that share a name, or share one with others that do."""
    parents = list(range(len(names)))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number

    first: dict[Any, int] = {}
    for number, own in enumerate(names):
        for name in own:
            parents[root(number)] = root(first.setdefault(name, number))
    connected = defaultdict(list)
    for number in range(len(names)):
        connected[root(number)].append(number)
    return list(connected.values())


def _place(kind: int, name: str, seed: int) -> float:
    digest = hashlib.sha256(f'{seed} {kind} {name}'.encode('utf-8', 'surrogatepass')).digest()
    return int.from_bytes(digest[:7], 'big') / 2**56


def _settle(groups: Sequence[ImageGroup], paths: Sequence[str], earlier: EarlierSplit) -> list[ImageGroup]:
    """Put images where an earlier split has them, and new images of a group with the group.

    A group that is in both parts there, as by another ``--group``, becomes two; new images of it are trained on.
    """
    train, val = earlier.parts['train'], earlier.parts['val']
    if not any(path in train or path in val for path in paths):
        raise UserError(
            f'{earlier.folder} has the split of the run to resume, and none of its images is in this data: name the '
            'data that it was trained on, or train anew in another --work-dir'
        )
    result = []
    for group in groups:
        trained = [number for number in group.images if paths[number] in train]
        evaluated = [number for number in group.images if paths[number] in val - train]
        new = [number for number in group.images if paths[number] not in train | val]
        if not trained and not evaluated:
            result.append(group)
        if trained:
            result.append(ImageGroup(trained + new, group.place, validation=False, settled=True))
        if evaluated:
            images = evaluated if trained else evaluated + new
            result.append(ImageGroup(images, group.place, validation=True, settled=True))
    return result


def _earlier_text(earlier: EarlierSplit, paths: Sequence[str], seed: int) -> str:
    known = earlier.parts['train'] | earlier.parts['val']
    new, gone = len({*paths} - known), len(known - {*paths})
    return (
        f'as the run has it ({earlier.folder}), whatever --seed and --group; new images, by a hash of each (seed '
        f'{seed}): {new}; gone: {gone}'
    )


def _balance(groups: Sequence[ImageGroup], paths: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Move groups so that each class is in training and, where a second group has it, in validation too.

    Returns:
        A line for each group that was moved, with the reason.
    """
    having = defaultdict(list)
    for group in groups:
        for label in group.labels:
            having[label].append(group)
    moved = []

    def move(group: ImageGroup, to: str, reason: str) -> None:
        group.validation = not group.validation
        others = f' and {len(group.images) - 1} that belong to it' if len(group.images) > 1 else ''
        moved.append(f'moved to {to}, {reason}: {paths[group.images[0]]}{others}')

    def may_leave_training(group: ImageGroup) -> bool:
        if group.settled or group.validation:
            return False
        return all(
            any(other is not group and not other.validation for other in having[label]) for label in group.labels
        )

    rarest_first = sorted(having, key=lambda label: (len(having[label]), label))
    for label in rarest_first:
        if all(group.validation for group in having[label]):
            movable = [group for group in having[label] if not group.settled]
            if movable:
                move(movable[-1], 'training', f'where {classes[label]!r} would be missing')
    for label in rarest_first:
        if not any(group.validation for group in having[label]):
            movable = [group for group in having[label] if may_leave_training(group)]
            if movable:
                move(movable[0], 'validation', f'where {classes[label]!r} would be missing')
    if not any(group.validation for group in groups):
        movable = [group for group in groups if may_leave_training(group)]
        if movable:
            move(movable[0], 'validation', 'which would be empty')
    if len(moved) > NAMED:
        return [*moved[:NAMED], f'… and {len(moved) - NAMED} more are moved']
    return moved
