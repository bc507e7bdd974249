"""Finding what is wrong with the images and objects of a COCO annotation file before a long run starts."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Collection, Mapping
from os import PathLike
from typing import Any

from mmengine.logging import print_log

from ..errors import UserError
from .coco_json import LARGEST_COORDINATE, are_coordinates, is_finite, mask_problem, refuse_bad

OF_IMAGES = frozenset(('id', 'file_name', 'height', 'width'))
"""What MMDetection reads of each image."""

OF_ANNOTATIONS = frozenset(('id', 'image_id', 'category_id', 'bbox', 'area'))
"""What MMDetection reads of each annotation."""

IDS = 'id', 'image_id', 'category_id'

COORDINATES = f'numbers up to {LARGEST_COORDINATE:,}'


def check_objects(path: str | PathLike, content: Mapping[str, Any]) -> None:
    """Check the images and annotations of a file as far as their pixels need not be read.

    Objects that MMDetection leaves out may stand, such as those of no area. Those of an image or a category that the
    file does not have are warned of, since parts of larger data sets have them, but mistakes leave them as well.

    Args:
        path: of the file, for messages.
        content: what `read_annotations` returns.

    Raises:
        UserError: the first thing that would end a training or spoil it, such as a box with NaN, and how many there
            are; or no object has an image and a category.
    """
    images, annotations = content['images'], content['annotations']
    problems = [(number, _image_problem(image)) for number, image in enumerate(images)]
    refuse_bad(path, 'image', [found for found in problems if found[1]], len(images))
    sizes = {image['id']: (image['height'], image['width']) for image in images}
    categories = {category['id'] for category in content['categories']}
    seen: set[Any] = set()
    bad, left_out = [], []
    for number, annotation in enumerate(annotations):
        problem = _object_problem(annotation, sizes, seen)
        if problem:
            bad.append((number, problem))
        elif annotation['image_id'] not in sizes or annotation['category_id'] not in categories:
            left_out.append(annotation)
    refuse_bad(path, 'annotation', bad, len(annotations))
    if left_out:
        _tell(path, left_out, len(annotations), sizes)


def _image_problem(image: Any) -> str | None:
    if not isinstance(image, dict) or not image.keys() >= OF_IMAGES:
        return f'is {reprlib.repr(image)}: {", ".join(sorted(OF_IMAGES))} are needed'
    for key in ('height', 'width'):
        if not is_finite(image[key]) or image[key] < 1:
            return f'(id {image["id"]!r}) has the {key} {image[key]!r}: a number of pixels is needed'
    return _id_problem(image, ('id',))


def _object_problem(annotation: Any, sizes: Mapping[Any, tuple[int, int]], seen: set[Any]) -> str | None:
    if not isinstance(annotation, dict):
        return f'is {reprlib.repr(annotation)}: {", ".join(sorted(OF_ANNOTATIONS))} are needed'
    name = f'(id {annotation.get("id")!r})'
    lacking = OF_ANNOTATIONS - annotation.keys()
    if lacking:
        return f'{name} lacks {", ".join(sorted(lacking))}'
    problem = _id_problem(annotation, IDS)
    if problem:
        return f'{name} {problem}'
    if annotation['id'] in seen:
        return f'{name} has the id of one before: number them anew'
    seen.add(annotation['id'])
    box = annotation['bbox']
    if not (are_coordinates(box) and len(box) == 4 and min(box[2:]) >= 0):
        return (
            f'{name} has the bbox {reprlib.repr(box)}: x, y, width, height are needed, {COORDINATES}, no side below 0'
        )
    if not is_finite(annotation['area']):
        return f'{name} has the area {annotation["area"]!r}: a number is needed'
    problem = _segmentation_problem(annotation.get('segmentation'), sizes.get(annotation['image_id']))
    return f'{name} {problem}' if problem else None


def _id_problem(record: Mapping[str, Any], keys: Collection[str]) -> str | None:
    for key in keys:
        if not isinstance(record[key], (int, str, float)):
            return f'has the {key} {reprlib.repr(record[key])}: a number or text is needed'
    return None


def _segmentation_problem(segmentation: Any, size: tuple[int, int] | None) -> str | None:
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        return mask_problem(segmentation, size) if size else None
    if not isinstance(segmentation, list):
        return f'has the segmentation {reprlib.repr(segmentation)}: a list of polygons or an RLE mask is needed'
    bad = [polygon for polygon in segmentation if not are_coordinates(polygon)]
    return f'has the polygon {reprlib.repr(bad[0])} in its segmentation: {COORDINATES} are needed' if bad else None


def _tell(path: str | PathLike, left_out: list[dict[str, Any]], count: int, sizes: Mapping[Any, Any]) -> None:
    """Warn of objects of unknown images and categories; raise `UserError` where there are no others."""
    first = left_out[0]
    key = 'category_id' if first['image_id'] in sizes else 'image_id'
    what = (
        f'{path}: {len(left_out)} of {count} annotations have an image_id or category_id that the file does not have, '
        f'the first (id {first["id"]!r}) the {key} {first[key]!r}'
    )
    if len(left_out) == count:
        raise UserError(f'{what}: nothing is left to train or test on; give ids that are equal, of one type')
    print_log(f'{what}: they are left out', logger='current', level=logging.WARNING)
