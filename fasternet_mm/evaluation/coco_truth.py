"""COCO ground truth, checked and ready for evaluation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from os import PathLike
from typing import Any

from hotcoco import COCO

from ..data.coco import is_box, is_finite, mask_problem, read_annotations, refuse_bad
from ..errors import UserError


@dataclass
class CocoTruth:
    """Annotations of many pictures.

    Attributes:
        source: where they are from, for messages.
        content: of the annotation file.
        coco: the same as the evaluation reads it.
        sizes: height and width of each picture, by id.
        category_names: in the file's order, by id.
    """

    source: str
    content: dict[str, Any]
    coco: COCO
    sizes: dict[int, tuple[int, int]]
    category_names: dict[int, str]

    def ids_of(self, classes: Collection[str]) -> list[int]:
        """The ids of those classes that are annotated, in the annotations' order, as MMDetection numbers labels."""
        return [category_id for category_id, name in self.category_names.items() if name in classes]

    def check_masks(self) -> None:
        """Raise `UserError` with the first annotation without a whole mask, and how many there are."""
        found = [(number, _mask_problem(one, self.sizes)) for number, one in enumerate(self.content['annotations'])]
        problems = [(number, problem) for number, problem in found if problem]
        refuse_bad(self.source, 'annotation', problems, len(found))


def read_truth(path: str | PathLike) -> CocoTruth:
    """COCO ground truth from an annotation file.

    Raises:
        UserError: the file is not COCO annotations; else its first bad annotation, and how many are bad.
    """
    return to_truth(read_annotations(path), str(path))


def to_truth(content: dict[str, Any], source: str) -> CocoTruth:
    """As `read_truth`, from the content of an annotation file."""
    found = [(number, _box_problem(one)) for number, one in enumerate(content['annotations'])]
    refuse_bad(source, 'annotation', [(number, problem) for number, problem in found if problem], len(found))
    try:
        coco = COCO(content)
        sizes = {image['id']: (image.get('height'), image.get('width')) for image in content['images']}
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise UserError(f'{source} is not COCO annotations: {error}') from error
    names = {category['id']: category['name'] for category in content['categories']}
    return CocoTruth(source, content, coco, sizes, names)


def _box_problem(annotation: Any) -> str | None:
    needed = {'id', 'image_id', 'category_id', 'bbox', 'area'}
    if not isinstance(annotation, dict) or not needed <= annotation.keys():
        return f'lacks one of {", ".join(sorted(needed))}'
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
