"""LabelMe's JSON files, one for each picture (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import math
import reprlib
from dataclasses import replace
from typing import Any

from .content import Instances, Kind, Problem, Report, truth_value
from .folder import DataFolder, stem
from .normal_form import (
    AnnotatedObject,
    AnnotatedPicture,
    locate_images,
    rectangles_are_boxes,
    split_by_folders,
    to_instances,
)
from .outlines import ellipse, rectangle

IGNORE, BACKGROUND = '__ignore__', '_background_'
"""Labels of LabelMe's own: a region that does not count, and what is no object."""


def is_labelme(content: Any) -> bool:
    """Whether the content of a JSON file is LabelMe's of one picture."""
    return isinstance(content, dict) and isinstance(content.get('shapes'), list)


def read_labelme(folder: DataFolder, files: dict[str, dict[str, Any]], problems: list[Problem]) -> Instances:
    """Read LabelMe's polygons, rectangles and circles; shapes of one ``group_id`` and label are parts of one object.

    A picture is at ``imagePath``, or has the name of its JSON file. Pictures beside these without JSON are background.
    Regions labelled ``__ignore__`` are neither trained nor scored, ``_background_`` is no object: LabelMe's own
    exporters treat them so.

    Args:
        folder: with the data.
        files: the content of each JSON file, of which pictures in it are not looked at.
        problems: to add to.

    Raises:
        UserError: no picture is there; or no part is to train on.
    """
    pictures = [_picture(folder, file, content, problems) for file, content in files.items()]
    locate_images(folder, pictures, problems, stem_first=False)
    _ignore_regions(pictures)
    rectangles_are_boxes(pictures)
    return to_instances('LabelMe', folder, split_by_folders(folder, pictures, problems), None, problems)


def _ignore_regions(pictures: list[AnnotatedPicture]) -> None:
    """Make a region that does not count a crowd of every class: COCO's evaluation knows crowds of one class alone."""
    names = sorted({obj.name.strip() for picture in pictures for obj in picture.objects} - {IGNORE})
    for picture in pictures:
        regions = [obj for obj in picture.objects if obj.name == IGNORE]
        picture.objects = [obj for obj in picture.objects if obj.name != IGNORE]
        picture.objects += [replace(region, name=name, crowd=True) for region in regions for name in names]


def _picture(folder: DataFolder, file: str, content: dict[str, Any], problems: list[Problem]) -> AnnotatedPicture:
    """What is in a JSON file, with the name that it gives its picture."""

    report = folder.reporter(file, problems)
    objects: dict[Any, AnnotatedObject] = {}
    for number, shape in enumerate(content['shapes']):
        obj = _object(shape, f'shape {number}', report)
        if obj is None or obj.name == BACKGROUND:
            continue
        group = shape.get('group_id')
        key = number if group is None else (str(group), obj.name)
        if key in objects:
            objects[key].segmentation += obj.segmentation
            objects[key].box = _union(objects[key].box, obj.box)
            objects[key].crowd |= obj.crowd
        else:
            objects[key] = obj
    size = content.get('imageWidth'), content.get('imageHeight')
    name = str(content.get('imagePath') or stem(file))
    return AnnotatedPicture(name, file, list(objects.values()), size if all(size) else None)


def _object(shape: Any, place: str, report: Report) -> AnnotatedObject | None:
    points = shape.get('points') if isinstance(shape, dict) else None
    try:
        corners = [[float(x), float(y)] for x, y in points]
    except (TypeError, ValueError, OverflowError):
        return report(f'{place} has points that are not pairs of numbers ({str(points)[:60]})', Kind.NOT_A_NUMBER)
    name, kind = shape.get('label'), shape.get('shape_type') or 'polygon'
    if not isinstance(name, str) or not name.strip():
        return report(f'{place} has no label')
    name = name.strip() if name.strip() in (IGNORE, BACKGROUND) else name
    place, difficult = f'{place} ({name})', truth_value(shape.get('difficult'))
    if difficult is None:
        return report(f'{place} has the difficult {reprlib.repr(shape["difficult"])}: true or false is needed')
    if kind == 'polygon':
        polygon = [value for corner in corners for value in corner]
        return AnnotatedObject(name, place, segmentation=[polygon], crowd=difficult)
    if kind == 'rectangle' and len(corners) in (2, 4):
        (xs, ys), (left, top) = zip(*corners), map(min, zip(*corners))
        box = [left, top, max(xs) - left, max(ys) - top]
        return AnnotatedObject(name, place, box, [rectangle(left, top, max(xs), max(ys))], difficult)
    if kind == 'circle' and len(corners) == 2:
        radius = math.dist(*corners)
        return AnnotatedObject(name, place, segmentation=[ellipse(*corners[0], radius, radius)], crowd=difficult)
    return report(f'{place} is a {kind} of {len(corners)} points: polygons, rectangles and circles are objects')


def _union(box: list[float] | None, other: list[float] | None) -> list[float] | None:
    if box is None or other is None:
        return None
    left, top = min(box[0], other[0]), min(box[1], other[1])
    right, bottom = (max(box[i] + box[i + 2], other[i] + other[i + 2]) for i in (0, 1))
    return [left, top, right - left, bottom - top]
