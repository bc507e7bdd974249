"""Detections in COCO's results format (https://cocodataset.org/#format-results): made, written, and read strictly."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from hotcoco import mask as rle
from mmengine.structures import BaseDataElement

from ..datasets.coco_json import is_box, is_finite, mask_problem, read_annotations, read_json, refuse_bad, whole_number
from ..errors import UserError
from ..files import write_atomically
from .coco_truth import CocoTruth

UNUSED_COCO_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
"""COCO's 80 classes have ids up to 90, without these."""


@dataclass
class CocoResults:
    """Detections of many images, in columns of the same length.

    Attributes:
        image_ids: int64 ``(n,)``.
        category_ids: int64 ``(n,)``.
        boxes: float64 ``(n, 4)``: x, y, width, height in pixels.
        scores: float64 ``(n,)``.
        masks: compressed RLE of each, or None.
        has_boxes: whether the boxes are detections, not just those around the masks.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    masks: list[dict[str, Any]] | None = None
    has_boxes: bool = True

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def finite(self) -> np.ndarray:
        """Bool ``(n,)``: where box and score are finite numbers."""
        return np.isfinite(self.boxes).all(axis=1) & np.isfinite(self.scores)

    def subset(self, kept: np.ndarray) -> CocoResults:
        """Those detections where ``kept``, bool ``(n,)``, is true."""
        columns = {name: getattr(self, name)[kept] for name in ('image_ids', 'category_ids', 'boxes', 'scores')}
        masks = None if self.masks is None else [mask for mask, keep in zip(self.masks, kept) if keep]
        return replace(self, **columns, masks=masks)

    def records(self) -> list[dict[str, Any]]:
        """One COCO results record per detection."""
        columns = self.image_ids.tolist(), self.category_ids.tolist(), self.boxes.tolist(), self.scores.tolist()
        records = [
            dict(image_id=image_id, category_id=category_id, bbox=box, score=score)
            for image_id, category_id, box, score in zip(*columns)
        ]
        for record, mask in zip(records, self.masks or ()):
            record['segmentation'] = dict(size=list(mask['size']), counts=_text(mask['counts']))
        return records

    def write(self, path: str | PathLike) -> None:
        """Write a COCO results file, whole or not at all."""
        write_atomically(path, json.dumps(self.records()).encode())


def encode_masks(masks: np.ndarray) -> list[dict[str, Any]]:
    """Compressed RLE of bool masks ``(n, height, width)``, byte for byte pycocotools'."""
    touched = masks.any(axis=1)
    first = touched.argmax(axis=1)
    last = masks.shape[2] - 1 - touched[:, ::-1].argmax(axis=1)
    size = list(masks.shape[1:])  # one for all, which saves a tenth of the memory
    counts = (_encode(mask, *columns) for mask, *columns in zip(masks, first.tolist(), last.tolist()))
    return [dict(size=size, counts=run_lengths) for run_lengths in counts]


def _encode(mask: np.ndarray, first: int, last: int) -> bytes:
    """Counts of the RLE of a mask that is empty before column ``first`` and after ``last``.

    RLE goes down the columns, memory along the rows. Where runs start is therefore looked for row by row, and sorted.
    """
    height, width = mask.shape
    part = mask[:, first : last + 2]  # in the column after the last its run ends
    starts = np.empty(part.shape, dtype=bool)
    np.not_equal(part[1:], part[:-1], out=starts[1:])
    np.not_equal(part[0, 1:], part[-1, :-1], out=starts[0, 1:])
    starts[0, 0] = part[0, 0]  # the first run is of zeros
    rows, columns = np.divmod(np.flatnonzero(starts), part.shape[1])
    places = np.sort((first + columns) * height + rows)
    counts = np.diff(np.concatenate(([0], places, [height * width])))
    return rle.fr_py_objects(dict(size=[height, width], counts=counts.tolist()), height, width)['counts']


def to_coco_results(
    instances: BaseDataElement | Mapping[str, Any], image_id: int, category_ids: Sequence[int]
) -> CocoResults:
    """One image's detections.

    Args:
        instances: MMDetection's ``pred_instances`` with ``bboxes`` (xyxy), ``scores``, ``labels`` and maybe ``masks``,
            a bool tensor ``(n, height, width)`` or RLE already.
        image_id: the image's id.
        category_ids: the id of each label.

    Raises:
        UserError: a label has no id.
    """
    boxes = instances['bboxes'].cpu().double().numpy().reshape(-1, 4).copy()  # NumPy has no bfloat16
    with np.errstate(invalid='ignore'):  # of boxes that are not finite, which the metric leaves out
        boxes[:, 2:] -= boxes[:, :2]
    labels = instances['labels'].cpu().numpy()
    if not len(labels):  # of no objects models may give floating-point numbers
        labels = labels.astype(np.int64)
    unknown = labels[(labels < 0) | (labels >= len(category_ids))]
    if len(unknown):
        raise UserError(
            f'the model found label {unknown[0]}, but the annotations have {len(category_ids)} of its classes: '
            'they must be those that the model was trained on'
        )
    masks = instances.get('masks')
    if masks is not None and not isinstance(masks, list):
        masks = encode_masks(masks.cpu().numpy().astype(bool, copy=False)) if len(labels) else []
    return CocoResults(
        image_ids=np.full(len(labels), image_id, dtype=np.int64),
        category_ids=np.asarray(category_ids, dtype=np.int64)[labels],
        boxes=boxes,
        scores=instances['scores'].cpu().double().numpy(),
        masks=masks,
    )


