"""Pascal VOC's XML files of boxes (http://host.robots.ox.ac.uk/pascal/VOC/), as labeling tools write them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from .annotation_writer import AnnotationWriter, split_and_stem, write_text
from .labeled_images import LabeledImage, LabeledObject


class PascalVocWriter(AnnotationWriter):
    """``Annotations/SPLIT``, ``JPEGImages/SPLIT`` and the lists ``ImageSets/Main/SPLIT.txt``.

    The images of each split have a folder of their own, since two splits may have images of one name.
    """

    title = 'Pascal VOC'
    images_folder = 'JPEGImages/{split}'
    lists_classes = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lists: dict[str, list[str]] = defaultdict(list)

    def write(self, split: str, name: str, image: LabeledImage) -> None:
        objects, path = self.objects_of(image), split_and_stem(split, name)
        self.not_kept['outlines and masks: Pascal VOC has boxes'] += sum(bool(obj.segmentation) for obj in objects)
        self._lists[split].append(path)
        write_text(self.folder / f'Annotations/{path}.xml', self._xml(f'{split}/{name}', objects, image.size))

    def finish(self) -> None:
        for split, paths in self._lists.items():
            write_text(self.folder / f'ImageSets/Main/{split}.txt', ''.join(f'{path}\n' for path in paths))

    def _xml(self, path: str, objects: Iterable[LabeledObject], size: tuple[int, int]) -> str:
        height, width = size
        root = Element('annotation')
        _add(root, folder='JPEGImages', filename=path)
        _add(SubElement(root, 'source'), database='Unknown')
        _add(SubElement(root, 'size'), width=width, height=height, depth=3)
        _add(root, segmented=0)
        for obj in objects:
            x, y, w, h = obj.box
            element = SubElement(root, 'object')
            _add(element, name=self.classes[obj.label], pose='Unspecified', truncated=0, difficult=int(obj.ignored))
            # Edges, from 0, as labeling tools have them; the challenge's own files count pixels, from 1.
            _add(SubElement(element, 'bndbox'), xmin=_text(x), ymin=_text(y), xmax=_text(x + w), ymax=_text(y + h))
        indent(root, '\t')
        return tostring(root, encoding='unicode') + '\n'


def _add(parent: Element, **children: object) -> None:
    for tag, content in children.items():
        SubElement(parent, tag).text = str(content)


def _text(coordinate: float) -> str:
    """In hundredths; whole numbers without a point, since many programs read no others."""
    return f'{round(coordinate, 2):.10g}'
