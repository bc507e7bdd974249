"""JSON of the VGG Image Annotator, version 2 and 1: a project, or its exported annotations.

Format: https://www.robots.ox.ac.uk/~vgg/software/via/. The balloons of Matterport's Mask R-CNN are such data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any

from ...errors import UserError
from .annotated_data import DetectionData
from .data_folder import DataFolder
from .folder_words import split_of
from .named_splits import one_per_split, split_of_one_file
from .normal_form import AnnotatedImage, AnnotatedObject, rectangles_are_boxes, to_normal_form, usable_objects
from .outlines import ellipse, rectangle
from .problems import Fault, UnusableError

CLASS_WORDS = ('class', 'label', 'category', 'type', 'name', 'object')
"""Names of attributes that are taken for the class rather than others."""

ONLY_CLASS = 'object'
"""The class where regions have no attribute, as in the balloons."""


def via_images(content: Any) -> dict[str, Any] | None:
    """The records of images in the content of a JSON file, by their keys; None where the file is not VIA's."""
    images = content.get('_via_img_metadata', content) if isinstance(content, dict) else None
    return images if isinstance(images, dict) and any(map(_is_image, images.values())) else None


def _is_image(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and isinstance(record.get('filename'), str)
        and isinstance(record.get('regions'), (list, dict))
    )


def read_via(folder: DataFolder, files: dict[str, dict[str, Any]]) -> DetectionData:
    """Read VIA's polygons, rectangles, circles and ellipses, from the images' records of each annotation file.

    Raises:
        UserError: the files cannot be told apart as train, val and test; no image is there; or several attributes of
            regions may be the class.
    """
    chosen = one_per_split(folder, files, 'VIA')
    records = {split: _sound_records(folder, file, files[file]) for split, file in chosen.items()}
    attribute = _class_attribute(folder, [record for part in records.values() for record in part])
    splits = {split: _images(folder, file, records[split], attribute) for split, file in chosen.items()}
    splits = split_of_one_file(folder, splits, chosen['train'])
    rectangles_are_boxes([image for images in splits.values() for image in images])
    return to_normal_form('VIA', folder, splits)


def _sound_records(folder: DataFolder, file: str, images: dict[str, Any]) -> list[dict[str, Any]]:
    for key, record in images.items():
        if not _is_image(record):
            folder.report(file, f'has a record {key[:60]} without a filename or regions')
    return [record for record in images.values() if _is_image(record)]


def _class_attribute(folder: DataFolder, records: Iterable[dict[str, Any]]) -> str | None:
    """The attribute of regions that says their class; None where they have none."""
    regions = [region for record in records for region in _regions(record)]
    values = defaultdict(list)
    for region in regions:
        for name, value in _attributes(region).items():
            values[name].append(_text(value))
    if len(values) < 2:
        return next(iter(values), None)
    # A class is given for every region, and is the same for many.
    candidates = [
        name
        for name, texts in values.items()
        if sum(map(bool, texts)) == len(regions)
        and (len(set(texts)) <= len(regions) / 2 or name.lower() in CLASS_WORDS)
    ]
    with_class_words = [name for name in candidates if name.lower() in CLASS_WORDS]
    for names in (candidates, with_class_words):
        if len(names) == 1:
            return names[0]
    raise UserError(
        f'{folder.root} has VIA regions with the attributes {", ".join(values)}, '
        f'{"several" if candidates else "none"} of which may be the class: give each region its class in one attribute '
        'called class'
    )


def _images(
    folder: DataFolder, file: str, records: list[dict[str, Any]], attribute: str | None
) -> list[AnnotatedImage]:
    names = [record['filename'] for record in records]
    images = []
    for name, path, record in zip(names, folder.find_images(names, file, split_of(file)), records):
        if path is None:
            folder.report(file, f'has the filename {name}, which is not in the folder', Fault.OUTSIDE_FOLDER)
            continue
        regions = [(f'region {number} of {name}', region) for number, region in enumerate(_regions(record))]
        objects = usable_objects(partial(_object, attribute=attribute), regions, partial(folder.report, file))
        images.append(AnnotatedImage(path, file, objects))
    return images


def _regions(record: dict[str, Any]) -> list[Any]:
    """A list in version 2, a dict by numbers in version 1."""
    regions = record['regions']
    return list(regions.values()) if isinstance(regions, dict) else regions


def _attributes(region: Any) -> dict[str, Any]:
    attributes = region.get('region_attributes') if isinstance(region, dict) else None
    return attributes if isinstance(attributes, dict) else {}


def _text(value: Any) -> str:
    """The value of an attribute; of checkboxes the one that is ticked, if there is only one."""
    if isinstance(value, dict):
        ticked = [name for name, is_ticked in value.items() if is_ticked]
        return ticked[0] if len(ticked) == 1 else ''
    return str(value)


def _object(region: Any, place: str, attribute: str | None) -> AnnotatedObject:
    name = ONLY_CLASS if attribute is None else _text(_attributes(region).get(attribute, ''))
    if not name.strip():
        raise UnusableError(f'{place} has no {attribute}')
    shape = region.get('shape_attributes') if isinstance(region, dict) else None
    kind = shape.get('name') if isinstance(shape, dict) else None
    place = f'{place} ({name})'
    try:
        if kind == 'polygon':
            xs, ys = shape['all_points_x'], shape['all_points_y']
            if len(xs) != len(ys):
                raise UnusableError(f'{place} has {len(xs)} x and {len(ys)} y')
            return AnnotatedObject(name, place, segmentation=[[value for point in zip(xs, ys) for value in point]])
        if kind == 'rect':
            x, y, width, height = (shape[key] for key in ('x', 'y', 'width', 'height'))
            return AnnotatedObject(name, place, [x, y, width, height], [rectangle(x, y, x + width, y + height)])
        if kind in ('circle', 'ellipse'):
            radii = (shape['r'], shape['r']) if kind == 'circle' else (shape['rx'], shape['ry'])
            outline = ellipse(shape['cx'], shape['cy'], *radii, shape.get('theta', 0.0))
            return AnnotatedObject(name, place, segmentation=[outline])
    except (KeyError, TypeError) as error:
        what = f'{place} has a {kind} without sound numbers ({type(error).__name__}: {error})'
        raise UnusableError(what) from error
    raise UnusableError(f'{place} is a {kind}: polygons, rectangles, circles and ellipses are objects')
