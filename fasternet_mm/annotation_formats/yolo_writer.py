"""YOLO's label files, with the ``data.yaml`` of Ultralytics and Roboflow."""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from .annotation_writer import AnnotationWriter, split_and_stem, write_text
from .labeled_images import LabeledImage, LabeledObject
from .mask_outlines import has_cuts, one_polygon


class YoloWriter(AnnotationWriter):
    """``images/SPLIT``, ``labels/SPLIT`` and ``data.yaml``; an image without objects has an empty file of labels."""

    title = 'YOLO'

    def write(self, split: str, name: str, image: LabeledImage) -> None:
        every = self.objects_of(image)
        objects = [obj for obj in every if not obj.ignored]
        self.not_kept['crowds and difficult objects, which YOLO cannot mark: left out'] += len(every) - len(objects)
        self.note_outlines(objects)
        cuts = sum(has_cuts(obj.segmentation) for obj in objects if obj.segmentation)
        self.not_kept['outlines of several parts or with holes: cuts of no width make each one polygon'] += cuts
        write_text(self.folder / f'labels/{split_and_stem(split, name)}.txt', yolo_lines(objects, image.size))

    def finish(self) -> None:
        self.note_mixture('Ultralytics takes the boxes alone of such data')
        # Without "path", which Ultralytics looks for in a folder of its own, paths are relative to this file.
        content = {split: f'images/{split}' for split in self.images} | dict(names=dict(enumerate(self.classes)))
        write_text(self.folder / 'data.yaml', yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def yolo_lines(objects: Iterable[LabeledObject], size: tuple[int, int]) -> str:
    """A line for each object: its class, and its polygon or the center, width and height of its box, from 0 to 1.

    Nothing is outside of the image, of this height and width: Ultralytics leaves out images of which something is.
    """
    height, width = size
    lines = []
    for obj in objects:
        if obj.segmentation:
            numbers = one_polygon(obj.segmentation, size)
        else:
            x, y, w, h = obj.box
            numbers = [x + w / 2, y + h / 2, w, h]
        sides = [width, height] * (len(numbers) // 2)
        fractions = [min(max(number / side, 0), 1) for number, side in zip(numbers, sides)]
        lines.append(' '.join([str(obj.label), *(f'{fraction:.10g}' for fraction in fractions)]))
    return ''.join(f'{line}\n' for line in lines)
