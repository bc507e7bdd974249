"""COCO annotation files (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from .annotation_writer import AnnotationWriter, write_text
from .labeled_images import LabeledImage


class CocoWriter(AnnotationWriter):
    """``annotations/instances_SPLIT.json`` and ``images/SPLIT``, as CVAT imports them.

    Annotations of predictions have their ``score``. Crowds have ``ignore`` as well as ``iscrowd``, since tools that
    draw with a brush write the latter for every mask.
    """

    title = 'COCO'

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # As text, which takes a fraction of the memory that dictionaries take.
        self._images: dict[str, list[str]] = defaultdict(list)
        self._annotations: dict[str, list[str]] = defaultdict(list)

    def write(self, split: str, name: str, image: LabeledImage) -> None:
        height, width = image.size
        image_id, annotations = len(self._images[split]) + 1, self._annotations[split]
        self._images[split].append(json.dumps(dict(id=image_id, file_name=name, width=width, height=height)))
        for obj in self.objects_of(image):
            annotation = dict(
                id=len(annotations) + 1,
                image_id=image_id,
                category_id=self.category_ids[obj.label],
                bbox=list(obj.box),
                area=obj.area,
                iscrowd=int(obj.ignored),
                segmentation=obj.segmentation or [],
            )
            if obj.ignored:
                annotation['ignore'] = 1
            if obj.score is not None:
                annotation['score'] = obj.score
            annotations.append(json.dumps(annotation))

    def finish(self) -> None:
        categories = [json.dumps(dict(id=number, name=name)) for number, name in zip(self.category_ids, self.classes)]
        for split, images in self._images.items():
            lists = dict(images=images, annotations=self._annotations[split], categories=categories)
            text = ',\n'.join(f'"{name}": [\n{_lines(records)}]' for name, records in lists.items())
            write_text(self.folder / f'annotations/instances_{split}.json', f'{{\n{text}\n}}\n')


def _lines(records: list[str]) -> str:
    return ',\n'.join(records) + '\n' if records else ''
