"""LabelMe's JSON files, one for each picture (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import math
import posixpath
import reprlib
from collections.abc import Callable
from typing import Any

from .content import Instances, Kind, Problem, truth_value
from .folder import DataFolder
from .normal_form import AnnotatedObject, AnnotatedPicture, split_by_folders, to_instances
from .outlines import ellipse, rectangle, rectangles_are_boxes


def is_labelme(content: Any) -> bool:
    """Whether the content of a JSON file is LabelMe's of one picture."""
    return isinstance(content, dict) and isinstance(content.get('shapes'), list)


def labelme_picture(folder: DataFolder, file: str, content: Any, problems: list[Problem]) -> AnnotatedPicture | None:
    """A picture with its objects; shapes of one ``group_id`` and label are parts of one object.

    Args:
        folder: where the picture is: at ``imagePath``, which is relative to the file, or under the file's name. A
            picture within the file is not looked at.
        file: the JSON file.
        content: what is in it.
        problems: to add to.
    """

    def report(what: str, kind: Kind = Kind.MALFORMED) -> None:
        problems.append(Problem(folder.shown(file), what, kind))

    name = str(content.get('imagePath'))
    picture = folder.inside(posixpath.dirname(file), name)
    if picture is None:
        return report(f'has the imagePath {name}, which is not in the folder', Kind.OUTSIDE_FOLDER)
    if picture not in folder.all:
        picture = folder.picture_beside(file) or picture
    objects: dict[Any, AnnotatedObject] = {}
    for number, shape in enumerate(content['shapes']):
        obj = _object(shape, f'shape {number}', report)
        if obj is None:
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
    return AnnotatedPicture(picture, file, list(objects.values()), size if all(size) else None)


def to_labelme_instances(folder: DataFolder, pictures: list[AnnotatedPicture], problems: list[Problem]) -> Instances:
    """All pictures of a data set, with those beside that have no JSON file, which are background."""
    rectangles_are_boxes(pictures)
    return to_instances('LabelMe', folder, split_by_folders(folder, pictures), None, problems)


def _object(shape: Any, place: str, report: Callable[..., None]) -> AnnotatedObject | None:
    points = shape.get('points') if isinstance(shape, dict) else None
    try:
        corners = [[float(x), float(y)] for x, y in points]
    except (TypeError, ValueError, OverflowError):
        return report(f'{place} has points that are not pairs of numbers ({str(points)[:60]})', Kind.NOT_A_NUMBER)
    name, kind = shape.get('label'), shape.get('shape_type') or 'polygon'
    if not isinstance(name, str) or not name:
        return report(f'{place} has no label')
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
