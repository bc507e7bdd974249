"""Label maps: an 8-bit PNG for each image, whose pixels are the numbers of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from hotcoco import mask as rle

from ..errors import UserError
from .annotation_writer import AnnotationWriter, split_and_stem, write_text
from .labeled_images import LabeledImage
from .mask_outlines import to_rle

NO_CLASS = 255
"""The label of pixels that do not count, as in all of MMSegmentation."""


class LabelMapWriter(AnnotationWriter):
    """``images/SPLIT``, ``labels/SPLIT`` and ``classes.txt``.

    Objects are drawn, the smallest last, over a background that is class 0. Crowds, and the boxes of objects that have
    no outline, do not count (`NO_CLASS`), where no outline is drawn over them.

    Raises:
        UserError: there are more classes than 8 bits hold; or, at the end, objects of which none has an outline.
    """

    title = 'label maps'

    def classes_of(self, classes: Sequence[str]) -> list[str]:
        classes = [*classes] if self.of_label_maps else ['background', *classes]
        if len(classes) > NO_CLASS:
            raise UserError(f'{len(classes)} classes do not fit into label maps of 8 bits: choose another format')
        return classes

    def write(self, split: str, name: str, image: LabeledImage) -> None:
        label_map = self._drawn(image) if image.label_map is None else image.label_map
        label_map = np.where(label_map < len(self.classes), label_map, NO_CLASS).astype(np.uint8)
        path = self.folder / f'labels/{split_and_stem(split, name)}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode('.png', label_map)[1].tobytes())

    def finish(self) -> None:
        if self._boxed and not self._outlined:
            raise UserError(
                f'none of the {self._boxed} objects has an outline, so label maps would be empty: choose another format'
            )
        # With the numbers, so that a class may be called 3.
        lines = [f'{label} {name}\n' for label, name in enumerate(self.classes)]
        write_text(self.folder / 'classes.txt', ''.join(lines))

    def _drawn(self, image: LabeledImage) -> np.ndarray:
        label_map = np.zeros(image.size, np.uint8)
        objects = sorted(image.objects, key=lambda obj: (not obj.ignored and bool(obj.segmentation), -obj.area))
        for obj in objects:
            if obj.segmentation:
                pixels = rle.decode(to_rle(obj.segmentation, image.size)) > 0
                label_map[pixels] = NO_CLASS if obj.ignored else obj.label + 1
            else:
                x, y, width, height = obj.box
                label_map[int(y) : math.ceil(y + height), int(x) : math.ceil(x + width)] = NO_CLASS
        trained = [obj for obj in objects if not obj.ignored]
        outlined = sum(bool(obj.segmentation) for obj in trained)
        self._outlined += outlined
        self._boxed += len(trained) - outlined
        self.not_kept['objects with boxes alone: the pixels in them do not count (255)'] += len(trained) - outlined
        self.not_kept['objects as such: of their pixels the class is kept'] += outlined
        return label_map
