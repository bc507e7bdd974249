"""LabelMe's JSON files, one for each image (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import base64
import math
import reprlib
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
from hotcoco import mask as rle
from PIL import Image

from .annotated_data import DetectionData, Fault, Problem, Report, truth_value
from .data_folder import DataFolder, stem
from .normal_form import (
    AnnotatedImage,
    AnnotatedObject,
    locate_images,
    rectangles_are_boxes,
    split_by_folders,
    to_instances,
)
from .outlines import ellipse, rectangle

IGNORE, BACKGROUND = '__ignore__', '_background_'
"""Labels of LabelMe's own: a region that does not count, and what is no object."""


def is_labelme(content: Any) -> bool:
    """Whether the content of a JSON file is LabelMe's of one image."""
    return isinstance(content, dict) and isinstance(content.get('shapes'), list)


def read_labelme(folder: DataFolder, files: dict[str, dict[str, Any]], problems: list[Problem]) -> DetectionData:
    """Read LabelMe's polygons, rectangles, circles and masks; shapes of one ``group_id`` and label are one object.

    An image is at ``imagePath``, or has the name of its JSON file. Images beside these without JSON are background.
    Regions labeled ``__ignore__`` are neither trained nor scored, ``_background_`` is no object: LabelMe's own
    exporters treat them so.

    Args:
        folder: with the data.
        files: the content of each JSON file, of which images in it are not looked at.
        problems: to add to.

    Raises:
        UserError: no image is there; or no part is to train on.
    """
    images = [_image(folder, file, content, problems) for file, content in files.items()]
    locate_images(folder, images, problems, stem_first=False)
    _ignore_regions(images)
    rectangles_are_boxes(images)
    return to_instances('LabelMe', folder, split_by_folders(folder, images, problems), None, problems)


def _ignore_regions(images: list[AnnotatedImage]) -> None:
    """Make a region that does not count a crowd of every class: COCO's evaluation knows crowds of one class alone."""
    names = sorted({obj.name.strip() for image in images for obj in image.objects} - {IGNORE})
    for image in images:
        regions = [obj for obj in image.objects if obj.name == IGNORE]
        image.objects = [obj for obj in image.objects if obj.name != IGNORE]
        image.objects += [replace(region, name=name, crowd=True) for region in regions for name in names]


def _image(folder: DataFolder, file: str, content: dict[str, Any], problems: list[Problem]) -> AnnotatedImage:
    """What is in a JSON file, with the name that it gives its image."""

    report = folder.reporter(file, problems)
    objects: dict[Any, AnnotatedObject] = {}
    size = content.get('imageWidth'), content.get('imageHeight')
    for number, shape in enumerate(content['shapes']):
        obj = _object(shape, f'shape {number}', size, report)
        if obj is None or obj.name == BACKGROUND:
            continue
        group = shape.get('group_id')
        key = number if group is None else (str(group), obj.name)
        if key in objects:
            objects[key].segmentation = _together(objects[key], obj, report)
            objects[key].box = _union(objects[key].box, obj.box)
            objects[key].crowd |= obj.crowd
        else:
            objects[key] = obj
    name = str(content.get('imagePath') or stem(file))
    return AnnotatedImage(name, file, list(objects.values()), size if all(size) else None)


