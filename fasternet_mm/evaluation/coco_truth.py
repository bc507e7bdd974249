"""COCO ground truth, checked and ready for evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from hotcoco import COCO

from ..datasets.coco_json import is_box, is_finite, mask_problem, read_annotations, refuse_bad, whole_number
from ..errors import UserError

ID_RANGES = {'images': ('image', -(2**63), 2**63 - 1), 'categories': ('category', 0, 2**53)}
"""The noun for each list's members, and their least and largest id: hotcoco takes classes as float64."""


@dataclass
class CocoTruth:
    """Annotations of many images.

    Attributes:
        source: where they are from, for messages.
        content: of the annotation file. Its annotations are numbered anew, from 1: in files of several origins ids
            repeat, and nothing refers to them.
        coco: the same as the evaluation reads it, with images numbered by `image_numbers`.
        sizes: height and width of each image, by id.
        category_names: in the file's order, by id; a name that several classes have is followed by the id.
    """

    source: str
    content: dict[str, Any]
    coco: COCO
    sizes: dict[int, tuple[int, int]]
    category_names: dict[int, str]

    def image_numbers(self, image_ids: np.ndarray) -> np.ndarray:
        """The numbers in ``coco`` of images given by id: from 1, in the order of ids, which decides on equal scores.

        hotcoco takes detections as float64, in which ids from 2**53 on, such as time stamps, would become others.
        """
        return 1 + np.searchsorted(_ascending(self.sizes), image_ids)

    def ids_of(self, classes: Collection[str]) -> list[int]:
        """The ids of those classes that are annotated, in the annotations' order, as MMDetection numbers labels."""
        return [category_id for category_id, name in self.category_names.items() if name in classes]

    def check_masks(self) -> None:
        """Raise `UserError` with the first annotation without a whole mask, and how many there are."""
        _refuse_annotations(self.content, self.source, lambda annotation: _mask_problem(annotation, self.sizes))


def read_truth(path: str | PathLike) -> CocoTruth:
    """COCO ground truth from an annotation file.

    Raises:
        UserError: the file is not COCO annotations; else its first bad annotation, and how many are bad.
    """
    return to_truth(read_annotations(path), str(path))


def to_truth(content: dict[str, Any], source: str) -> CocoTruth:
    """As `read_truth`, from the content of an annotation file."""
    images, categories = (_with_ids(content[part], part, source) for part in ('images', 'categories'))
    _refuse_annotations(content, source, _annotation_problem)
    annotations = [
        annotation
        | dict(
            id=number,
            image_id=whole_number(annotation['image_id']),
            category_id=whole_number(annotation['category_id']),
        )
        for number, annotation in enumerate(content['annotations'], start=1)
    ]
    content = content | dict(images=images, annotations=annotations, categories=categories)
    sizes = {image['id']: (image.get('height'), image.get('width')) for image in images}
    try:
        coco = COCO(_numbered(content, sizes))
        times = Counter(category['name'] for category in categories)
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise UserError(f'{source} is not COCO annotations: {error}') from error
    names = {
        category['id']: category['name'] if times[category['name']] == 1 else f'{category["name"]} ({category["id"]})'
        for category in categories
    }
    return CocoTruth(source, content, coco, sizes, names)


def _refuse_annotations(content: dict[str, Any], source: str, problem_of: Callable[[Any], str | None]) -> None:
    """Raise `UserError` with the first annotation that has a problem, and how many have one."""
    problems = [(number, problem_of(annotation)) for number, annotation in enumerate(content['annotations'])]
    bad = [(number, problem) for number, problem in problems if problem]
    refuse_bad(source, 'annotation', bad, len(problems))


def _ascending(sizes: Collection[int]) -> np.ndarray:
    return np.array(sorted(sizes), dtype=np.int64)


def _numbered(content: dict[str, Any], sizes: Collection[int]) -> dict[str, Any]:
    """The content with `CocoTruth.image_numbers` for ids, without annotations of other images, which count nowhere."""
    numbers = {image_id: number for number, image_id in enumerate(_ascending(sizes).tolist(), start=1)}
    return content | dict(
        images=[image | dict(id=numbers[image['id']]) for image in content['images']],
        annotations=[
            annotation | dict(image_id=numbers[annotation['image_id']])
            for annotation in content['annotations']
            if annotation['image_id'] in numbers
        ],
    )


def _with_ids(records: Sequence[Any], part: str, source: str) -> list[dict[str, Any]]:
    """Images or categories with integers for ids.

    Raises:
        UserError: an id is no whole number, or belongs to two of them.
    """
    kind, least, most = ID_RANGES[part]
    seen: set[int] = set()
    problems, numbered = [], []
    for number, record in enumerate(records):
        value = record.get('id') if isinstance(record, dict) else None
        record_id = whole_number(value)
        if record_id is None or not least <= record_id <= most:
            problems.append((number, f'has the id {value!r}: a whole number from {least} to {most} is needed'))
        elif record_id in seen:
            problems.append((number, f'has the id {value!r}, which another one has too: number them anew'))
        else:
            seen.add(record_id)
            numbered.append(record | dict(id=record_id))
    refuse_bad(source, kind, problems, len(records))
    return numbered


def _annotation_problem(annotation: Any) -> str | None:
    needed = {'id', 'image_id', 'category_id', 'bbox', 'area'}
    if not isinstance(annotation, dict) or not needed <= annotation.keys():
        return f'lacks one of {", ".join(sorted(needed))}'
    for key in ('image_id', 'category_id'):
        if whole_number(annotation[key]) is None:
            return f'(id {annotation["id"]}) has the {key} {annotation[key]!r}: a whole number is needed'
    if not is_box(annotation['bbox']) or not is_finite(annotation['area']):
        return (
            f'(id {annotation["id"]}) has bbox {annotation["bbox"]} and area {annotation["area"]}: five finite numbers'
        )
    return None


def _mask_problem(annotation: dict[str, Any], sizes: dict[int, tuple[int, int]]) -> str | None:
    mask, size = annotation.get('segmentation'), sizes.get(annotation['image_id'])
    if not mask:
        problem = 'has no mask (segmentation), which segm needs'
    elif isinstance(mask, dict):
        problem = mask_problem(mask, size) if size else None
    elif all(isinstance(polygon, list) and len(polygon) >= 6 and all(map(is_finite, polygon)) for polygon in mask):
        problem = None
    else:
        problem = 'has a polygon with fewer than three points, or not of numbers'
    return f'(id {annotation["id"]}) {problem}' if problem else None
