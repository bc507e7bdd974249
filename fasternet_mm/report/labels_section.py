"""The part of a detector's report that shows suspicious labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.coco_results import CocoResults
from ..evaluation.coco_truth import CocoTruth
from ..visualization.drawing import object_text
from .page import ImagePair, Section, Table
from .suspicious_labels import OFF_MASK, SUSPICIOUS, Suspect, rank_labels
from .worst_images import draw_verdicts, open_image, to_data_url

CROPS = 12
"""The number of labels that are shown; each pair of crops has about 60 kilobytes."""

LISTED = 200
"""The number of labels in the table: more than are looked through in a page; ``check-data --model`` writes all."""

SURROUNDINGS = 0.5
"""How much is shown around the boxes on each side, in their own width and height."""


def labels_section(
    truth: CocoTruth, results: CocoResults, names: Mapping[int, str], paths: Mapping[int, Path], score: float
) -> Section:
    """Crops of the most suspicious labels, and a list of more.

    Args:
        truth: the labels.
        results: what the model found.
        names: file names of the images by id.
        paths: the files by image id; without them no crops are shown.
        score: other detections in a crop are drawn from this score on.
    """
    suspects = [suspect for suspect in rank_labels(truth, results) if suspect.suspicion >= SUSPICIOUS]
    kinds = Counter(suspect.kind for suspect in suspects)
    counts = ', '.join(f'{count:,} × {kind}' for kind, count in kinds.most_common())
    text = (
        'Labels that the model speaks against, the most suspicious first: the higher the suspicion, from 0 to 1, the '
        'likelier the label and not the model is wrong. '
        + (
            f'{len(suspects):,} have a suspicion of {SUSPICIOUS} or more: {counts}.'
            if suspects
            else f'None has a suspicion of {SUSPICIOUS} or more.'
        )
    )
    rows = [
        [
            names[suspect.image_id] or str(suspect.image_id),
            f'{suspect.suspicion:.2f}',
            suspect.kind,
            ', '.join(f'{value:.0f}' for value in suspect.box),
            suspect.describe(truth.category_names),
        ]
        for suspect in suspects[:LISTED]
    ]
    header = ['image', 'suspicion', 'what may be wrong', 'x, y, width, height', 'why']
    pairs = [
        _crops(suspect, truth, results, names[suspect.image_id], paths[suspect.image_id], score)
        for suspect in (suspects[:CROPS] if paths else ())
    ]
    tables = [Table('List of suspicious labels', header, rows, bool(pairs), 'why')] if rows else []
    return Section('labels', 'Suspicious labels', text, tables=tables, images=pairs)


def _crops(suspect: Suspect, truth: CocoTruth, results: CocoResults, name: str, path: Path, score: float) -> ImagePair:
    """The image around a label: with the labels, and with the detections; the one in question is orange."""
    size = truth.sizes[suspect.image_id]
    window = _window([r for r in (suspect.annotation, suspect.detection) if r], size)
    labels = [a for a in truth.content['annotations'] if a['image_id'] == suspect.image_id]
    here = results.image_ids == suspect.image_id
    detections = [d for d in results.subset(here).records() if d['score'] >= score or d == suspect.detection]
    image = open_image(path, np.divide(window, (size[1], size[0]) * 2))
    drawings = []
    for records, in_question in ((labels, suspect.annotation), (detections, suspect.detection)):
        objects = [
            {key: value for key, value in record.items() if key != 'segmentation' or suspect.kind == OFF_MASK}
            | dict(
                text=object_text(truth.category_names[record['category_id']], record.get('score')),
                right=record != in_question,
            )
            for record in sorted(records, key=lambda record: record != in_question)
            if _is_inside(record['bbox'], window)
        ]
        drawings.append(to_data_url(draw_verdicts(image, objects, size, window)))
    what = suspect.describe(truth.category_names)
    caption = f'{name}: {suspect.kind}, suspicion {suspect.suspicion:.2f}. {what}'
    return ImagePair(name, caption, *drawings)


def _window(records: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a square around boxes, as far as the image reaches."""
    boxes = np.array([record['bbox'] for record in records], float)
    first, last = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    half = max((last - first).max() * (0.5 + SURROUNDINGS), 8)
    limits = np.array(size[::-1])
    middle = ((first + last) / 2).clip(np.minimum(half, limits / 2), np.maximum(limits - half, limits / 2))
    low, high = np.floor(middle - half).clip(0), np.minimum(np.ceil(middle + half), limits)
    return tuple(np.concatenate((low, high)).astype(int).tolist())


def _is_inside(box: Sequence[float], window: tuple[int, int, int, int]) -> bool:
    """Whether a box, x, y, width, height, lies in the window with some part."""
    left, top, right, bottom = window
    return left < box[0] + box[2] and box[0] < right and top < box[1] + box[3] and box[1] < bottom
