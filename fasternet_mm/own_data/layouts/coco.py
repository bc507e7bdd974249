"""COCO annotation files (https://cocodataset.org/#format-data), also as Roboflow, CVAT and Label Studio write them."""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Container, Hashable
from typing import Any

from .annotated_data import DetectionData, Fault, Problem, Report, truth_value
from .data_folder import DataFolder, one_per_split
from .folder_words import split_of
from .labelme import BACKGROUND
from .normal_form import AnnotatedImage, AnnotatedObject, split_of_one_file, to_instances

Record = tuple[int, dict[str, Any]]
NEEDED = dict(images=('id', 'file_name'), annotations=('image_id', 'category_id'), categories=('id', 'name'))
"""What the records of each part cannot be used without."""

IDS = ('id', 'image_id', 'category_id')


def is_coco(content: Any) -> bool:
    """Whether the content of a JSON file is annotations of objects in COCO's format."""
    return isinstance(content, dict) and all(isinstance(content.get(part), list) for part in NEEDED)


def read_coco(folder: DataFolder, files: dict[str, Any], problems: list[Problem]) -> DetectionData:
    """Read COCO annotations.

    Args:
        folder: where the images are.
        files: the content of each annotation file.
        problems: to add to.

    Raises:
        UserError: the files cannot be told apart as train, val and test; or none of a file's images is there.
    """
    chosen = one_per_split(folder, files, 'COCO annotation')
    records = {
        split: {part: _sound(folder, file, files[file], part, problems) for part in NEEDED}
        for split, file in chosen.items()
    }
    used = {obj['category_id'] for parts in records.values() for _, obj in parts['annotations']}
    names: dict[str, dict[Hashable, str]] = {}
    splits: dict[str, list[AnnotatedImage]] = {}
    for split, file in chosen.items():
        names[split] = _categories(folder, file, records[split]['categories'], used, problems)
        splits[split] = _annotated_images(folder, file, records[split], names[split], problems)
    splits = split_of_one_file(folder, splits, chosen['train'])
    classes = list(dict.fromkeys(name for by_id in names.values() for name in by_id.values()))
    return to_instances('COCO', folder, splits, classes, problems)


def _sound(folder: DataFolder, file: str, content: Any, part: str, problems: list[Problem]) -> list[Record]:
    """The records of a part that have what each needs, with their positions; ids that are whole numbers as integers."""
    sound = []
    for number, record in enumerate(content[part]):
        values = {}
        if isinstance(record, dict):
            values = {**record, **{key: _identifier(record[key]) for key in IDS if key in record}}
        lacking = [key for key in NEEDED[part] if type(values.get(key)) not in (str, int)]
        if lacking:
            what = f'{part}[{number}] has no {" and ".join(lacking)} that can be used (counted from 0)'
            problems.append(Problem(folder.shown(file), what, Fault.MALFORMED))
        else:
            sound.append((number, values))
    return sound