def _object(shape: Any, place: str, size: tuple[Any, Any], report: Report) -> AnnotatedObject | None:
    points = shape.get('points') if isinstance(shape, dict) else None
    try:
        corners = [[float(x), float(y)] for x, y in points]
    except (TypeError, ValueError, OverflowError):
        return report(f'{place} has points that are not pairs of numbers ({str(points)[:60]})', Fault.NOT_A_NUMBER)
    name, kind = shape.get('label'), shape.get('shape_type') or 'polygon'
    if not isinstance(name, str) or not name.strip():
        return report(f'{place} has no label')
    name = name.strip() if name.strip() in (IGNORE, BACKGROUND) else name
    place, difficult = f'{place} ({name})', truth_value(shape.get('difficult'))
    if difficult is None:
        return report(f'{place} has the difficult {reprlib.repr(shape["difficult"])}: true or false is needed')
    if kind in ('polygon', 'rotation'):  # the latter is X-AnyLabeling's: the corners of a rectangle that is turned
        polygon = [value for corner in corners for value in corner]
        return AnnotatedObject(name, place, segmentation=[polygon], crowd=difficult)
    if kind == 'rectangle' and len(corners) in (2, 4):
        (xs, ys), (left, top) = zip(*corners), map(min, zip(*corners))
        box = [left, top, max(xs) - left, max(ys) - top]
        return AnnotatedObject(name, place, box, [rectangle(left, top, max(xs), max(ys))], difficult)
    if kind == 'circle' and len(corners) == 2:
        radius = math.dist(*corners)
        return AnnotatedObject(name, place, segmentation=[ellipse(*corners[0], radius, radius)], crowd=difficult)
    if kind == 'mask' and len(corners) == 2:
        try:
            return AnnotatedObject(
                name, place, segmentation=_read_mask(shape.get('mask'), corners, size), crowd=difficult
            )
        except (ValueError, OverflowError) as error:
            return report(f'{place} has a mask that cannot be used ({error})')
    points = f' of {len(corners)} points' if kind in ('rectangle', 'circle', 'mask') else ''
    return report(f'{place} is a {kind}{points}: polygons, rectangles, circles and masks are objects')


def _read_mask(png: Any, corners: list[list[float]], size: tuple[Any, Any]) -> dict[str, Any]:
    """The RLE mask of a shape that LabelMe's tools for masks made: a PNG of what is between its corners, both included.

    Raises:
        ValueError: it is no PNG of that size, or not inside an image of this width and height.
    """
    (left, top), (right, bottom) = ([int(value) for value in corner] for corner in corners)
    if not all(type(side) is int for side in size) or size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f'imageWidth and imageHeight are {size[0]} and {size[1]}')
    if not (0 <= left <= right < size[0] and 0 <= top <= bottom < size[1]):
        raise ValueError(f'its corners {corners} are not two of an area in the image')
    try:
        with Image.open(BytesIO(base64.b64decode(png, validate=True)), formats=['PNG']) as image:
            if image.size != (right - left + 1, bottom - top + 1):
                raise ValueError('it has {}x{} pixels, and is not what is between its corners'.format(*image.size))
            pixels = np.asarray(image.convert('L')) > 0
    except (TypeError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError('it is no PNG in base64') from error
    whole = np.zeros(size[::-1], np.uint8, 'F')
    whole[top : bottom + 1, left : right + 1] = pixels
    return _as_text(rle.encode(whole))


def _together(first: AnnotatedObject, second: AnnotatedObject, report: Report) -> Any:
    """The segmentation of two parts of an object."""
    parts = [first.segmentation, second.segmentation]
    if all(isinstance(part, list) for part in parts):
        return [*parts[0], *parts[1]]
    if all(isinstance(part, dict) for part in parts):
        return _as_text(rle.merge(parts))
    report(
        f'{second.place} is of one group with {first.place}, but one is a mask and the other is none: draw both alike'
    )
    return parts[0]


def _as_text(mask: dict[str, Any]) -> dict[str, Any]:
    """An RLE mask as JSON holds it."""
    counts = mask['counts']
    return dict(size=list(mask['size']), counts=counts.decode() if isinstance(counts, bytes) else counts)


def _union(box: list[float] | None, other: list[float] | None) -> list[float] | None:
    if box is None or other is None:
        return None
    left, top = min(box[0], other[0]), min(box[1], other[1])
    right, bottom = (max(box[i] + box[i + 2], other[i] + other[i + 2]) for i in (0, 1))
    return [left, top, right - left, bottom - top]
