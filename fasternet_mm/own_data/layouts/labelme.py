"""LabelMe's JSON files, one for each image (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
from hotcoco import mask as rle
from PIL import Image

from .annotated_data import DetectionData
from .data_folder import DataFolder, stem
from .named_splits import split_by_folders
from .normal_form import AnnotatedImage, AnnotatedObject, flag, locate_images, rectangles_are_boxes, to_normal_form
from .outlines import ellipse, extent, rectangle
from .problems import Fault, UnusableError

IGNORE, BACKGROUND = '__ignore__', '_background_'
"""Labels of LabelMe's own: a region that does not count, and background, which is no object."""


def is_labelme(content: Any) -> bool:
    """Whether the content of a JSON file is LabelMe's of one image."""
    return isinstance(content, dict) and isinstance(content.get('shapes'), list)


def read_labelme(folder: DataFolder, files: dict[str, dict[str, Any]]) -> DetectionData:
    """Read LabelMe's polygons, rectangles, circles and masks; shapes of one ``group_id`` and label are one object.

    An image is at ``imagePath``, or has the name of its JSON file. Images beside these without JSON are background.
    Regions labeled ``__ignore__`` are neither trained nor scored, ``_background_`` is no object: LabelMe's own
    exporters treat them so. The content of each JSON file comes without the image that may be in it.

    Raises:
        UserError: no image is there; or no part is to train on.
    """
    images = [_image(folder, file, content) for file, content in files.items()]
    images = locate_images(folder, images, stem_first=False)
    _ignore_regions(images)
    rectangles_are_boxes(images)
    return to_normal_form('LabelMe', folder, split_by_folders(folder, images))


def _ignore_regions(images: list[AnnotatedImage]) -> None:
    """Make a region that does not count a crowd of every class: COCO's evaluation knows crowds of one class alone."""
    names = sorted({obj.name.strip() for image in images for obj in image.objects} - {IGNORE})
    for image in images:
        regions = [obj for obj in image.objects if obj.name == IGNORE]
        image.objects = [obj for obj in image.objects if obj.name != IGNORE]
        image.objects += [replace(region, name=name, crowd=True) for region in regions for name in names]


def _image(folder: DataFolder, file: str, content: dict[str, Any]) -> AnnotatedImage:
    """The content of a JSON file, with the name that it gives its image."""
    objects: dict[Any, AnnotatedObject] = {}
    size = content.get('imageHeight'), content.get('imageWidth')
    for number, shape in enumerate(content['shapes']):
        try:
            obj = _object(shape, f'shape {number}', size)
            if obj.name == BACKGROUND:
                continue
            group = shape.get('group_id')
            key = number if group is None else (str(group), obj.name)
            objects[key] = _merged(objects[key], obj) if key in objects else obj
        except UnusableError as error:
            folder.report(file, str(error), error.kind)
    name = str(content.get('imagePath') or stem(file))
    return AnnotatedImage(name, file, list(objects.values()), size if all(size) else None)


def _object(shape: Any, place: str, size: tuple[Any, Any]) -> AnnotatedObject:
    points = shape.get('points') if isinstance(shape, dict) else None
    try:
        corners = [[float(x), float(y)] for x, y in points]
    except (TypeError, ValueError, OverflowError) as error:
        what = f'{place} has points that are not pairs of numbers ({str(points)[:60]})'
        raise UnusableError(what, Fault.NOT_A_NUMBER) from error
    name, kind = shape.get('label'), shape.get('shape_type') or 'polygon'
    if not isinstance(name, str) or not name.strip():
        raise UnusableError(f'{place} has no label')
    name = name.strip() if name.strip() in (IGNORE, BACKGROUND) else name
    place = f'{place} ({name})'
    obj = AnnotatedObject(name, place, crowd=flag(shape.get('difficult'), 'difficult', place))
    polygon = [value for corner in corners for value in corner]
    if kind in ('polygon', 'rotation'):  # the latter is X-AnyLabeling's: the corners of a rectangle that is turned
        obj.segmentation = [polygon]
    elif kind == 'rectangle' and len(corners) in (2, 4):
        obj.box = extent([polygon])
        left, top, width, height = obj.box
        obj.segmentation = [rectangle(left, top, left + width, top + height)]
    elif kind == 'circle' and len(corners) == 2:
        radius = math.dist(*corners)
        obj.segmentation = [ellipse(*corners[0], radius, radius)]
    elif kind == 'mask' and len(corners) == 2:
        try:
            obj.segmentation = _read_mask(shape.get('mask'), corners, size)
        except (ValueError, OverflowError) as error:
            raise UnusableError(f'{place} has a mask that cannot be used ({error})') from error
    else:
        count = f' of {len(corners)} points' if kind in ('rectangle', 'circle', 'mask') else ''
        raise UnusableError(f'{place} is a {kind}{count}: polygons, rectangles, circles and masks are objects')
    return obj


def _read_mask(png: Any, corners: list[list[float]], size: tuple[Any, Any]) -> dict[str, Any]:
    """The RLE mask of a shape that LabelMe's tools for masks made: a PNG of what is between its corners, both included.

    Raises:
        ValueError: it is not a PNG of that size, or not inside an image of this height and width.
    """
    (left, top), (right, bottom) = ([int(value) for value in corner] for corner in corners)
    height, width = size
    if type(height) is not int or type(width) is not int or height * width > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f'imageHeight and imageWidth are {height} and {width}')
    if not (0 <= left <= right < width and 0 <= top <= bottom < height):
        raise ValueError(f'its corners {corners} are not two of an area in the image')
    try:
        with Image.open(BytesIO(base64.b64decode(png, validate=True)), formats=['PNG']) as image:
            if image.size != (right - left + 1, bottom - top + 1):
                raise ValueError(
                    f'it has {image.height}x{image.width} pixels (H x W), and is not what is between its corners'
                )
            pixels = np.asarray(image.convert('L')) > 0
    except (TypeError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError('it is not a PNG in base64') from error
    whole = np.zeros(size, np.uint8, 'F')
    whole[top : bottom + 1, left : right + 1] = pixels
    return _as_text(rle.encode(whole))


def _merged(first: AnnotatedObject, second: AnnotatedObject) -> AnnotatedObject:
    """Two parts of an object as one.

    Raises:
        UnusableError: one part is a mask, and the other is not.
    """
    parts = [first.segmentation, second.segmentation]
    if all(isinstance(part, list) for part in parts):
        segmentation = [*parts[0], *parts[1]]
    elif all(isinstance(part, dict) for part in parts):
        segmentation = _as_text(rle.merge(parts))
    else:
        raise UnusableError(
            f'{second.place} is of one group with {first.place}, but only one of them is a mask: draw both alike'
        )
    box = None
    if first.box is not None and second.box is not None:
        box = extent([rectangle(x, y, x + width, y + height) for x, y, width, height in (first.box, second.box)])
    return replace(first, segmentation=segmentation, box=box, crowd=first.crowd or second.crowd)


def _as_text(mask: dict[str, Any]) -> dict[str, Any]:
    """An RLE mask as JSON holds it."""
    counts = mask['counts']
    return dict(size=list(mask['size']), counts=counts.decode() if isinstance(counts, bytes) else counts)
