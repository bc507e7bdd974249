"""Which labels a model's predictions speak against, the most suspicious first.

Each label gets a suspicion from 0 to 1, so that all kinds of mistakes stand in one list. That a trained model's scores
tell wrong labels from right ones is the idea of confident learning (Northcutt et al., arXiv 1911.00068; for objects
Tkachenko et al., arXiv 2309.00832). What a score is worth is learned here from the labels themselves, most of which are
right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hotcoco import mask as rle

from ..evaluation.coco_results import CocoResults
from ..evaluation.coco_truth import CocoTruth

MISSING, WRONG_CLASS, SUPERFLUOUS = 'missing label', 'wrong class', 'superfluous label'
SHIFTED, OFF_MASK = 'shifted box', 'box off its mask'

SUSPICIOUS = 0.5
"""The suspicion from which a label is worth a look: it is about as likely wrong as right."""

LEAST_SCORE = 0.05
"""Detections with a lower score tell nothing; models give hundreds of them for every image."""

FOUND = 0.5
"""The IoU from which a detection is of an object, as for AP50."""

LOOSE = 0.3
"""The IoU up to which a box is as badly placed as can be: half of its width away it has IoU 0.33."""

APART = 0.1
"""The IoU up to which two boxes are of different objects, as for TIDE."""


@dataclass(frozen=True)
class Suspect:
    """A label that may be wrong.

    Attributes:
        kind: what may be wrong with it: 'missing label', 'wrong class', 'superfluous label', 'shifted box' or 'box off
            its mask'.
        suspicion: from 0 to 1.
        image_id: the image's.
        annotation: the label, as it stands in the annotations; None where it is missing.
        detection: what the model says there, as a COCO results record; None where it says nothing.
        overlap: the IoU of the two boxes, or that of box and mask; 0 where only one is there.
    """

    kind: str
    suspicion: float
    image_id: int
    annotation: dict[str, Any] | None = None
    detection: dict[str, Any] | None = None
    overlap: float = 0.0

    @property
    def box(self) -> list[float]:
        """The label's box, or the one that it should have: x, y, width, height."""
        return (self.annotation or self.detection)['bbox']

    def describe(self, category_names: dict[int, str]) -> str:
        """What speaks against the label, as a sentence."""
        label, seen = (record and category_names[record['category_id']] for record in (self.annotation, self.detection))
        score = self.detection and f'{self.detection["score"]:.2f}'
        return {
            MISSING: f'Nothing is labeled here, and the model sees “{seen}” ({score}).',
            WRONG_CLASS: f'Labeled “{label}”, and the model sees “{seen}” ({score}).',
            SUPERFLUOUS: f'Labeled “{label}”, and the model sees nothing that fits.',
            SHIFTED: f'The box of “{label}” is not where the model sees it ({score}): their IoU is {self.overlap:.2f}.',
            OFF_MASK: f'The box of “{label}” is not around its mask: their IoU is {self.overlap:.2f}.',
        }[self.kind]


def rank_labels(truth: CocoTruth, results: CocoResults) -> list[Suspect]:
    """All labels, and the places where one may be missing, the most suspicious first.

    With p, the chance that a detection is right, as its score and the labels tell it, and b, the same where people have
    labeled something, the suspicion is

    - wrong class: p of another class × (1 - b of the label's own);
    - shifted box: p × how loose the boxes are, from 0 at the usual IoU to 1 at `LOOSE`, × (1 - b of one that fits);
    - superfluous label: 1 - b, or less of b where the IoU is below `FOUND`;
    - missing label: p × how far the detection is apart from all labels and likelier detections;
    - box off its mask: 1 - the IoU of the box with the one around the mask.

    A label has the kind in which it is most suspicious. Crowds are not judged, and nothing is missing in them.

    Args:
        truth: the labels.
        results: detections in the same images, best by a model that has not learned these labels; those below
            `LEAST_SCORE` are not looked at.
    """
    results = results.subset(results.scores >= LEAST_SCORE)
    records = results.records()
    labels: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in truth.content['annotations']:
        labels[annotation['image_id']].append(annotation)
    detections: dict[int, list[int]] = defaultdict(list)
    for number in np.argsort(-results.scores, kind='stable').tolist():
        detections[records[number]['image_id']].append(number)
    scenes = {
        image_id: _Scene(labels[image_id], [records[number] for number in detections[image_id]])
        for image_id in truth.sizes
    }
    right = np.zeros(len(records), bool)
    for image_id, scene in scenes.items():
        right[detections[image_id]] = scene.owners >= 0
    chances = calibrate(results.scores, right)
    overlaps = np.concatenate([scene.own_overlaps for scene in scenes.values()] or [[]])
    usual = max(float(np.median(overlaps)), FOUND) if len(overlaps) else 1.0
    # As likely as not before the model looks: where somebody drew a box, an object is likelier than at a random place.
    odds = max((~right).sum() / max(right.sum(), 1), 1)
    suspects = [
        suspect
        for image_id, scene in scenes.items()
        for suspect in scene.suspects(image_id, chances[detections[image_id]], odds, usual)
    ]
    return sorted(suspects, key=lambda suspect: -suspect.suspicion)


