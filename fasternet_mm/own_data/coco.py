"""COCO annotation files (https://cocodataset.org/#format-data), also as Roboflow, CVAT and Label Studio write them."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

from .content import Instances, Kind, Problem
from .folder import DataFolder, one_per_split
from .folder_words import split_of
from .normal_form import AnnotatedObject, AnnotatedPicture, to_instances

Record = tuple[int, dict[str, Any]]
NEEDED = dict(images=('id', 'file_name'), annotations=('image_id', 'category_id'), categories=('id', 'name'))
"""What the records of each part cannot be used without."""


def is_coco(content: Any) -> bool:
    """Whether the content of a JSON file is annotations of objects in COCO's format."""
    return isinstance(content, dict) and all(isinstance(content.get(part), list) for part in NEEDED)


def read_coco(folder: DataFolder, files: dict[str, Any], problems: list[Problem]) -> Instances:
    """Read COCO annotations.

    Args:
        folder: where the pictures are.
        files: the content of each annotation file.
        problems: to add to.

    Raises:
        UserError: the files cannot be told apart as train, val and test; or none of a file's pictures is there.
    """
    chosen = one_per_split(folder, files, 'COCO annotation')
    records = {
        split: {part: _sound(folder, file, files[file], part, problems) for part in NEEDED}
        for split, file in chosen.items()
    }
    used = {obj['category_id'] for parts in records.values() for _, obj in parts['annotations']}
    names: dict[str, dict[Hashable, str]] = {}
    splits: dict[str, list[AnnotatedPicture]] = {}
    for split, file in chosen.items():
        names[split] = _categories(folder, file, records[split]['categories'], used, problems)
        splits[split] = _pictures(folder, file, records[split], names[split], problems)
    classes = list(dict.fromkeys(name for by_id in names.values() for name in by_id.values()))
    return to_instances('COCO', folder, splits, classes, problems)


def _sound(folder: DataFolder, file: str, content: Any, part: str, problems: list[Problem]) -> list[Record]:
    """The records of a part that have what each needs, with their positions."""
    sound = []
    for number, record in enumerate(content[part]):
        is_dict = isinstance(record, dict)
        lacking = [key for key in NEEDED[part] if not is_dict or not isinstance(record.get(key), (str, int))]
        if lacking:
            what = f'{part}[{number}] has no {" and ".join(lacking)} that can be used (counted from 0)'
            problems.append(Problem(folder.shown(file), what, Kind.MALFORMED))
        else:
            sound.append((number, record))
    return sound


def _categories(
    folder: DataFolder, file: str, records: list[Record], used: set[Hashable], problems: list[Problem]
) -> dict[Hashable, str]:
    """Names of classes by their ids, without Roboflow's first: the parent of all others, without objects."""
    parents = {str(category.get('supercategory')) for _, category in records[1:]}
    if parents == {records[0][1]['name'] if records else None} and records[0][1]['id'] not in used:
        records = records[1:]
    found: dict[Hashable, str] = {}
    for number, category in records:
        identifier, name = category['id'], str(category['name'])
        if identifier in found or name in found.values():
            what = f'category {number} has the id or name of one before (id {identifier}, name {name})'
            problems.append(Problem(folder.shown(file), what, Kind.DUPLICATE))
        else:
            found[identifier] = name
    return found


def _pictures(
    folder: DataFolder,
    file: str,
    records: dict[str, list[Record]],
    names: dict[Hashable, str],
    problems: list[Problem],
) -> list[AnnotatedPicture]:
    def report(what: str, kind: Kind = Kind.MALFORMED) -> None:
        problems.append(Problem(folder.shown(file), what, kind))

    images = _images(folder, file, records['images'], problems, report)
    seen: Counter = Counter()
    for number, record in records['annotations']:
        identifier = str(record.get('id', f'[{number}]'))
        picture = images.get(record['image_id'])
        place = f'annotation {identifier}' + (f' ({picture.file})' if picture else '')
        seen[identifier] += 1
        if seen[identifier] == 2:
            report(f'{place} has the id of one before', Kind.DUPLICATE_OBJECT_ID)
        if record['image_id'] not in images:
            report(f'{place} has the image_id {record["image_id"]}, which no image has', Kind.UNKNOWN_ID)
        elif record['category_id'] not in names:
            report(f'{place} has the category_id {record["category_id"]}, which no category has', Kind.UNKNOWN_ID)
        elif picture:
            obj = _object(record, names[record['category_id']], place, report)
            picture.objects += [obj] if obj else []
    return [picture for picture in images.values() if picture]


def _images(
    folder: DataFolder, file: str, records: list[Record], problems: list[Problem], report: Callable[..., None]
) -> dict[Hashable, AnnotatedPicture | None]:
    """Pictures by their ids; None for those that were reported, so that their objects are not as well."""
    names = [str(image['file_name']) for _, image in records]
    paths = folder.find_images(names, file, split_of(file), problems)
    images: dict[Hashable, AnnotatedPicture | None] = {}
    for name, path, (number, image) in zip(names, paths, records):
        place = f'image {number} ({name})'
        if image['id'] in images:
            report(f'{place} has the id {image["id"]} of one before', Kind.DUPLICATE)
            images[image['id']] = None
            continue
        images[image['id']] = None
        size = image.get('width'), image.get('height')
        if path is None:
            report(f'{place} is not in the folder', Kind.OUTSIDE_FOLDER)
        elif size != (None, None) and not all(type(side) in (int, float) and side % 1 == 0 for side in size):
            report(f'{place} has the width {reprlib.repr(size[0])} and height {reprlib.repr(size[1])}')
        else:
            images[image['id']] = AnnotatedPicture(path, file, size=None if None in size else size)
    return images


def _object(record: dict[str, Any], name: str, place: str, report: Callable[..., None]) -> AnnotatedObject | None:
    # Files of boxes alone often have an empty list here.
    segmentation, box = record.get('segmentation') or None, record.get('bbox')
    parts = segmentation if isinstance(segmentation, list) else [] if isinstance(segmentation, dict) else [segmentation]
    if segmentation is not None and not all(isinstance(part, list) for part in parts):
        return report(f'{place} has a segmentation that is neither a list of polygons nor RLE')
    if segmentation is None and box is None:
        return report(f'{place} has neither bbox nor segmentation')
    return AnnotatedObject(name, place, box, segmentation, bool(record.get('iscrowd')))
