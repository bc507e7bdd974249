"""COCO annotation files (https://cocodataset.org/#format-data), also as Roboflow, CVAT and Label Studio write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from ..errors import UserError
from .content import Instances, Kind, Problem
from .folder import DataFolder, one_per_split
from .normal_form import AnnotatedObject, AnnotatedPicture, to_instances


def is_coco(content: Any) -> bool:
    """Whether the content of a JSON file is annotations of objects in COCO's format."""
    return isinstance(content, dict) and all(
        isinstance(content.get(part), list) for part in ('images', 'annotations', 'categories')
    )


def read_coco(folder: DataFolder, files: dict[str, Any]) -> Instances:
    """Read COCO annotations.

    Args:
        folder: where the pictures are.
        files: the content of each annotation file.

    Raises:
        UserError: the files cannot be told apart as train, val and test; or none of a file's pictures is there.
    """
    problems: list[Problem] = []
    chosen = one_per_split(folder, files, 'COCO annotation')
    names = {split: _categories(folder, file, files[file], problems) for split, file in chosen.items()}
    used = {obj.get('category_id') for file in chosen.values() for obj in files[file]['annotations'] if _is_dict(obj)}
    parents = {_parent_of_all(files[file]['categories'], used) for file in chosen.values()}
    classes = [name for name in dict.fromkeys(n for by_id in names.values() for n in by_id.values())]
    classes = [name for name in classes if name not in parents]
    splits = {}
    for split, file in chosen.items():
        splits[split] = _pictures(folder, file, files[file], names[split], problems)
    return to_instances('COCO', folder, splits, classes, problems)


def _categories(folder: DataFolder, file: str, content: Any, problems: list[Problem]) -> dict[Hashable, str]:
    found: dict[Hashable, str] = {}
    for number, category in _records(folder, file, content, 'categories', ('id', 'name'), problems):
        identifier, name = category['id'], str(category['name'])
        if identifier in found or name in found.values():
            what = f'category {number} has the id or name of one before (id {identifier}, name {name})'
            problems.append(Problem(folder.shown(file), what, Kind.DUPLICATE))
        else:
            found[identifier] = name
    return found


def _parent_of_all(categories: Iterable[Any], used: set[Any]) -> str | None:
    """Roboflow's first category: the parent of all others, without objects. It is no class."""
    first, *others = [category for category in categories if _is_dict(category)] or [{}]
    is_parent = others and {other.get('supercategory') for other in others} == {first.get('name')}
    return first['name'] if is_parent and first.get('id') not in used else None


def _pictures(
    folder: DataFolder, file: str, content: Any, names: dict[Hashable, str], problems: list[Problem]
) -> list[AnnotatedPicture]:
    def report(what: str, kind: Kind) -> None:
        problems.append(Problem(folder.shown(file), what, kind))

    images = _images(folder, file, content, report, problems)
    seen: Counter = Counter()
    for number, record in _records(folder, file, content, 'annotations', ('image_id', 'category_id'), problems):
        identifier = record.get('id', f'number {number}')
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
    folder: DataFolder, file: str, content: Any, report: Callable[[str, Kind], None], problems: list[Problem]
) -> dict[Hashable, AnnotatedPicture | None]:
    """Pictures by their ids; None where a picture was named in ``problems``, so that its objects are not as well."""
    records = list(_records(folder, file, content, 'images', ('id', 'file_name'), problems))
    names = [str(image['file_name']) for _, image in records]
    base = folder.base_of(names, near=file)
    if base is None:
        example = f' (the first is {names[0]})' if names else ''
        raise UserError(
            f'{folder.shown(file)} names {len(names)} pictures{example}, none of which is in {folder.root}: put the '
            f'pictures there, in any folder'
        )
    images: dict[Hashable, AnnotatedPicture | None] = {}
    for name, (number, image) in zip(names, records):
        path = folder.inside(base, name)
        if image['id'] in images:
            report(f'image {number} ({name}) has the id {image["id"]} of one before', Kind.DUPLICATE)
            continue
        images[image['id']] = None
        if path is None:
            report(f'image {number} has the file name {name}, which is not in the folder', Kind.OUTSIDE_FOLDER)
            continue
        size = image.get('width'), image.get('height')
        if not all(type(side) is int for side in size) and size != (None, None):
            report(f'image {number} ({name}) has the width {size[0]} and height {size[1]}', Kind.MALFORMED)
            continue
        images[image['id']] = AnnotatedPicture(path, file, size=None if None in size else size)
    return images


def _object(
    record: dict[str, Any], name: str, place: str, report: Callable[[str, Kind], None]
) -> AnnotatedObject | None:
    # Files of boxes alone often have an empty list here.
    segmentation, box = record.get('segmentation') or None, record.get('bbox')
    if isinstance(segmentation, list) and not all(isinstance(part, list) for part in segmentation):
        return report(f'{place} has a segmentation that is neither a list of polygons nor RLE', Kind.MALFORMED)
    if segmentation is None and box is None:
        return report(f'{place} has neither bbox nor segmentation', Kind.MALFORMED)
    return AnnotatedObject(name, place, box, segmentation, bool(record.get('iscrowd')))


def _records(
    folder: DataFolder, file: str, content: Any, part: str, needed: tuple[str, ...], problems: list[Problem]
) -> Iterable[tuple[int, dict[str, Any]]]:
    """The sound records of a part, with their positions."""
    for number, record in enumerate(content[part]):
        lacking = [key for key in needed if not _is_dict(record) or not isinstance(record.get(key), (str, int))]
        if lacking:
            what = f'{part}[{number}] has no {" and ".join(lacking)} that can be used (counted from 0)'
            problems.append(Problem(folder.shown(file), what, Kind.MALFORMED))
        else:
            yield number, record


def _is_dict(record: Any) -> bool:
    return isinstance(record, dict)