def calibrate(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The chance that each detection is right: a logistic curve of the score, fitted as Platt does (1999).

    Args:
        scores: float ``(n,)``, from 0 to 1.
        right: bool ``(n,)``.
    """
    if not len(scores):
        return np.zeros(0)
    scores = np.clip(scores, 1e-6, 1 - 1e-6)
    logits = np.log(scores / (1 - scores))
    spread = max(logits.std(), 1e-6)
    inputs = np.stack(((logits - logits.mean()) / spread, np.ones_like(logits)), axis=1)
    # Not quite 1 and 0, so that the curve has a slope where scores part right from wrong without exception.
    targets = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    weights = np.zeros(2)
    for _ in range(50):  # Newton's method, which takes about ten steps
        chances = _logistic(inputs @ weights)
        curvature = (inputs * (chances * (1 - chances))[:, None]).T @ inputs + 1e-6 * np.eye(2)
        step = np.linalg.solve(curvature, inputs.T @ (targets - chances))
        weights += step / max(np.linalg.norm(step), 1)
    weights[0] = max(weights[0], 0)  # a higher score is never worth less
    return _logistic(inputs @ weights)


def _logistic(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values.clip(-50, 50)))


class _Scene:
    """The labels and detections of one image, and which detection found which label.

    Attributes:
        overlaps: IoU of each detection with each label, ``(detections, labels)``.
        same: bool, as ``overlaps``: whether the classes are the same.
        owners: the label that each detection found, -1 for none. The detections come by falling score.
    """

    def __init__(self, annotations: Sequence[dict[str, Any]], detections: Sequence[dict[str, Any]]) -> None:
        self.labels = [annotation for annotation in annotations if not annotation.get('iscrowd')]
        self.crowds = [annotation for annotation in annotations if annotation.get('iscrowd')]
        self.detections = detections
        self.overlaps = _overlaps(detections, self.labels)
        classes = [np.array([record['category_id'] for record in part], int) for part in (detections, self.labels)]
        self.same = classes[0][:, None] == classes[1]
        self.owners = np.full(len(detections), -1)
        fitting = np.where(self.same & (self.overlaps >= FOUND), self.overlaps, 0)
        for number in np.flatnonzero(fitting.any(axis=1)):
            best = fitting[number].argmax()
            if fitting[number, best] > 0:
                self.owners[number] = best
                fitting[:, best] = 0

    @property
    def own_overlaps(self) -> np.ndarray:
        """The IoU of each label that was found with what found it."""
        finders = np.flatnonzero(self.owners >= 0)
        return self.overlaps[finders, self.owners[finders]]

    def suspects(self, image_id: int, chances: np.ndarray, odds: float, usual: float) -> Iterator[Suspect]:
        """The labels of this image and those that may be missing; see `rank_labels`."""
        at_labels = chances * odds / (chances * odds + 1 - chances)
        spoken_for = self.owners >= 0
        for number, label in enumerate(self.labels):
            free = (self.owners < 0) | (self.owners == number)  # what found another label says nothing of this one
            overlaps, same = self.overlaps[:, number], self.same[:, number]
            own, other = free & same, free & ~same
            looseness = ((usual - overlaps) / (usual - LOOSE)).clip(0, 1)
            for_class = (at_labels * (own & (overlaps >= FOUND))).max(initial=0)
            for_place = (at_labels * own * (1 - looseness)).max(initial=0)
            for_object = (at_labels * free * (overlaps / FOUND).clip(0, 1)).max(initial=0)
            against_class = chances * (other & (overlaps >= FOUND)) * (1 - for_class)
            against_place = chances * (own & (overlaps >= APART)) * looseness * (1 - for_place)
            around_mask = _overlap_with_mask(label)
            suspicions = {
                WRONG_CLASS: against_class.max(initial=0),
                SHIFTED: against_place.max(initial=0),
                SUPERFLUOUS: 1 - for_object,
                OFF_MASK: 1 - around_mask,
            }
            kind = max(suspicions, key=suspicions.__getitem__)
            place = {WRONG_CLASS: against_class, SHIFTED: against_place}.get(kind, chances[:0]).argsort()[-1:]
            spoken_for[place] = True
            yield Suspect(
                kind=kind,
                suspicion=float(suspicions[kind]),
                image_id=image_id,
                annotation=label,
                detection=self.detections[place[0]] if len(place) else None,
                overlap=around_mask if kind == OFF_MASK else float(overlaps[place].max(initial=0)),
            )
        yield from self._missing(image_id, chances, spoken_for)

    def _missing(self, image_id: int, chances: np.ndarray, spoken_for: np.ndarray) -> Iterator[Suspect]:
        """The detections that no label explains; of several in one place the likeliest."""
        covered = self.overlaps.max(axis=1, initial=0)
        in_crowds = _overlaps(self.detections, self.crowds, crowds=True).max(axis=1, initial=0) >= FOUND
        covered[in_crowds | spoken_for] = 1
        among = _overlaps(self.detections, self.detections)
        covered = np.maximum(covered, among[:, spoken_for].max(axis=1, initial=0))
        for number in range(len(self.detections)):
            suspicion = chances[number] * np.clip((FOUND - covered[number]) / (FOUND - APART), 0, 1)
            if suspicion >= LEAST_SCORE:
                yield Suspect(MISSING, float(suspicion), image_id, detection=self.detections[number])
                covered = np.maximum(covered, among[:, number])


def _overlaps(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]], crowds: bool = False) -> np.ndarray:
    """IoU of all boxes, ``(first, second)``; of crowds the share of the first box that is inside."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    boxes = [np.array([record['bbox'] for record in records], float) for records in (first, second)]
    return np.asarray(rle.iou(*boxes, [crowds] * len(second)))


def _overlap_with_mask(label: dict[str, Any]) -> float:
    """IoU of a label's box with the one around its mask; 1 where it has no mask."""
    mask = label.get('segmentation')
    if not mask:
        return 1.0
    if isinstance(mask, list):
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in mask])
        box = [*points.min(axis=0), *np.ptp(points, axis=0)]
    else:
        box = rle.to_bbox([mask])[0]
    return float(_overlaps([label], [dict(bbox=box)])[0, 0])