def concatenate(parts: Sequence[CocoResults]) -> CocoResults:
    """All detections of the parts, in their order; with masks if every part with detections has them."""
    filled = [part for part in parts if len(part)] or list(parts[:1])
    columns = {
        name: np.concatenate([getattr(part, name) for part in filled])
        for name in ('image_ids', 'category_ids', 'boxes', 'scores')
    }
    masks = None if any(part.masks is None for part in filled) else [mask for part in filled for mask in part.masks]
    return CocoResults(**columns, masks=masks)


def category_ids(ann_file: str, classes: Sequence[str]) -> list[int]:
    """The id of each class: the annotation file's, where it has them all; without it COCO's own, or 1, 2, 3, …."""
    from mmdet.datasets import CocoDataset

    if Path(ann_file).is_file():
        ids = {category['name']: whole_number(category['id']) for category in read_annotations(ann_file)['categories']}
        if None not in map(ids.get, classes):
            return [ids[name] for name in classes]
    if tuple(classes) == CocoDataset.METAINFO['classes']:
        return [number for number in range(1, 91) if number not in UNUSED_COCO_IDS]
    return list(range(1, len(classes) + 1))


def read_results(source: str | PathLike | Sequence[Mapping[str, Any]], truth: CocoTruth) -> CocoResults:
    """Detections of any model from a COCO results file, or from its records, each checked against the annotations.

    Without ``bbox`` in the records a mask's own box is taken, as pycocotools does.

    Raises:
        UserError: the file is not such a list, or empty; else the first bad record, and how many are bad.
    """
    if isinstance(source, (str, PathLike)):
        path, records = source, read_json(source, 'a COCO results file, a list of detections,')
    else:
        path, records = 'the list of detections', source
    if not isinstance(records, list):
        kind = 'COCO annotations' if isinstance(records, dict) and 'annotations' in records else type(records).__name__
        raise UserError(f'{path} holds {kind}, not a list of detections: give the results first, then the annotations')
    if not records:
        raise UserError(f'{path} is empty: there are no detections to evaluate')
    keys = {'bbox', 'segmentation'} & (records[0].keys() if isinstance(records[0], dict) else set())
    problems = [(number, _problem(record, keys, truth)) for number, record in enumerate(records)]
    refuse_bad(path, 'detection', [(number, problem) for number, problem in problems if problem], len(records))
    masks = [record['segmentation'] for record in records] if 'segmentation' in keys else None
    boxes = [record['bbox'] for record in records] if 'bbox' in keys else rle.to_bbox(masks)
    return CocoResults(
        image_ids=np.array([whole_number(record['image_id']) for record in records], dtype=np.int64),
        category_ids=np.array([whole_number(record['category_id']) for record in records], dtype=np.int64),
        boxes=np.asarray(boxes, dtype=float),
        scores=np.array([record['score'] for record in records], dtype=float),
        masks=masks,
        has_boxes='bbox' in keys,
    )


def check_results(results: CocoResults, truth: CocoTruth, source: str) -> None:
    """Refuse detections that a model gave for other images than those of the annotations, or of another size.

    Args:
        results: the detections.
        truth: the annotations.
        source: where the detections are from, for messages.

    Raises:
        UserError: the first detection of an unknown image, or with a mask of another size, and how many there are.
    """
    unknown = ~np.isin(results.image_ids, np.array(list(truth.sizes), dtype=np.int64))
    problems = [
        (
            number,
            f'is of image {results.image_ids[number]}, which {truth.source} lacks: use the annotations of the data',
        )
        for number in np.flatnonzero(unknown).tolist()
    ]
    refuse_bad(source, 'detection', problems, len(results))
    sizes = ((number, truth.sizes[number]) for number in results.image_ids.tolist())
    problems = [
        (place, f'has a mask of {list(mask["size"])} pixels, but {truth.source} says {list(size)} of image {number}')
        for place, (mask, (number, size)) in enumerate(zip(results.masks or (), sizes))
        if None not in size and list(mask['size']) != list(size)
    ]
    refuse_bad(source, 'detection', problems, len(results))


def _problem(record: Any, keys: Collection[str], truth: CocoTruth) -> str | None:
    """What is wrong with one record of a results file."""
    if not isinstance(record, dict) or not {'image_id', 'category_id', 'score', *keys} <= record.keys() or not keys:
        return 'lacks image_id, category_id, score, or bbox or segmentation where others have it'
    image_id, category_id = whole_number(record['image_id']), whole_number(record['category_id'])
    if image_id not in truth.sizes:
        return f'has image_id {record["image_id"]!r}, which {truth.source} lacks'
    if category_id not in truth.category_names:
        return f'has category_id {record["category_id"]!r}, which {truth.source} lacks'
    if not is_finite(record['score']):
        return f'has score {record["score"]!r}: a finite number is needed'
    if 'bbox' in keys and not is_box(record['bbox']):
        return f'has bbox {record["bbox"]!r}: x, y, width, height are needed, finite and sizes not below 0'
    return mask_problem(record['segmentation'], truth.sizes[image_id]) if 'segmentation' in keys else None


def _text(counts: str | bytes) -> str:
    return counts.decode() if isinstance(counts, bytes) else counts
