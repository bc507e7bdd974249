"""A validation part for data that comes without one."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError, few
from ..layouts.annotated_data import DetectionData, SegmentationData
from .decoded_images import DecodedImage
from .image_descriptions import ImageDescription

TOO_FEW = 10
"""Below so many images there is nothing to split: they are trained on and evaluated on."""

SHARE = 0.2
"""Of the images, for validation: the probability of each group of them."""

ROBOFLOW_COPY = re.compile(r'(.+)\.rf\.[0-9A-Za-z]+\.[A-Za-z]+')
"""Of a path: one of the copies of an image, each augmented at random, that Roboflow exports. Its group is theirs."""

SHOWN = 5
"""Moved groups, and classes, that are named to people."""


@dataclass
class ImageGroup:
    """Images that are much alike, and so are never apart.

    Attributes:
        images: their numbers.
        place: a number from 0 to 1 that depends on nothing but the group's name and the seed.
        labels: the classes that are in them.
        validation: whether they are for validation; below `SHARE` the place says so.
        settled: whether they stay where they are, as a resumed run has them.
    """

    images: list[int]
    place: float
    labels: set[int]
    validation: bool
    settled: bool = False


@dataclass(frozen=True)
class EarlierSplit:
    """How a run that is resumed has split its images.

    Attributes:
        folder: where that is written.
        parts: 'train' and 'val', each the images' paths in the data's folder.
    """

    folder: Path
    parts: Mapping[str, frozenset[str]]


def read_earlier_split(folder: Path, root: Path) -> EarlierSplit | None:
    """The split that a run wrote into the ``data`` folder of its work directory; None where it wrote none.

    Args:
        folder: with ``train.json`` and ``val.json``.
        root: the data's folder, to which the paths in lists of label maps are made relative.

    Raises:
        UserError: a file is there, and not as it was written.
    """
    parts = {}
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
    data: DetectionData | SegmentationData,
    descriptions: dict[str, list[ImageDescription]],
    images: Mapping[Path, DecodedImage],
    seed: int,
    pattern: str | None = None,
    earlier: EarlierSplit | None = None,
) -> str:
    """Give the data, and what is known of its ``descriptions``, a part 'val' where they have none.

    Each group of images is put where the hash of its name and the seed says, so that further images do not move those
    that are there. A group is the images whose path has the same match of ``pattern``, Roboflow's copies of an image
    (its name is before ``.rf.``), images of the same bytes, and whatever hangs together by these. Its name is that
    match, else that name, else its content: one that a further twin does not change.

    There are two exceptions. Images that hang together since an image was added that is like both are put together. And
    where the hash leaves a class out of validation, or out of training, a group that has it is moved there: that each
    class is in both and that none is ever moved cannot both hold. What was moved is said, and ``earlier`` prevents it.

    Args:
        data: as read; its splits are changed.
        descriptions: of each split, in the data's order; they are changed likewise.
        images: by path, as decoded.
        seed: another one gives another split.
        pattern: a regular expression, searched in each image's path in the data's folder. Its first group, or without
            groups the match, is the image's group. Images without a match are in none. Default: no such groups.
        earlier: the split of the run that is resumed: what is in it stays where it is. Default: there is none.

    Returns:
        How, for people, a line for each thing to say.

    Raises:
        UserError: ``pattern`` is no regular expression, matches nothing, or the data has a validation part.
    """
    if {'val', 'test'} & data.splits.keys():
        if pattern is not None:
            raise UserError(
                f'--group {pattern!r} is for data that has no validation part yet, but {data.root} has '
                f'{", ".join(data.splits)}: leave it out'
            )
        lines = ['as the data has it']
        if 'val' not in data.splits:
            data.splits['val'], descriptions['val'] = data.splits['test'], descriptions['test']
            lines = ['as the data has it; test serves as val, too']
    else:
        lines = _divide(data, descriptions, images, seed, pattern, earlier)
    return '\n'.join([*lines, *_absent(descriptions, data.classes)])


def _divide(
    data: DetectionData | SegmentationData,
    descriptions: dict[str, list[ImageDescription]],
    images: Mapping[Path, DecodedImage],
    seed: int,
    pattern: str | None,
    earlier: EarlierSplit | None,
) -> list[str]:
    paths = [path.relative_to(data.root).as_posix() for path in data.image_paths['train']]
    labels = [image.labels for image in descriptions['train']]
    groups = group_images(paths, [images[path].sha256 for path in data.image_paths['train']], labels, seed, pattern)
    shown = f'{len(paths)} images are {len(groups)} group{"s" if len(groups) > 1 else ""}'
    related = [f'{shown}: those that are equal or belong together'] if len(groups) < len(paths) else []
    if earlier:
        groups = _settle(groups, paths, labels, earlier)
    notes = _balance(groups, paths, data.classes) if earlier or len(paths) >= TOO_FEW else []
    validation = {number for group in groups if group.validation for number in group.images}
    if not validation or (len(paths) < TOO_FEW and not earlier):
        data.splits['val'], descriptions['val'] = data.splits['train'], descriptions['train']
        reason = f'fewer than {TOO_FEW} images' if len(paths) < TOO_FEW else 'images that cannot be divided'
        return [f'none: {reason} are evaluated on as well, which says nothing about other images', *related]
    whole, known = data.splits['train'], descriptions['train']
    for split, chosen in (('train', False), ('val', True)):
        part = [number for number in range(len(paths)) if (number in validation) is chosen]
        data.splits[split], descriptions[split] = _part(whole, part), [known[number] for number in part]
    how = f'{len(validation) / len(paths):.0%} ({len(validation)} of {len(paths)} images) for validation, '
    how += _as_earlier(earlier, paths, seed) if earlier else f'by a hash of each (seed {seed})'
    return [how, *related, *notes]


def _absent(descriptions: Mapping[str, Sequence[ImageDescription]], classes: Sequence[str]) -> list[str]:
    """Which classes are trained and not evaluated, for people."""
    trained, evaluated = (
        {label for image in descriptions[part] for label in image.labels} for part in ('train', 'val')
    )
    names = [repr(classes[label]) for label in sorted(trained - evaluated)]
    if not names:
        return []
    return [f'not in validation, which says nothing about them: {few(names, SHOWN)}']


def _part(whole: Any, numbers: Sequence[int]) -> Any:
    if isinstance(whole, list):
        return [whole[number] for number in numbers]
    images = [whole['images'][number] for number in numbers]
    ids = {image['id'] for image in images}
    return {**whole, 'images': images, 'annotations': [one for one in whole['annotations'] if one['image_id'] in ids]}


def group_images(
    paths: Sequence[str],
    contents: Sequence[str],
    labels: Sequence[Iterable[int]],
    seed: int,
    pattern: str | None = None,
) -> list[ImageGroup]:
    """The groups of images, as `ensure_validation` has them, in the order of their places.

    Args:
        paths: in the data's folder, with ``/``.
        contents: a digest of each file.
        labels: the classes in each image.
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
        groups.append(_group(numbers, labels, place, place < SHARE))
    return sorted(groups, key=lambda group: (group.place, group.images))


