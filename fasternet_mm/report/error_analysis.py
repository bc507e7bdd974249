"""Which detections and images cost average precision, and from which score on detections should be believed.

All of it is at IoU 0.5. Detections that COCO leaves out (in crowds, or beyond 100 per class and image) count nowhere.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from ..evaluation.coco_evaluation import Evaluation, evaluate_task
from ..evaluation.coco_results import CocoResults
from ..evaluation.coco_truth import CocoTruth


@dataclass
class Matches:
    """What became of each detection and each object.

    Attributes:
        counted: bool, of each detection.
        right: bool, of each detection: it found an object.
        finder_scores: the score of the detection that found each object that counts, None for missed ones, by
            annotation id.
    """

    counted: np.ndarray
    right: np.ndarray
    finder_scores: dict[int, float | None]


def match(evaluation: Evaluation, results: CocoResults) -> Matches:
    """The verdicts of the evaluation of the results."""
    diagnostics = evaluation.coco.image_diagnostics(iou_thr=0.5)
    finders = diagnostics['gt_match']  # detections are numbered from 1
    verdicts = [diagnostics['dt_status'].get(number) for number in range(1, len(results) + 1)]
    return Matches(
        counted=np.array([verdict is not None for verdict in verdicts], dtype=bool),
        right=np.array([verdict == 'tp' for verdict in verdicts], dtype=bool),
        finder_scores={
            number: float(results.scores[finders[number] - 1]) if number in finders else None
            for number in diagnostics['gt_status']
        },
    )


@dataclass
class ThresholdCurve:
    """Precision, recall and F1 of all detections from a score on, classes taken together.

    Attributes:
        scores: the detections' own, descending.
        precision: right detections / detections.
        recall: right detections / objects.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """The harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)

    @property
    def best(self) -> tuple[float, float, float, float]:
        """Score, precision, recall and F1 where F1 is largest."""
        place = self.f1.argmax()
        return tuple(float(values[place]) for values in (self.scores, self.precision, self.recall, self.f1))


def threshold_curve(scores: np.ndarray, right: np.ndarray, objects: int) -> ThresholdCurve:
    """Count detections from the best score down; of equal scores, all or none."""
    order = np.argsort(-scores, kind='stable')
    last = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    hits = right[order].cumsum()[last]
    return ThresholdCurve(scores[order][last], hits / (last + 1), hits / max(objects, 1))


def image_losses(truth: CocoTruth, results: CocoResults, matches: Matches) -> dict[int, float]:
    """How much AP50 each image costs, to first order: the sum, over its mistakes, of what mending each alone gives.

    A wrong detection would disappear, a missed object be found with the best score of all. AP is here the mean, over a
    class's objects, of the precision at which each is found (0 if it is not): the area under the curve without COCO's
    interpolation.

    Returns:
        The loss of each image that has one, by id.
    """
    objects = [annotation for annotation in truth.content['annotations'] if annotation['id'] in matches.finder_scores]
    totals = Counter(annotation['category_id'] for annotation in objects)
    losses: defaultdict[int, float] = defaultdict(float)
    gain_if_found = {}
    for category_id, total in totals.items():
        members = np.flatnonzero(matches.counted & (results.category_ids == category_id))
        members = members[np.argsort(-results.scores[members], kind='stable')]
        right = matches.right[members]
        rank, hits = np.arange(1, len(members) + 1), right.cumsum()
        share = 1 / (total * len(totals))
        # With one wrong detection less, each right one after it moves up by a rank.
        gain = np.where(right, hits / np.maximum(rank - 1, 1) - hits / rank, 0.0)
        after = gain[::-1].cumsum()[::-1]
        for member, loss in zip(members[~right], after[~right]):
            losses[int(results.image_ids[member])] += share * loss
        # With one object more, found before all others, its precision is 1 and that of each right detection rises.
        gain_if_found[category_id] = share * (1 + ((hits + 1) / (rank + 1) - hits / rank)[right].sum())
    for annotation in objects:
        if matches.finder_scores[annotation['id']] is None:
            losses[annotation['image_id']] += gain_if_found[annotation['category_id']]
    return dict(losses)


def most_confused(matrix: np.ndarray, count: int = 15) -> list[tuple[int, int]]:
    """Rows and columns of the largest numbers in a confusion matrix, without its diagonal, the largest first."""
    pairs = [(matrix[row, column], row, column) for row, column in zip(*np.nonzero(matrix)) if row != column]
    return [(row, column) for _, row, column in sorted(pairs, reverse=True)[:count]]


def confusion(truth: CocoTruth, results: CocoResults, matches: Matches, task: str, score: float) -> np.ndarray:
    """Which class is taken for which, among detections from ``score`` on.

    Returns:
        int64 ``(classes + 1, classes + 1)``: rows are objects' classes, columns detections'; the last of each is the
        background, where objects were missed and where detections found nothing. Classes as in the evaluation.
    """
    sure = results.subset(matches.counted & (results.scores >= score))
    return evaluate_task(truth, sure, task).coco.confusion_matrix(iou_thr=0.5)['matrix'].astype(np.int64)
