"""COCO's figures (https://cocodataset.org/#detection-eval).

hotcoco counts: its arrays of precision and recall are pycocotools' to the bit, in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hotcoco import COCOeval
from hotcoco import mask as rle

from ..errors import UserError
from .coco_results import CocoResults
from .coco_truth import CocoTruth

AREAS = ('all', 'small', 'medium', 'large')
"""COCO's ranges of object areas, in the order of the arrays: small is below 32² pixels, large above 96²."""


@dataclass
class Evaluation:
    """What an evaluation found.

    Attributes:
        coco: hotcoco's evaluation, for analyses.
        precision: ``(IoU, recall, class, area, detections)``, -1 where nothing counts.
        recall: ``(IoU, class, area, detections)``, the largest.
        category_ids: the classes, in the arrays' order.
        iou_thrs: the IoUs.
        max_dets: the numbers of detections per image.
    """

    coco: COCOeval
    precision: np.ndarray
    recall: np.ndarray
    category_ids: list[int]
    iou_thrs: list[float]
    max_dets: list[int]

    def mean_precision(
        self, iou_thr: float | None = None, area: str = 'all', max_det: int = -1, category_id: int | None = None
    ) -> float:
        """AP: the mean over recalls, and over classes and IoUs or of the ones given; -1 where nothing counts."""
        precision = self.precision[..., AREAS.index(area), max_det]
        if iou_thr is not None:
            precision = precision[np.isclose(self.iou_thrs, iou_thr)]
        return _mean(precision if category_id is None else precision[:, :, self.category_ids.index(category_id)])

    def mean_recall(self, area: str = 'all', max_det: int = -1) -> float:
        """AR: the mean over IoUs and classes; -1 where nothing counts."""
        return _mean(self.recall[..., AREAS.index(area), max_det])

    def class_precisions(self, category_id: int) -> list[float]:
        """The six APs of one class, as `summary` orders them, at the most detections; -1 where nothing counts."""
        options = [{}, dict(iou_thr=0.5), dict(iou_thr=0.75), *(dict(area=area) for area in AREAS[1:])]
        return [self.mean_precision(**option, category_id=category_id) for option in options]

    def classes(self, truth: CocoTruth) -> dict[str, list[float]]:
        """The six APs of each class, by its name."""
        return {truth.category_names[number]: self.class_precisions(number) for number in self.category_ids}

    def summary(self) -> dict[str, float]:
        """COCO's twelve figures under MMDetection's names.

        'mAP' is at 100 detections per image, or at the most where 100 is not evaluated; the others are at the most or
        at the number in their name.
        """
        most = self.max_dets[-1]
        at_100 = self.max_dets.index(100) if 100 in self.max_dets else -1
        figures = {
            'mAP': self.mean_precision(max_det=at_100),
            'mAP_50': self.mean_precision(iou_thr=0.5),
            'mAP_75': self.mean_precision(iou_thr=0.75),
        }
        figures |= {f'mAP_{area[0]}': self.mean_precision(area=area) for area in AREAS[1:]}
        figures |= {f'AR@{number}': self.mean_recall(max_det=place) for place, number in enumerate(self.max_dets)}
        return figures | {f'AR_{area[0]}@{most}': self.mean_recall(area) for area in AREAS[1:]}


def _mean(values: np.ndarray) -> float:
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else -1.0


def evaluate(
    truth: CocoTruth,
    results: CocoResults,
    task: str,
    category_ids: Sequence[int] | None = None,
    max_dets: Sequence[int] = (1, 10, 100),
    iou_thrs: Sequence[float] | None = None,
    class_agnostic: bool = False,
) -> Evaluation:
    """Match detections with objects, and accumulate precision and recall.

    Args:
        truth: the annotations; all their images count.
        results: the detections.
        task: 'bbox' or 'segm'.
        category_ids: the classes that count. Default: all.
        max_dets: numbers of detections per image to evaluate at, ascending. Default: COCO's.
        iou_thrs: IoU from which a detection matches. Default: 0.5, 0.55, …, 0.95.
        class_agnostic: match whatever the classes, as for proposals. Default: False.
    """
    numbers = truth.image_numbers(results.image_ids)
    rows = np.column_stack((numbers, results.boxes, results.scores, results.category_ids))
    found = truth.coco.load_res(rows, segmentation=results.masks if task == 'segm' and len(results) else None)
    if task == 'segm' and len(results):  # else the boxes' areas would tell small from large
        found.update_anns(ids=np.arange(1, len(results) + 1), area=rle.area(results.masks))
    evaluation = COCOeval(truth.coco, found, task)
    params = evaluation.params
    params.max_dets = list(max_dets)
    params.use_cats = not class_agnostic
    if category_ids is not None:
        params.cat_ids = list(category_ids)
    if iou_thrs is not None:
        params.iou_thrs = list(iou_thrs)
    evaluation.evaluate()
    evaluation.accumulate()
    arrays = evaluation.eval
    return Evaluation(
        coco=evaluation,
        precision=arrays['precision'],
        recall=arrays['recall'],
        category_ids=list(params.cat_ids),
        iou_thrs=list(params.iou_thrs),
        max_dets=list(params.max_dets),
    )


def evaluate_tasks(truth: CocoTruth, results: CocoResults, tasks: Sequence[str] | None = None) -> dict[str, Evaluation]:
    """Evaluate tasks ('bbox', 'segm', 'proposal') at COCO's settings; by default those that the results are for.

    Raises:
        UserError: results or annotations have no masks, which 'segm' needs.
    """
    if tasks is None:
        tasks = [task for task, there in (('bbox', results.has_boxes), ('segm', results.masks is not None)) if there]
    if 'segm' in tasks:
        if results.masks is None:
            raise UserError('the results have no masks (segmentation), which segm needs: evaluate bbox alone')
        truth.check_masks()
    return {
        task: evaluate(truth, results, task.replace('proposal', 'bbox'), class_agnostic=task == 'proposal')
        for task in tasks
    }
