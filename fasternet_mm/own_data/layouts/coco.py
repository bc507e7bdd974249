"""COCO annotation files (https://cocodataset.org/#format-data), also as Roboflow, CVAT and Label Studio write them."""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Container, Hashable
from functools import partial
from typing import Any

from .annotated_data import DetectionData
from .data_folder import DataFolder
from .folder_words import split_of
from .labelme import BACKGROUND
from .named_splits import one_per_split, split_of_one_file
from .normal_form import AnnotatedImage, AnnotatedObject, flag, to_normal_form, truth_value
from .problems import Fault, UnusableError

NumberedRecord = tuple[int, dict[str, Any]]
"""A record with its position in its list, counted from 0."""

NEEDED = dict(images=('id', 'file_name'), annotations=('image_id', 'category_id'), categories=('id', 'name'))
"""The keys that each record of a list must have."""

IDS = ('id', 'image_id', 'category_id')


def is_coco(content: Any) -> bool:
    """Whether the content of a JSON file is annotations of objects in COCO's format."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in NEEDED)


def read_coco(folder: DataFolder, files: dict[str, Any]) -> DetectionData:
    """Read COCO annotations, from the content of each annotation file.

    Raises:
        UserError: the files cannot be told apart as train, val and test; or none of a file's images is there.
    """
    chosen = one_per_split(folder, files, 'COCO')
    records = {
        split: {key: _sound_records(folder, file, files[file][key], key) for key in NEEDED}
        for split, file in chosen.items()
    }
    used = {annotation['category_id'] for lists in records.values() for _, annotation in lists['annotations']}
    classes: dict[str, None] = {}
    splits: dict[str, list[AnnotatedImage]] = {}
    for split, file in chosen.items():
        names = _class_names(folder, file, records[split]['categories'], used)
        splits[split] = _annotated_images(folder, file, records[split], names)
        classes |= dict.fromkeys(names.values())
    return to_normal_form('COCO', folder, split_of_one_file(folder, splits, chosen['train']), [*classes])


def _sound_records(folder: DataFolder, file: str, records: list[Any], key: str) -> list[NumberedRecord]:
    """The records of a list that have what each needs; ids that are whole numbers become integers."""
    sound = []
    for number, record in enumerate(records):
        values = {}
        if isinstance(record, dict):
            values = {**record, **{name: _identifier(record[name]) for name in IDS if name in record}}
        lacking = [name for name in NEEDED[key] if type(values.get(name)) not in (str, int)]
        if lacking:
            folder.report(file, f'{key}[{number}] has no {" and ".join(lacking)} that can be used (counted from 0)')
        else:
            sound.append((number, values))
    return sound


def _identifier(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unknown(identifier: Hashable, known: Container[Hashable]) -> str:
    """An id that is not known, as JSON has it: text in quotes. The same number or text is said where that is known."""
    twin: Hashable = str(identifier)
    if isinstance(identifier, str):
        twin = int(identifier) if identifier.strip().isdecimal() else None
    text = json.dumps(identifier, ensure_ascii=False)
    return f'{text} (not {json.dumps(twin)})' if twin in known else text


def _class_names(
    folder: DataFolder, file: str, categories: list[NumberedRecord], used: set[Hashable]
) -> dict[Hashable, str]:
    """Names of classes by their ids, without two that count only where they have objects.

    These are Roboflow's first, the parent of all others, and LabelMe's ``_background_``.
    """
    parents = {str(category.get('supercategory')) for _, category in categories[1:]}
    names: dict[Hashable, str] = {}
    for place, (number, category) in enumerate(categories):
        identifier, name = category['id'], str(category['name'])
        is_parent = place == 0 and parents == {category['name']}
        if (is_parent or name == BACKGROUND) and identifier not in used:
            continue
        if identifier in names or name in names.values():
            what = f'category {number} has the id or name of one before (id {json.dumps(identifier)}, name {name})'
            folder.report(file, what, Fault.DUPLICATE)
        else:
            names[identifier] = name
    return names


def _annotated_images(
    folder: DataFolder, file: str, records: dict[str, list[NumberedRecord]], names: dict[Hashable, str]
) -> list[AnnotatedImage]:
    report = partial(folder.report, file)
    images = _images(folder, file, records['images'])
    brush_masks = _brush_masks(records['annotations'])
    if brush_masks:
        what = (
            f'has {len(brush_masks)} RLE masks, all of them crowds, and no other crowds: they are taken as objects, as '
            'labeling tools mark the masks that are drawn with a brush so'
        )
        report(what, Fault.BRUSH_MASKS)
    seen: Counter[str] = Counter()
    for number, record in records['annotations']:
        identifier = json.dumps(record['id']) if 'id' in record else f'[{number}]'
        image, category = images.get(record['image_id']), record['category_id']
        place = f'annotation {identifier}' + (f' ({image.file})' if image else '')
        seen[identifier] += 1
        if seen[identifier] == 2:
            report(f'{place} has the id of one before', Fault.DUPLICATE_OBJECT_ID)
        if record['image_id'] not in images:
            unknown = _unknown(record['image_id'], images)
            report(f'{place} has the image_id {unknown}, which no image has', Fault.UNKNOWN_ID)
        elif category not in names:
            unknown = _unknown(category, names)
            report(f'{place} has the category_id {unknown}, which no category has', Fault.UNKNOWN_ID)
        elif image:
            try:
                image.objects.append(_object(record, place, names[category], number in brush_masks))
            except UnusableError as error:
                report(str(error), error.kind)
    return [image for image in images.values() if image]


def _images(folder: DataFolder, file: str, records: list[NumberedRecord]) -> dict[Hashable, AnnotatedImage | None]:
    """Images by their ids; None for those that were reported, so that their objects are not as well."""
    names = [str(image['file_name']) for _, image in records]
    paths = folder.find_images(names, file, split_of(file))
    images: dict[Hashable, AnnotatedImage | None] = {}
    for name, path, (number, record) in zip(names, paths, records):
        place = f'image {number} ({name})'
        identifier, height, width = record['id'], record.get('height'), record.get('width')
        has_size = (height, width) != (None, None)
        image = None
        if identifier in images:
            folder.report(file, f'{place} has the id {json.dumps(identifier)} of one before', Fault.DUPLICATE)
        elif path is None:
            folder.report(file, f'{place} is not in the folder', Fault.OUTSIDE_FOLDER)
        elif has_size and not (_is_whole(height) and _is_whole(width)):
            folder.report(file, f'{place} has the height {reprlib.repr(height)} and the width {reprlib.repr(width)}')
        else:
            image = AnnotatedImage(path, file, size=(height, width) if has_size else None)
        images[identifier] = image
    return images


def _is_whole(side: Any) -> bool:
    return type(side) in (int, float) and side % 1 == 0


def _object(record: dict[str, Any], place: str, name: str, is_brush_mask: bool) -> AnnotatedObject:
    """The object; it is a crowd where ``iscrowd`` says so, or ``ignore``, which converters from Pascal VOC write."""
    is_ignored, is_crowd = (flag(record.get(key), key, place) for key in ('ignore', 'iscrowd'))
    crowd = is_ignored or (is_crowd and not is_brush_mask)
    return AnnotatedObject(name, place, record.get('bbox') or None, record.get('segmentation'), crowd)


def _brush_masks(records: list[NumberedRecord]) -> set[int]:
    """The positions of crowds that are objects drawn with a brush; none where crowds are what COCO means by them.

    CVAT and Datumaro write every such mask as RLE with ``iscrowd`` 1. In COCO's own files, too, crowds and nothing else
    are RLE; but there other objects are not crowds, and the records have no ``attributes``, which these tools write.
    """
    crowds = {number: record for number, record in records if truth_value(record.get('iscrowd'))}
    masks = {number for number, record in records if isinstance(record.get('segmentation'), dict)}
    from_tool = all(isinstance(record.get('attributes'), dict) for record in crowds.values())
    if masks == crowds.keys() and (from_tool or len(crowds) == len(records)):
        return masks
    return set()
