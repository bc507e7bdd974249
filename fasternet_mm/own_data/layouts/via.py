"""JSON of the VGG Image Annotator, version 2 and 1: a project, or its exported annotations.

Format: https://www.robots.ox.ac.uk/~vgg/software/via/. The balloons of Matterport's Mask R-CNN are such data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ...errors import UserError
from .annotated_data import DetectionData, Fault, Problem, Report
from .data_folder import DataFolder, one_per_split
from .folder_words import split_of
from .normal_form import AnnotatedImage, AnnotatedObject, rectangles_are_boxes, split_of_one_file, to_instances
from .outlines import ellipse, rectangle

CLASS_WORDS = ('class', 'label', 'category', 'type', 'name', 'object')
ONLY_CLASS = 'object'
"""The class where regions have no attribute, as in the balloons."""


def via_images(content: Any) -> dict[str, Any] | None:
    """The records of images in the content of a JSON file, by their keys; None where it is not VIA's."""
    images = content.get('_via_img_metadata', content) if isinstance(content, dict) else None
    return images if isinstance(images, dict) and any(map(_is_image, images.values())) else None


def _is_image(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and isinstance(record.get('filename'), str)
        and isinstance(record.get('regions'), (list, dict))
    )


def read_via(folder: DataFolder, files: dict[str, dict[str, Any]], problems: list[Problem]) -> DetectionData:
    """Read VIA's polygons, rectangles, circles and ellipses.

    Args:
        folder: where the images are.
        files: the images' records of each annotation file.
        problems: to add to.

    Raises:
        UserError: the files cannot be told apart as train, val and test; no image is there; or several attributes of
            regions may be the class.
    """
    chosen = one_per_split(folder, files, 'VIA annotation')
    records = {split: _sound(folder, file, files[file], problems) for split, file in chosen.items()}
    attribute = _class_attribute(folder, records.values())
    splits = {split: _images(folder, file, records[split], attribute, problems) for split, file in chosen.items()}
    splits = split_of_one_file(folder, splits, chosen['train'])
    rectangles_are_boxes([image for images in splits.values() for image in images])
    return to_instances('VIA', folder, splits, None, problems)


def _sound(folder: DataFolder, file: str, images: dict[str, Any], problems: list[Problem]) -> list[dict[str, Any]]:
    for key, record in images.items():
        if not _is_image(record):
            what = f'has a record {key[:60]} without a filename or regions'
            problems.append(Problem(folder.shown(file), what, Fault.MALFORMED))
    return [record for record in images.values() if _is_image(record)]


def _class_attribute(folder: DataFolder, files: Iterable[list[dict[str, Any]]]) -> str | None:
    """The attribute of regions that says their class; None where they have none."""
    values = defaultdict(list)
    count = 0
    for records in files:
        for record in records:
            for region in _regions(record):
                count += 1
                for name, value in _attributes(region).items():
                    values[name].append(_text(value))
    if len(values) < 2:
        return next(iter(values), None)
    # A class is given for every region, and is the same for many.
    candidates = [
        name
        for name, found in values.items()
        if sum(map(bool, found)) == count and (len(set(found)) <= count / 2 or name.lower() in CLASS_WORDS)
    ]
    named = [name for name in candidates if name.lower() in CLASS_WORDS]
    for found in (candidates, named):
        if len(found) == 1:
            return found[0]
    raise UserError(
        f'{folder.root} has VIA regions with the attributes {", ".join(values)}, '
        f'{"several" if candidates else "none"} of which may be the class: give each region its class in one attribute '
        'called class'
    )


def _images(
    folder: DataFolder, file: str, records: list[dict[str, Any]], attribute: str | None, problems: list[Problem]
) -> list[AnnotatedImage]:
    report = folder.reporter(file, problems)
    names = [record['filename'] for record in records]
    paths = folder.find_images(names, file, split_of(file), problems)
    images = []
    for name, path, record in zip(names, paths, records):
        if path is None:
            report(f'has the filename {name}, which is not in the folder', Fault.OUTSIDE_FOLDER)
            continue
        objects = [
            _object(region, f'region {number} of {name}', attribute, report)
            for number, region in enumerate(_regions(record))
        ]
        images.append(AnnotatedImage(path, file, [obj for obj in objects if obj]))
    return images


def _regions(record: dict[str, Any]) -> list[Any]:
    """A list in version 2, a dict by numbers in version 1."""
    regions = record['regions']
    return list(regions.values()) if isinstance(regions, dict) else regions


def _attributes(region: Any) -> dict[str, Any]:
    attributes = region.get('region_attributes') if isinstance(region, dict) else None
    return attributes if isinstance(attributes, dict) else {}


def _text(value: Any) -> str:
    """The value of an attribute; of checkboxes that which is ticked, if it is one."""
    if isinstance(value, dict):
        ticked = [name for name, on in value.items() if on]
        return ticked[0] if len(ticked) == 1 else ''
    return str(value)


def _object(region: Any, place: str, attribute: str | None, report: Report) -> AnnotatedObject | None:
    name = ONLY_CLASS if attribute is None else _text(_attributes(region).get(attribute, ''))
    if not name.strip():
        return report(f'{place} has no {attribute}')
    shape = region.get('shape_attributes') if isinstance(region, dict) else None
    kind = shape.get('name') if isinstance(shape, dict) else None
    place = f'{place} ({name})'
    try:
        if kind == 'polygon':
            xs, ys = shape['all_points_x'], shape['all_points_y']
            if len(xs) != len(ys):
                return report(f'{place} has {len(xs)} x and {len(ys)} y')
            return AnnotatedObject(name, place, segmentation=[[value for point in zip(xs, ys) for value in point]])
        if kind == 'rect':
            x, y, width, height = (shape[key] for key in ('x', 'y', 'width', 'height'))
            return AnnotatedObject(name, place, [x, y, width, height], [rectangle(x, y, x + width, y + height)])
        if kind in ('circle', 'ellipse'):
            radii = (shape['r'], shape['r']) if kind == 'circle' else (shape['rx'], shape['ry'])
            outline = ellipse(shape['cx'], shape['cy'], *radii, shape.get('theta', 0.0))
            return AnnotatedObject(name, place, segmentation=[outline])
    except (KeyError, TypeError) as error:
        return report(f'{place} has a {kind} without sound numbers ({type(error).__name__}: {error})')
    return report(f'{place} is a {kind}: polygons, rectangles, circles and ellipses are objects')
