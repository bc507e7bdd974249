"""People's own data, written in another format."""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..annotation_formats.annotation_writer import AnnotationWriter
from ..annotation_formats.labeled_images import LabeledImage, LabeledObject
from ..annotation_formats.writing import writing
from ..datasets.image_files import read_label_map
from ..errors import UserError
from .layouts.annotated_data import DetectionData, OwnData, SegmentationData
from .layouts.folder_words import parts_below, split_of
from .layouts.label_maps import write_label_maps


def convert(data: OwnData, out: str | os.PathLike, annotation_format: str, link: bool = False) -> AnnotationWriter:
    """Write data with their images and splits in another format.

    Images keep their paths, without the parts that say a split, or what a folder holds, such as 'images'.

    Args:
        data: what was read.
        out: a new or empty folder, outside of the data. It appears in one step, when all went well.
        annotation_format: one of `FORMAT_NAMES`.
        link: make hard links to the images' files instead of copies. Default: False.

    Returns:
        The writer, which knows how much it wrote, and what the format could not hold.

    Raises:
        UserError: the folder is not empty, cannot be written, or is not outside of the data.
    """
    is_detection = isinstance(data, DetectionData)
    images = _images_with_objects(data) if is_detection else _images_with_label_maps(data)
    count = sum(map(len, data.image_paths.values()))
    with writing(annotation_format, Path(out), data.classes, of_label_maps=not is_detection, link=link) as writer:
        for split, image in tqdm(images, total=count, unit='image', leave=False, disable=None):
            writer.add(split, image)
    writer.note_unused_classes()
    return writer


def refuse_nested(data: str | os.PathLike, out: str | os.PathLike) -> None:
    """Raise `UserError` where one of these folders is in the other, or is the same."""
    source, target = Path(os.path.realpath(data)), Path(os.path.realpath(out))
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise UserError(f'{out} and the data in {data} lie in one another: name a folder elsewhere')


def _images_with_objects(data: DetectionData) -> Iterator[tuple[str, LabeledImage]]:
    for split, content in data.splits.items():
        objects: dict[int, list[LabeledObject]] = defaultdict(list)
        for annotation in content['annotations']:
            objects[annotation['image_id']].append(_object(annotation))
        for image in content['images']:
            file, size = image['file_name'], (image['height'], image['width'])
            yield split, LabeledImage(_name(file), size, data.root / file, objects[image['id']])


def _object(annotation: dict[str, Any]) -> LabeledObject:
    return LabeledObject(
        label=annotation['category_id'] - 1,
        box=annotation['bbox'],
        area=annotation['area'],
        segmentation=annotation.get('segmentation'),
        ignored=bool(annotation['iscrowd']),
    )


def _images_with_label_maps(data: SegmentationData) -> Iterator[tuple[str, LabeledImage]]:
    with tempfile.TemporaryDirectory() as folder:
        for split, pairs in write_label_maps(data, folder).splits.items():
            for image, label_map_file in pairs:
                name, label_map = _name(image.relative_to(data.root).as_posix()), read_label_map(label_map_file)
                yield split, LabeledImage(name, label_map.shape, image, label_map=label_map)


def _name(file: str) -> str:
    """The path that an image gets, of its path in the data's folder."""
    folder, name = posixpath.split(file)
    return posixpath.join(*(part for part in parts_below(folder) if split_of(part) is None), name)
