"""Where predicted label maps differ from the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from hotcoco.metrics import pixel_confusion
from PIL import Image
from tqdm import tqdm

from ..cpus import usable_cpus
from ..datasets.image_files import names_below
from ..errors import UserError

OUTSIDE = -1
"""The label of pixels that do not count."""

UNUSED = 255
"""What is never a class in files of 8 bits."""


@dataclass
class LabelMaps:
    """Pairs of label map files, and how their pixels are to be read.

    Attributes:
        predictions: files.
        truths: files, in the same order.
        images: files, in the same order, or none.
        classes: names, in the order of the labels.
        ignored: label in the true map that does not count. Default: 255.
        reduce_zero_label: label 0 does not count, and the classes are 1, 2, 3, …, as in ADE20K. Default: False.
    """

    predictions: Sequence[Path]
    truths: Sequence[Path]
    images: Sequence[Path]
    classes: Sequence[str]
    ignored: int = 255
    reduce_zero_label: bool = False

    @property
    def names(self) -> list[str]:
        """A name for each pair that no other has."""
        names = names_below(self.predictions)
        return [names[str(path)] for path in self.predictions]

    def read_truth(self, path: Path) -> np.ndarray:
        """The labels of a true label map, int64 ``(height, width)``; `OUTSIDE` where the pixel does not count.

        Raises:
            UserError: the file is no image of one channel, or has a label beyond the classes.
        """
        labels = read_labels(path)
        ignored = labels == self.ignored
        return self._numbered(path, labels, outside=ignored | (labels == 0) if self.reduce_zero_label else ignored)

    def read_prediction(self, path: Path) -> np.ndarray:
        """The labels of a predicted label map, int64 ``(height, width)``.

        A model may predict the ignored label, where that is among its classes: there it is wrong, as for
        MMSegmentation's metric.

        Raises:
            UserError: the file is no image of one channel, or has a label that is no class.
        """
        labels = read_labels(path)
        outside = labels == UNUSED
        labels = self._numbered(path, labels, outside | (labels == 0) if self.reduce_zero_label else outside)
        if labels.min() < 0:
            raise UserError(f'{path} has pixels without a class, which a prediction must not have')
        return labels

    def _numbered(self, path: Path, labels: np.ndarray, outside: np.ndarray) -> np.ndarray:
        labels = np.where(outside, OUTSIDE, labels - self.reduce_zero_label)
        if labels.max(initial=OUTSIDE) >= len(self.classes):
            worst = labels.max() + self.reduce_zero_label
            raise UserError(f'{path} has the label {worst}, which is none of the {len(self.classes)} classes')
        return labels


@dataclass
class LabelErrors:
    """How predicted and true pixels compare.

    Attributes:
        matrix: pixels of each class (row) predicted as each (column), int64 ``(classes, classes)``.
        missed: pixels of each class predicted as another, by image: int64 ``(images, classes)``.
        wrong: pixels of another class predicted as each, by image: int64 ``(images, classes)``.
    """

    matrix: np.ndarray
    missed: np.ndarray
    wrong: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class, as MMSegmentation counts it; NaN where it occurs nowhere."""
        hits = self.matrix.diagonal()
        return _ratio(hits, self.matrix.sum(0) + self.matrix.sum(1) - hits)

    @property
    def accuracy(self) -> np.ndarray:
        """The share of each class's pixels that is found; NaN where it has none."""
        return _ratio(self.matrix.diagonal(), self.matrix.sum(1))

    @property
    def pixel_accuracy(self) -> float:
        """The share of all pixels that is right."""
        return float(_ratio(self.matrix.diagonal().sum(), self.matrix.sum()))

    @property
    def losses(self) -> np.ndarray:
        """By how much mIoU would rise if one image alone were predicted without error, for each of the images."""
        hits = self.matrix.diagonal()
        union = self.matrix.sum(0) + self.matrix.sum(1) - hits
        return np.nanmean(_ratio(hits + self.missed, union - self.wrong) - self.iou, axis=1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid='ignore', divide='ignore'):
        return part / whole


def find_label_maps(folder: str | PathLike) -> list[str]:
    """The names of the predicted label maps in a folder and the folders in it: their paths there, without the suffix.

    Raises:
        UserError: there are none.
    """
    names = sorted(path.relative_to(folder).with_suffix('').as_posix() for path in Path(folder).rglob('*.png'))
    if not names:
        raise UserError(f'{folder} has no label maps: *.png is needed, as fasternet-mm test --out writes them')
    return names


def find_same_names(names: Sequence[str], folder: str | PathLike, suffixes: Sequence[str]) -> list[Path]:
    """The file in a folder, with one of the suffixes, that has each name.

    Raises:
        UserError: some are missing: the first, and how many; or two files have one name.
    """
    files: dict[str, Path] = {}
    for path in sorted(Path(folder).rglob('*')):
        if path.suffix.lower() in suffixes:
            name = path.relative_to(folder).with_suffix('').as_posix()
            if name in files and name in {*names}:
                raise UserError(f'{folder} has both {files[name].name} and {path.name}: leave one of them there')
            files[name] = path
    missing = [name for name in names if name not in files]
    if missing:
        raise UserError(
            f'{folder} has no {missing[0]} with {" or ".join(suffixes)} ({len(missing)} of {len(names)} are missing): '
            'files of the same image must have the same name, in the same folders'
        )
    return [files[name] for name in names]


def number_classes(maps: LabelMaps) -> list[str]:
    """Names for classes without any: their labels in the files, up to the highest that occurs."""
    first = int(maps.reduce_zero_label)
    labels = [read_labels(path) for path in (*maps.truths, *maps.predictions)]
    highest = max(int(one.max(initial=first, where=one != maps.ignored)) for one in labels)
    return [str(label) for label in range(first, highest + 1)]


def read_labels(path: Path) -> np.ndarray:
    """Labels of a PNG of one channel, int64 ``(height, width)``; of a palette PNG the indices.

    Raises:
        UserError: the file cannot be read, or has several channels.
    """
    try:
        with Image.open(path) as image:
            labels = np.asarray(image)
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise UserError(f'{path} cannot be read as a label map: {error}') from error
    if labels.ndim != 2:
        raise UserError(f'{path} has {labels.shape[-1]} channels: a label map has one, the pixel is the class')
    return labels.astype(np.int64)


def compare(maps: LabelMaps) -> LabelErrors:
    """Count the pixels of all pairs of maps, on all CPUs that this process may use.

    Raises:
        UserError: a map cannot be read, its labels are beyond the classes, or a pair differs in size.
    """
    count = len(maps.classes)

    def one(files: tuple[Path, Path]) -> np.ndarray:
        predicted, true = maps.read_prediction(files[0]), maps.read_truth(files[1])
        if predicted.shape != true.shape:
            sizes = [f'{labels.shape[1]}x{labels.shape[0]}' for labels in (predicted, true)]
            raise UserError(f'{files[0]} has {sizes[0]} pixels, {files[1]} {sizes[1]}: they must be of one image')
        true[true < 0] = count
        return pixel_confusion(true, predicted, count, ignore_index=count).astype(np.int64)

    matrix, missed, wrong = np.zeros((count, count), np.int64), [], []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        found = pool.map(one, zip(maps.predictions, maps.truths))
        for part in tqdm(found, 'comparing label maps', len(maps.truths), leave=False, disable=None):
            matrix += part
            missed.append(part.sum(1) - part.diagonal())
            wrong.append(part.sum(0) - part.diagonal())
    return LabelErrors(matrix, np.array(missed), np.array(wrong))
