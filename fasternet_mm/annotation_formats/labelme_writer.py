"""LabelMe's JSON files, one beside each image (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import base64
import json
import posixpath
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from hotcoco import mask as rle

from .annotation_writer import AnnotationWriter, split_and_stem, write_text
from .labeled_images import LabeledImage, LabeledObject
from .mask_outlines import without_holes

VERSION = '5.4.1'
"""A version of LabelMe that knows all that is written; an older one warns, and opens the file."""


class LabelMeWriter(AnnotationWriter):
    """``SPLIT/NAME.json`` beside ``SPLIT/NAME.jpg``."""

    title = 'LabelMe'
    images_folder = '{split}'
    lists_classes = False

    def write(self, split: str, name: str, image: LabeledImage) -> None:
        objects = self.objects_of(image)
        self.note_outlines(objects)
        content = labelme_content(posixpath.basename(name), objects, self.classes, image.size)
        write_text(self.folder / f'{split_and_stem(split, name)}.json', json.dumps(content) + '\n')

    def finish(self) -> None:
        self.note_mixture('their rectangles count as outlines')


def labelme_content(
    image_path: str, objects: Iterable[LabeledObject], classes: Sequence[str], size: tuple[int, int]
) -> dict[str, Any]:
    """The content of a JSON file.

    A box is a rectangle; an outline is a polygon, or several of one ``group_id``; a mask with holes is a mask. Ignored
    objects have ``difficult``, which is X-AnyLabeling's; LabelMe keeps it as it is.

    Args:
        image_path: the image's path from the file.
        objects: what is in it.
        classes: the names of the classes, by label.
        size: height and width of the image.
    """
    shapes: list[dict[str, Any]] = []
    for group, obj in enumerate(objects, start=1):
        parts = _shapes(obj)
        common = dict(label=classes[obj.label], group_id=group if len(parts) > 1 else None, description='', flags={})
        if obj.ignored:
            common['difficult'] = True
        shapes += [dict(common, mask=None) | part for part in parts]
    height, width = size
    return dict(
        version=VERSION,
        flags={},
        shapes=shapes,
        imagePath=image_path,
        imageData=None,
        imageHeight=height,
        imageWidth=width,
    )


def _shapes(obj: LabeledObject) -> list[dict[str, Any]]:
    if not obj.segmentation:
        x, y, width, height = obj.box
        return [dict(shape_type='rectangle', points=[[x, y], [round(x + width, 2), round(y + height, 2)]])]
    segmentation = without_holes(obj.segmentation)
    if isinstance(segmentation, list):
        polygons = [np.reshape(polygon, (-1, 2)).tolist() for polygon in segmentation]
        return [dict(shape_type='polygon', points=points) for points in polygons]
    pixels = rle.decode(segmentation)
    left, top, width, height = cv2.boundingRect(pixels)
    png = cv2.imencode('.png', 255 * pixels[top : top + height, left : left + width])[1].tobytes()
    corners = [[left, top], [left + width - 1, top + height - 1]]  # the first and the last pixel
    return [dict(shape_type='mask', points=corners, mask=base64.b64encode(png).decode())]
