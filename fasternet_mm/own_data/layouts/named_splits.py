"""The splits that data have, by the names of folders and annotation files."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import TypeVar

from ...errors import UserError, few
from .data_folder import DataFolder, stem
from .folder_words import file_kind, split_of
from .normal_form import AnnotatedImage
from .problems import Fault

T = TypeVar('T')


def named_splits(folder: DataFolder, splits: dict[str, T]) -> dict[str, T]:
    """Splits in their order; a single one is 'train', whatever its name.

    Raises:
        UserError: there are several, but no 'train'.
    """
    if len(splits) == 1:
        return {'train': next(iter(splits.values()))}
    if 'train' not in splits:
        raise UserError(f'{folder.root} has {" and ".join(splits)} data, but none to train: name a part of it train')
    return {split: splits[split] for split in ('train', 'val', 'test') if split in splits}


def one_per_split(folder: DataFolder, files: Collection[str], layout: str) -> dict[str, str]:
    """Annotation files by split, as their paths say; a single one is 'train'.

    Raises:
        UserError: two say the same split, or one says none.
    """
    if len(files) == 1:
        return {'train': next(iter(files))}
    by_split: dict[str, str] = {}
    for file in files:
        split = split_of(file)
        if split is None or split in by_split:
            raise UserError(
                f'{folder.root} has {len(files)} {layout} annotation files ({few([*files], counted=True)}): leave one, '
                'or one each with train, val and test in its name or the name of its folder'
            )
        by_split[split] = file
    return named_splits(folder, by_split)


def folder_splits(folder: DataFolder, pairs: Sequence[tuple[str, str]], annotations: str) -> list[str]:
    """The split of each image: what its folder says, or else the folder of its annotation, or 'train'.

    Args:
        folder: with the data.
        pairs: images and their annotations; '' where there is none.
        annotations: the word for these in messages: 'label maps'.
    """
    splits, differing = [], []
    for image, annotation in pairs:
        of_image, of_annotation = split_of(posixpath.dirname(image)), split_of(posixpath.dirname(annotation))
        splits.append(of_image or of_annotation or 'train')
        if None not in (of_image, of_annotation) and of_image != of_annotation:
            differing.append((image, annotation))
    if differing:
        image, annotation = differing[0]
        what = (
            f'{len(differing)} {annotations} lie in a folder of another split than their images, whose folder counts '
            f'(the first is {annotation}, its image {image})'
        )
        folder.report('', what, Fault.SPLITS_DIFFER)
    return splits


def split_by_folders(folder: DataFolder, images: Sequence[AnnotatedImage]) -> dict[str, list[AnnotatedImage]]:
    """Splits as folders' names say, with the images without annotations in the same folders, which are background.

    The image's folder counts more than that of its annotation file. Label maps and drawings of the images, such as
    0001_mask.png, are not background.
    """
    annotated = {image.file for image in images}
    places = {posixpath.dirname(file) for file in annotated}
    stems = {posixpath.splitext(file)[0] for file in annotated}
    background = [
        AnnotatedImage(file, file)
        for file in folder.images
        if file not in annotated and posixpath.dirname(file) in places and not _is_made_of(file, stems)
    ]
    images = [*images, *background]
    pairs = [(image.file, image.source) for image in images]
    splits = defaultdict(list)
    for image, split in zip(images, folder_splits(folder, pairs, 'annotation files')):
        splits[split].append(image)
    return named_splits(folder, splits)


def split_of_one_file(
    folder: DataFolder, splits: dict[str, list[AnnotatedImage]], file: str
) -> dict[str, list[AnnotatedImage]]:
    """The splits of annotation files; those of the images' folders, where ``file`` is the only one and says none."""
    if len(splits) > 1 or split_of(file) or not splits['train']:
        return splits
    by_folder = defaultdict(list)
    for image in splits['train']:
        by_folder[split_of(posixpath.dirname(image.file)) or 'train'].append(image)
    return named_splits(folder, by_folder)


def _is_made_of(file: str, stems: set[str]) -> bool:
    """Whether an image is a label map or drawing of another, by its name."""
    path = posixpath.splitext(file)[0]
    if path in stems:
        return True
    beginnings = [path[: match.start()] for match in re.finditer('[_.-]', path)]
    return file_kind(stem(file)) is not None and not stems.isdisjoint(beginnings)
