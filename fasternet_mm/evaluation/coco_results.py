"""Predictions as COCO results (https://cocodataset.org/#format-results)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmengine.evaluator import BaseMetric
from mmengine.structures import BaseDataElement
from pycocotools import mask as rle

from ..data.checks import read_categories
from ..engine.storage import write_atomically
from ..registry import METRICS

UNUSED_COCO_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
"""COCO's 80 classes have ids up to 90, without these."""


def to_coco_results(
    instances: BaseDataElement | Mapping[str, Any], image_id: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """One record per detection: ``image_id``, ``category_id``, ``bbox`` (x, y, w, h in pixels), ``score``, and, where
    there are masks, ``segmentation`` as compressed RLE.

    Args:
        instances: MMDetection's ``pred_instances`` with ``bboxes`` (xyxy), ``scores``, ``labels`` and maybe ``masks``.
        image_id: the picture's id.
        category_ids: the id of each label.
    """
    boxes = np.asarray(instances['bboxes'].cpu(), dtype=float).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    records = [
        dict(image_id=image_id, category_id=category_ids[label], bbox=[round(v, 2) for v in box], score=round(score, 5))
        for box, label, score in zip(boxes.tolist(), instances['labels'].tolist(), instances['scores'].tolist())
    ]
    if 'masks' in instances:
        for record, mask in zip(records, np.asarray(instances['masks'].cpu(), dtype=np.uint8)):
            encoded = rle.encode(np.asfortranarray(mask))
            record['segmentation'] = dict(size=encoded['size'], counts=encoded['counts'].decode())
    return records


def category_ids(ann_file: str, classes: Sequence[str]) -> list[int]:
    """The id of each class: the annotation file's, where it is at hand; without it COCO's own, or 1, 2, 3, …."""
    if Path(ann_file).is_file():
        return [category['id'] for category in read_categories(Path(ann_file)) if category['name'] in classes]
    if tuple(classes) == CocoDataset.METAINFO['classes']:
        return [number for number in range(1, 91) if number not in UNUSED_COCO_IDS]
    return list(range(1, len(classes) + 1))


@METRICS.register_module()
class CocoResultsFile(BaseMetric):
    """Writes all detections of a test run to one COCO results file; it measures nothing.

    Args:
        out: the file.
        ann_file: COCO annotations, for the ids of the classes.
    """

    default_prefix = 'results'

    def __init__(self, out: str, ann_file: str) -> None:
        super().__init__()
        self.out = out
        self.ann_file = ann_file
        self.category_ids: list[int] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        if not self.category_ids:
            self.category_ids = category_ids(self.ann_file, self.dataset_meta['classes'])
        for sample in data_samples:  # one entry a picture: MMEngine cuts what it collects to the data set's length
            self.results.append(to_coco_results(sample['pred_instances'], sample['img_id'], self.category_ids))

    def compute_metrics(self, results: list[list[dict[str, Any]]]) -> dict[str, float]:
        records = [record for picture in results for record in picture]
        write_atomically(self.out, json.dumps(records).encode())
        return {'detections': len(records)}
