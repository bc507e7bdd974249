"""What the server answers: predictions as JSON and as images, and the options of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from starlette.datastructures import QueryParams

from ..errors import UserError, nearest
from ..evaluation.coco_results import encode_masks
from ..inference.prediction import Prediction, labels_of

SCORE_THR = 0.3
"""Objects below it are left out where a request does not say: as ``fasternet-mm predict`` draws them."""


@dataclass(frozen=True)
class Options:
    """What a request asks for.

    Attributes:
        score_thr: objects below it are left out. Default: `SCORE_THR`.
        classes: only objects or labels of these; empty for all. Default: all.
    """

    score_thr: float = SCORE_THR
    classes: Sequence[str] = ()

    @classmethod
    def of(cls, query: QueryParams, classes: Sequence[str], is_segmenter: bool) -> Options:
        """The options after the '?' of an address.

        Raises:
            UserError: one is unknown, or its value is wrong.
        """
        known = ['classes'] if is_segmenter else ['score_thr', 'classes']
        for name in query:
            if name not in known:
                raise UserError(f'{name!r} is not an option; {nearest(name, known, "there is " + " and ".join(known))}')
        chosen = query.getlist('classes')
        labels_of(chosen, classes)
        return cls(_score(query.get('score_thr', str(SCORE_THR))), chosen)

    def select(self, prediction: Prediction) -> Prediction:
        """What is asked for of a prediction."""
        return (prediction.only(*self.classes) if self.classes else prediction).above(self.score_thr)


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = float('nan')
    if not 0 <= score <= 1:
        raise UserError(f'score_thr={text} is not a score: give a number from 0 to 1')
    return score


def as_json(prediction: Prediction) -> dict[str, Any]:
    """The prediction in types of JSON, as the server's OpenAPI document describes it.

    Boxes are xyxy, masks RLE of COCO's: ``pycocotools.mask.decode`` reads them.
    """
    height, width = prediction.image.shape[:2]
    if prediction.label_map is not None:
        return dict(height=height, width=width, segments=_segments(prediction.label_map, prediction.classes))
    objects = [
        {'class': name, 'label': label, 'category_id': prediction.category_ids[label], 'score': score, 'box': box}
        for name, label, score, box in zip(
            prediction.names,
            prediction.labels.tolist(),
            prediction.scores.astype(float).round(4).tolist(),
            prediction.boxes.astype(float).round(3).tolist(),
        )
    ]
    for item, mask in zip(objects, prediction.encoded_masks or ()):
        item['mask'] = _mask(mask)
    return dict(height=height, width=width, objects=objects)


def _segments(label_map: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Each class that is there: how many pixels, and which; classes by number."""
    pixels = np.bincount(label_map.ravel(), minlength=len(classes))[: len(classes)]
    return [
        {
            'class': classes[label],
            'label': label,
            'pixels': int(pixels[label]),
            'mask': _mask(encode_masks((label_map == label)[None])[0]),
        }
        for label in np.flatnonzero(pixels).tolist()
    ]


def _mask(encoded: dict[str, Any]) -> dict[str, Any]:
    return dict(size=list(encoded['size']), counts=encoded['counts'].decode())


def drawing_png(prediction: Prediction) -> bytes:
    """The image with all of the prediction drawn in; of a segmenter with a legend."""
    return _png(prediction.draw(score_thr=0)[..., ::-1])


def label_map_png(prediction: Prediction) -> bytes:
    """The number of each pixel's class, gray of 8 or 16 bits, whose largest number stands for no class."""
    return _png(prediction.label_map)


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode('.png', pixels)[1].tobytes()
