"""Pascal VOC's lists of images, ``ImageSets/*/*.txt``, as the challenge and labeling tools write them."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from ...datasets.image_files import IMAGE_SUFFIXES
from ...errors import UserError, few
from .data_folder import DataFolder, stem
from .folder_words import split_named, split_of
from .image_matching import FileIndex, ImageReference
from .problems import Fault

OF_OBJECTS = ('Main', 'Segmentation', 'Layout', '')
"""Folders of lists for boxes, of which the first that has lists counts; '' is ``ImageSets`` itself."""

OF_LABEL_MAPS = ('Segmentation', 'Main', 'Layout', '')
"""The same for label maps."""


def split_by_lists(
    folder: DataFolder, kinds: Sequence[str], images: Iterable[str], used: Collection[str]
) -> dict[str, list[str]]:
    """Images by split, as the lists say; empty where there are no lists.

    A list is named as its split, in any usual way: Train.txt, Validation.txt, trainval.txt. The last one counts where
    there is no train, without the images of val and test. A list of any other name is to train on where none has the
    name of a split. Lists of one class, such as aeroplane_train.txt, count where there are no others. Names have the
    images' folders below JPEGImages, and suffixes or none.

    Args:
        folder: with the data.
        kinds: names of the folders of lists.
        images: images that the lists may name.
        used: those of them that are reported where no list names them.

    Raises:
        UserError: there are lists, but they name no image that is there.
    """
    lists = _lists(folder, kinds)
    index = FileIndex(images, stem)
    splits: dict[str, list[str]] = {}
    for split, files in lists.items():
        named = [image for file in files for image in _listed(folder, index, file)]
        splits[split] = list(dict.fromkeys(named))
    if not lists:
        return {}
    listed = {image for part in splits.values() for image in part}
    files = [file for files in lists.values() for file in files]
    if not listed:
        raise UserError(
            f'{folder.root} has lists of images ({", ".join(files)}), but they name none that is there: mend the '
            'lists, or remove them'
        )
    if 'trainval' in splits:
        others = {image for split in ('val', 'test') for image in splits.get(split, ())}
        whole = splits.pop('trainval')
        splits.setdefault('train', [image for image in whole if image not in others])
    unlisted = sorted(set(used) - listed)
    if unlisted:
        first = few(unlisted, 3, counted=True)
        what = f'{len(unlisted)} of {len(used)} images are in none of its lists and are left out: {first}'
        folder.report(posixpath.dirname(files[0]), what, Fault.NOT_LISTED)
    return {split: part for split, part in splits.items() if part}


def _lists(folder: DataFolder, kinds: Sequence[str]) -> dict[str, list[str]]:
    """Lists by split, 'trainval' among them; of each folder of sets those of the first kind that has some."""
    by_home: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in folder.ending('.txt'):
        home, kind = posixpath.split(posixpath.dirname(file))
        if kind.lower() == 'imagesets':
            by_home[posixpath.dirname(file)][''].append(file)
        elif kind.capitalize() in kinds and posixpath.basename(home).lower() == 'imagesets':
            by_home[home][kind.capitalize()].append(file)
    lists = defaultdict(list)
    for by_kind in by_home.values():
        candidates = [_by_split(folder, by_kind[kind]) for kind in kinds if kind in by_kind]
        for split, files in next(filter(None, candidates), {}).items():
            lists[split] += files
    return lists


def _by_split(folder: DataFolder, files: Sequence[str]) -> dict[str, list[str]]:
    """Lists whose names are splits; else those of all classes; else those of one class, as VoTT writes them."""
    ranked: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        name = stem(file)
        rank, split = 0, _split_of_list(name)
        if split is None and not _is_of_one_class(folder, file):
            rank, split = 1, split_of(name) or 'train'
        elif split is None:
            rank, split = 2, _split_of_list(name.rpartition('_')[2])
        if split:
            ranked[rank][split].append(file)
    return ranked[min(ranked)] if ranked else {}


def _split_of_list(name: str) -> str | None:
    return 'trainval' if name.lower() == 'trainval' else split_named(name)


def _is_of_one_class(folder: DataFolder, file: str) -> bool:
    """Lists of one class have 1, 0 or -1 behind each name."""
    rows = [line.split() for line in folder.read_lines(file, report=False) if line]
    return bool(rows) and all(len(row) == 2 and row[1] in ('-1', '0', '1') for row in rows)


def _listed(folder: DataFolder, index: FileIndex, file: str) -> list[str]:
    lines = list(dict.fromkeys(line for line in folder.read_lines(file) if line))
    images = index.match([ImageReference(_without_suffix(line), file) for line in lines])
    # The layout's lists have the number of an object behind the name; others the label map's path.
    rest = [line for line, image in zip(lines, images) if image is None]
    again = dict(zip(rest, index.match([ImageReference(_without_suffix(line.split()[0]), file) for line in rest])))
    images = [image or again[line] for line, image in zip(lines, images)]
    for line, image in zip(lines, images):
        if image is None:
            folder.report(file, f'names {line}, which is not there', Fault.MISSING_IMAGE)
    return [image for image in images if image]


def _without_suffix(name: str) -> str:
    path, suffix = posixpath.splitext(name)
    return path if suffix.lower() in IMAGE_SUFFIXES else name
