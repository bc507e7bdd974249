"""Images with their annotations, as every format is written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Segmentation = list[list[float]] | dict[str, Any]
"""As in COCO: polygons x, y, x, y, … in pixels, which fill what any of them encloses; or a mask in RLE."""


@dataclass(frozen=True, slots=True)
class LabeledObject:
    """An object in an image.

    Attributes:
        label: the number of its class, from 0.
        box: x, y, width, height in pixels.
        area: of the object in pixels.
        segmentation: its outline; None where there is only a box.
        ignored: whether it is a region that is neither trained nor scored: a crowd, or a difficult object.
        score: of a prediction, from 0 to 1; else None.
    """

    label: int
    box: Sequence[float]
    area: float
    segmentation: Segmentation | None = None
    ignored: bool = False
    score: float | None = None


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """An image with its objects, or with the class of each pixel.

    Attributes:
        name: its path in the data set that is written, with '/' between its parts, such as 'camera2/0001.jpg'.
        size: height and width as the image is seen, turned as its EXIF orientation says.
        source: its file, which is copied; or its pixels, uint8 ``(H, W, 3)``, RGB, where there is none.
        objects: in any order.
        label_map: the number of each pixel's class, ``(H, W)``, where the type's largest number stands for no class;
            None where there are objects.
    """

    name: str
    size: tuple[int, int]
    source: Path | np.ndarray
    objects: Sequence[LabeledObject] = ()
    label_map: np.ndarray | None = None
