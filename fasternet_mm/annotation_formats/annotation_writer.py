"""What the writers of all formats have in common."""

from __future__ import annotations

import os
import posixpath
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from ..errors import UserError
from .label_map_regions import is_background, objects_of_label_map
from .labeled_images import LabeledImage, LabeledObject
from .mask_outlines import box_differs


class AnnotationWriter:
    """Writes images and their annotations into a folder, in one format.

    Args:
        folder: new or empty.
        classes: the names of all classes, by label.
        category_ids: the id of each in COCO's files. Default: from 1.
        of_label_maps: whether the images have label maps instead of objects. Default: False.
        link: make hard links to the images' files instead of copies. Default: False.

    Attributes:
        title: the format's name for people.
        images_folder: where the images go; '{split}' stands for the split's name.
        lists_classes: whether the format names classes that no object has.
        not_kept: how often something was there that the format cannot hold, by what it is and what became of it.
        images: the number of images, by split.
        objects: the number of objects, by label.
    """

    title: ClassVar[str]
    images_folder: ClassVar[str] = 'images/{split}'
    lists_classes: ClassVar[bool] = True

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        category_ids: Sequence[int] = (),
        of_label_maps: bool = False,
        link: bool = False,
    ) -> None:
        self.folder, self.of_label_maps, self.link = folder, of_label_maps, link
        self.classes = self.classes_of(classes)
        self.category_ids = list(category_ids or range(1, len(self.classes) + 1))
        self.not_kept: Counter[str] = Counter()
        self.images: Counter[str] = Counter()
        self.objects: Counter[int] = Counter()
        self._all_classes = classes
        self._paths: set[str] = set()
        self._outlined = self._boxed = 0

    def classes_of(self, classes: Sequence[str]) -> list[str]:
        """The classes that are written: of objects, those but the background."""
        return [name for name in classes if not (self.of_label_maps and is_background(name))]

    def add(self, split: str, image: LabeledImage) -> None:
        """Write an image of 'train', 'val' or 'test' and its annotations.

        Its name gets a number where another image of the split has the same but for the suffix or upper and lower case:
        most formats name annotations after images, and some file systems take both for one.
        """
        stem, suffix = posixpath.splitext(image.name)
        name, number = image.name, 1
        while split_and_stem(split, name).lower() in self._paths:
            number += 1
            name = f'{stem}-{number}{suffix}'
        self._paths.add(split_and_stem(split, name).lower())
        target = self.folder / self.images_folder.format(split=split) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self._write_image(target, image.source)
        self.images[split] += 1
        self.write(split, name, image)

    def write(self, split: str, name: str, image: LabeledImage) -> None:
        """Write, or note, the annotations of an image whose file is ``name`` in the split's folder of images."""
        raise NotImplementedError

    def finish(self) -> None:
        """Write what is about all images."""

    def objects_of(self, image: LabeledImage) -> list[LabeledObject]:
        """The objects; those of a label map are the connected regions of each class but the background."""
        objects = [*image.objects]
        if image.label_map is not None:
            objects = objects_of_label_map(image.label_map, self._all_classes)
            self.not_kept['regions of label maps, which say no objects: each connected one became one'] += len(objects)
        self.objects.update(obj.label for obj in objects)
        return objects

    def note_outlines(self, objects: Sequence[LabeledObject]) -> None:
        """Note the boxes that get lost, where the format has of an object either an outline or a box."""
        outlined = [obj for obj in objects if obj.segmentation]
        self._outlined += len(outlined)
        self._boxed += len(objects) - len(outlined)
        what = f"boxes that differ from their outlines' boxes: {self.title} has the outlines alone"
        self.not_kept[what] += sum(map(box_differs, outlined))

    def note_mixture(self, consequence: str) -> None:
        """Note what happens where some objects have outlines, and others boxes alone."""
        if self._outlined:
            self.not_kept[f'objects with boxes alone beside others with outlines: {consequence}'] += self._boxed

    def note_unused_classes(self) -> None:
        """Note the classes that get lost, where the format has classes by their objects alone."""
        if self.lists_classes:
            return
        unused = [name for label, name in enumerate(self.classes) if not self.objects[label]]
        self.not_kept[f'classes without an object: {self.title} has no list of classes'] += len(unused)

    def _write_image(self, target: Path, source: Path | np.ndarray) -> None:
        if isinstance(source, np.ndarray):
            target.write_bytes(cv2.imencode(target.suffix, source[..., ::-1])[1].tobytes())
        elif self.link:
            try:
                os.link(os.path.realpath(source), target)
            except OSError as error:
                raise UserError(
                    f'{source} cannot be linked ({error.strerror}), as from disk to disk: leave out --link, and it is '
                    'copied'
                ) from error
        else:
            shutil.copyfile(source, target)


def split_and_stem(split: str, name: str) -> str:
    """The path that an image's annotations have in their folder, without a suffix."""
    return f'{split}/{posixpath.splitext(name)[0]}'


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, with the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8', newline='\n')
