"""Objects of label maps."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .labeled_images import LabeledObject
from .mask_outlines import encode_region


def is_background(name: str) -> bool:
    """Whether a class of label maps is no object, by its name."""
    return name.lower() in ('background', '_background_')


def objects_of_label_map(label_map: np.ndarray, classes: Sequence[str]) -> list[LabeledObject]:
    """The connected regions of each class but the background, diagonal neighbors included, as objects with masks.

    Their labels count the classes without the background.

    Args:
        label_map: ``(H, W)``; numbers from ``len(classes)`` on are no class.
        classes: the names of the classes, by their number in the label map.
    """
    objects = []
    numbers = [number for number, name in enumerate(classes) if not is_background(name)]
    for label, number in enumerate(numbers):
        pixels = (label_map == number).astype(np.uint8)
        if not pixels.any():
            continue
        count, regions, statistics, _ = cv2.connectedComponentsWithStats(pixels, connectivity=8)
        for region in range(1, count):
            *box, area = map(int, statistics[region])
            objects.append(LabeledObject(label, box, area, encode_region(regions == region)))
    return objects