def _identifier(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(identifier: Hashable, known: Container[Hashable]) -> str:
    """An id that is not known, as JSON has it: text in quotes. The same number or text is said where that is known."""
    twin: Hashable = str(identifier)
    if isinstance(identifier, str):
        twin = int(identifier) if identifier.strip().isdecimal() else None
    shown = json.dumps(identifier, ensure_ascii=False)
    return f'{shown} (not {json.dumps(twin)})' if twin in known else shown


def _categories(
    folder: DataFolder, file: str, records: list[Record], used: set[Hashable], problems: list[Problem]
) -> dict[Hashable, str]:
    """Names of classes by their ids, without two that are none where they have no objects.

    These are Roboflow's first, the parent of all others, and LabelMe's ``_background_``.
    """
    parents = {str(category.get('supercategory')) for _, category in records[1:]}
    if parents == {records[0][1]['name'] if records else None} and records[0][1]['id'] not in used:
        records = records[1:]
    records = [
        (number, category) for number, category in records if category['name'] != BACKGROUND or category['id'] in used
    ]
    found: dict[Hashable, str] = {}
    for number, category in records:
        identifier, name = category['id'], str(category['name'])
        if identifier in found or name in found.values():
            what = f'category {number} has the id or name of one before (id {json.dumps(identifier)}, name {name})'
            problems.append(Problem(folder.shown(file), what, Fault.DUPLICATE))
        else:
            found[identifier] = name
    return found


def _annotated_images(
    folder: DataFolder,
    file: str,
    records: dict[str, list[Record]],
    names: dict[Hashable, str],
    problems: list[Problem],
) -> list[AnnotatedImage]:
    report = folder.reporter(file, problems)
    images = _images(folder, file, records['images'], problems, report)
    brush_masks = _brush_masks(records['annotations'])
    if brush_masks:
        what = (
            f'has {len(brush_masks)} RLE masks, all of them crowds, and no other crowds: they are taken as objects, as '
            'labeling tools mark the masks that are drawn with a brush so'
        )
        report(what, Fault.BRUSH_MASKS)
    seen: Counter = Counter()
    for number, record in records['annotations']:
        identifier = json.dumps(record['id']) if 'id' in record else f'[{number}]'
        image = images.get(record['image_id'])
        place = f'annotation {identifier}' + (f' ({image.file})' if image else '')
        seen[identifier] += 1
        if seen[identifier] == 2:
            report(f'{place} has the id of one before', Fault.DUPLICATE_OBJECT_ID)
        if record['image_id'] not in images:
            what = f'{place} has the image_id {_shown(record["image_id"], images)}, which no image has'
            report(what, Fault.UNKNOWN_ID)
        elif record['category_id'] not in names:
            what = f'{place} has the category_id {_shown(record["category_id"], names)}, which no category has'
            report(what, Fault.UNKNOWN_ID)
        elif image:
            obj = _object(record, names[record['category_id']], place, number in brush_masks, report)
            image.objects += [obj] if obj else []
    return [image for image in images.values() if image]


def _images(
    folder: DataFolder, file: str, records: list[Record], problems: list[Problem], report: Report
) -> dict[Hashable, AnnotatedImage | None]:
    """Images by their ids; None for those that were reported, so that their objects are not as well."""
    names = [str(image['file_name']) for _, image in records]
    paths = folder.find_images(names, file, split_of(file), problems)
    images: dict[Hashable, AnnotatedImage | None] = {}
    for name, path, (number, image) in zip(names, paths, records):
        place = f'image {number} ({name})'
        if image['id'] in images:
            report(f'{place} has the id {json.dumps(image["id"])} of one before', Fault.DUPLICATE)
            images[image['id']] = None
            continue
        images[image['id']] = None
        size = image.get('width'), image.get('height')
        if path is None:
            report(f'{place} is not in the folder', Fault.OUTSIDE_FOLDER)
        elif size != (None, None) and not all(type(side) in (int, float) and side % 1 == 0 for side in size):
            report(f'{place} has the width {reprlib.repr(size[0])} and height {reprlib.repr(size[1])}')
        else:
            images[image['id']] = AnnotatedImage(path, file, size=None if None in size else size)
    return images


def _object(
    record: dict[str, Any], name: str, place: str, is_brush_mask: bool, report: Report
) -> AnnotatedObject | None:
    """The object; it is a crowd where ``iscrowd`` says so, or ``ignore``, which converters from Pascal VOC write."""
    flags = dict(ignore=truth_value(record.get('ignore')), iscrowd=truth_value(record.get('iscrowd')))
    for flag, value in flags.items():
        if value is None:
            return report(f'{place} has the {flag} {reprlib.repr(record[flag])}: 0 or 1 is needed')
    crowd = flags['ignore'] or (flags['iscrowd'] and not is_brush_mask)
    return AnnotatedObject(name, place, record.get('bbox') or None, record.get('segmentation'), crowd)


def _brush_masks(records: list[Record]) -> set[int]:
    """The positions of crowds that are objects drawn with a brush; none where crowds are what COCO means by them.

    CVAT and Datumaro write every such mask as RLE with ``iscrowd`` 1. In COCO's own files, too, crowds and nothing else
    are RLE; but there other objects are not crowds, and the records have no ``attributes``, which these tools write.
    """
    crowds = {number: record for number, record in records if truth_value(record.get('iscrowd'))}
    masks = {number for number, record in records if isinstance(record.get('segmentation'), dict)}
    from_tool = all(isinstance(record.get('attributes'), dict) for record in crowds.values())
    return masks if masks == crowds.keys() and (from_tool or len(crowds) == len(records)) else set()
