"""COCO's figures (https://cocodataset.org/#detection-eval).

hotcoco counts: its arrays of precision and recall are pycocotools' to the bit, in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from hotcoco import COCOeval
from hotcoco import mask as rle

from ..errors import UserError
from ..models.backbone import InvalidArgument
from .coco_results import CocoResults, read_results
from .coco_truth import CocoTruth, read_truth

TASKS = ('bbox', 'segm', 'proposal')
"""What is evaluated: boxes, masks, or boxes whatever their classes, as a region proposal network gives them."""

AREAS = ('all', 'small', 'medium', 'large')
"""COCO's ranges of object areas, in the order of the arrays: small is below 32² pixels, large above 96²."""


@dataclass
class Evaluation:
    """Precision and recall of detections.

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
        """AP: the mean over recalls, IoUs and classes, or of one IoU or class; -1 where nothing counts."""
        precision = self.precision[..., AREAS.index(area), max_det]
        if iou_thr is not None:
            precision = precision[np.isclose(self.iou_thrs, iou_thr)]
        return _mean(precision if category_id is None else precision[:, :, self.category_ids.index(category_id)])

    def mean_recall(self, area: str = 'all', max_det: int = -1) -> float:
        """AR: the mean over IoUs and classes; -1 where nothing counts."""
        return _mean(self.recall[..., AREAS.index(area), max_det])

    def classes(self, truth: CocoTruth) -> dict[str, list[float]]:
        """The six APs of each class, by its name, as `summary` orders them; -1 where nothing counts."""
        options: list[dict[str, Any]] = [{}, dict(iou_thr=0.5), dict(iou_thr=0.75)]
        options += [dict(area=area) for area in AREAS[1:]]
        return {
            truth.category_names[number]: [self.mean_precision(**option, category_id=number) for option in options]
            for number in self.category_ids
        }

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
    results: str | PathLike | Sequence[Mapping[str, Any]] | CocoResults,
    annotations: str | PathLike | CocoTruth,
    tasks: str | Sequence[str] | None = None,
    classwise: bool = False,
) -> dict[str, dict[str, Any]]:
    """COCO's figures of detections: those that ``fasternet-mm evaluate`` prints, and writes with ``--out``.

    Args:
        results: a COCO results file (https://cocodataset.org/#format-results), or its records: dicts with
            ``image_id``, ``category_id``, ``score`` and ``bbox`` (x, y, width, height in pixels), for masks
            ``segmentation`` as RLE; or what `read_results` made of them.
        annotations: a COCO annotation file; or what `read_truth` made of one, to read it once for many results.
        tasks: one or several of 'bbox', 'segm', 'proposal'. Default: 'bbox' and 'segm' where the results have them.
        classwise: also evaluate each class alone. Default: False.

    Returns:
        Of each task its twelve figures, unrounded, from 0 to 1, or -1 where nothing counts. They are 'mAP', 'mAP_50',
        'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l' (precision over IoU 0.5 to 0.95, at one IoU, and of small, medium and large
        objects), 'AR@1', 'AR@10', 'AR@100', 'AR_s@100', 'AR_m@100', 'AR_l@100' (recall). With ``classwise`` 'classes'
        has the six precisions of each class, by its name.

    Raises:
        InvalidArgument: a task is unknown.
        UserError: a file cannot be read, or is not in COCO's format; a detection is of no image or class of the
            annotations; or masks are missing.
    """
    truth = annotations if isinstance(annotations, CocoTruth) else read_truth(annotations)
    detections = results if isinstance(results, CocoResults) else read_results(results, truth)
    figures: dict[str, dict[str, Any]] = {}
    chosen = [tasks] if isinstance(tasks, str) else tasks
    for task, evaluation in evaluate_tasks(truth, detections, chosen).items():
        figures[task] = evaluation.summary()
        if classwise:
            figures[task]['classes'] = evaluation.classes(truth)
    return figures


def check_tasks(tasks: Sequence[str]) -> None:
    """Raise `InvalidArgument` where a task is unknown."""
    for task in tasks:
        if task not in TASKS:
            raise InvalidArgument(f'the task {task!r} is unknown: use one or several of {", ".join(TASKS)}')


def evaluate_task(
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
    masks: list[Any] | None = results.masks if task == 'segm' and len(results) > 0 else None
    detections = truth.coco.load_res(rows, segmentation=masks)
    if masks is not None:  # else the boxes' areas would tell small from large
        detections.update_anns(ids=np.arange(1, len(results) + 1), area=rle.area(masks))
    evaluation = COCOeval(truth.coco, detections, task)
    params = evaluation.params
    params.max_dets = list(max_dets)
    params.use_cats = not class_agnostic
    if category_ids is not None:
        params.cat_ids = list(category_ids)
    if iou_thrs is not None:
        params.iou_thrs = list(iou_thrs)
    evaluation.evaluate()
    evaluation.accumulate()
    arrays: Any = evaluation.eval
    return Evaluation(
        coco=evaluation,
        precision=arrays['precision'],
        recall=arrays['recall'],
        category_ids=list(params.cat_ids),
        iou_thrs=list(params.iou_thrs),
        max_dets=list(params.max_dets),
    )


def evaluate_tasks(truth: CocoTruth, results: CocoResults, tasks: Sequence[str] | None = None) -> dict[str, Evaluation]:
    """Evaluate some of `TASKS` at COCO's settings; by default boxes and masks, as far as the results have them.

    Raises:
        InvalidArgument: a task is unknown.
        UserError: results or annotations have no masks, which 'segm' needs.
    """
    if tasks is None:
        tasks = ['bbox'] * results.has_boxes + ['segm'] * (results.masks is not None)
    check_tasks(tasks)
    if 'segm' in tasks:
        if results.masks is None:
            raise UserError('the results have no masks (segmentation), which segm needs: evaluate bbox alone')
        truth.check_masks()
    return {
        task: evaluate_task(truth, results, task.replace('proposal', 'bbox'), class_agnostic=task == 'proposal')
        for task in tasks
    }