def _group(
    images: list[int], labels: Sequence[Iterable[int]], place: float, validation: bool, settled: bool = False
) -> ImageGroup:
    return ImageGroup(images, place, {label for number in images for label in labels[number]}, validation, settled)


def _matches(paths: Sequence[str], pattern: str | None) -> list[str | None]:
    if pattern is None:
        return [None] * len(paths)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f'--group {pattern!r} is no regular expression ({error}): write one such as "(video[0-9]+)_"'
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


def _settle(
    groups: Sequence[ImageGroup], paths: Sequence[str], labels: Sequence[Iterable[int]], earlier: EarlierSplit
) -> list[ImageGroup]:
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
            result.append(_group(trained + new, labels, group.place, validation=False, settled=True))
        if evaluated:
            images = evaluated if trained else evaluated + new
            result.append(_group(images, labels, group.place, validation=True, settled=True))
    return result


def _as_earlier(earlier: EarlierSplit, paths: Sequence[str], seed: int) -> str:
    known = earlier.parts['train'] | earlier.parts['val']
    new, gone = len({*paths} - known), len(known - {*paths})
    return (
        f'as the run has it ({earlier.folder}), whatever --seed and --group; new images, by a hash of each (seed '
        f'{seed}): {new}; gone: {gone}'
    )


def _balance(groups: Sequence[ImageGroup], paths: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Move groups so that each class is in both parts, where that can be; in training if only in one.

    Returns:
        What was moved and why, for people.
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
        left = (any(not other.validation for other in having[label] if other is not group) for label in group.labels)
        return not group.settled and not group.validation and all(left)

    rarest_first = sorted(having, key=lambda label: (len(having[label]), label))
    for label in rarest_first:
        if all(group.validation for group in having[label]):
            for group in [group for group in having[label] if not group.settled][-1:]:
                move(group, 'training', f'where {classes[label]!r} would be missing')
    for label in rarest_first:
        if not any(group.validation for group in having[label]):
            for group in [group for group in having[label] if may_leave_training(group)][:1]:
                move(group, 'validation', f'where {classes[label]!r} would be missing')
    if not any(group.validation for group in groups):
        for group in [group for group in groups if may_leave_training(group)][:1]:
            move(group, 'validation', 'which would be empty')
    return moved[:SHOWN] + ([f'… and {len(moved) - SHOWN} more are moved'] if len(moved) > SHOWN else [])
