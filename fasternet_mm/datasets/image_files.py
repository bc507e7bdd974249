"""Files of images and label maps: their suffixes, names and sizes, and the labels in them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import UserError

IMAGE_SUFFIXES = frozenset(('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'))
"""Suffixes, in lower case, by which images are found in folders: of the formats that OpenCV reads and writes."""

VIDEO_SUFFIXES = frozenset(('.mp4', '.avi', '.mov', '.mkv', '.webm'))
"""Suffixes, in lower case, by which videos are found in folders and told from images."""

ONE_CHANNEL = ('1', 'L', 'P', 'I', 'I;16', 'I;16B')
"""Pillow's modes in which a pixel is one integer."""


class ImageFileError(UserError):
    """A file cannot be used as an image or as a label map.

    Attributes:
        problem: the sentence after the file's name.
    """

    def __init__(self, path: str | os.PathLike, problem: str) -> None:
        super().__init__(f'{path} {problem}')
        self.problem = problem


@contextmanager
def _failing_on(path: str | os.PathLike) -> Iterator[None]:
    """Raise `ImageFileError` where Pillow fails on a file."""
    try:
        yield
    except FileNotFoundError as error:
        raise ImageFileError(path, 'does not exist') from error
    except UnidentifiedImageError as error:
        raise ImageFileError(path, 'is not an image') from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise ImageFileError(path, f'cannot be read ({error})') from error


def open_image_file(path: str | os.PathLike) -> Image.Image:
    """The image in a file, decoded by Pillow.

    Raises:
        ImageFileError: the file is missing, not an image, or damaged.
    """
    with _failing_on(path), Image.open(path) as image:
        image.load()
        return image


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """`size_as_read` of an image file, from its header.

    Raises:
        ImageFileError: the file is missing, or not an image.
    """
    with _failing_on(path), Image.open(path) as image:
        return size_as_read(image)


def size_as_read(image: Image.Image) -> tuple[int, int]:
    """Height and width of what OpenCV reads from an opened file: it turns an image as its EXIF says."""
    width, height = image.size
    turned = 'exif' in image.info and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def read_label_map(path: str | os.PathLike) -> np.ndarray:
    """The labels in a file of one channel, as MMSegmentation's ``LoadAnnotations`` reads them for training.

    A file of one bit has the labels 0 and 1, a palette PNG the indices of its colors, gray of 8 and 16 bits the numbers
    that are in it. Training takes the lower eight bits alone, so that labels above 255 are wrong there.

    Returns:
        Integers ``(H, W)``: uint8, or what holds 16 or 32 bits.

    Raises:
        ImageFileError: the file cannot be read, or has several channels: colors, or transparency.
    """
    image = open_image_file(path)
    if image.mode not in ONE_CHANNEL:
        raise ImageFileError(path, f'has mode {image.mode}: a label map has one channel, the numbers of classes')
    return label_map_of(image)


def label_map_of(image: Image.Image) -> np.ndarray:
    """`read_label_map` of an opened file whose mode is one of `ONE_CHANNEL`."""
    labels = np.asarray(image)
    return labels.astype(np.uint8) if image.mode == '1' else labels


def labels_in(label_map: np.ndarray) -> set[int]:
    """The labels that occur in a label map."""
    if label_map.dtype == np.uint8:  # many times as fast as sorting
        return set(np.flatnonzero(np.bincount(label_map.ravel())).tolist())
    return set(np.unique(label_map).tolist())


def last_change(status: os.stat_result) -> int:
    """When a file changed, in nanoseconds: also one put in its place with the time that an archive has for it."""
    return max(status.st_mtime_ns, status.st_ctime_ns)


def names_of_images(dataset: Any) -> dict[str, str]:
    """`names_below` of all images of a data set of MMEngine's kind, by ``img_path``."""
    return names_below([dataset.get_data_info(number)['img_path'] for number in range(len(dataset))])


def names_below(files: Sequence[str | os.PathLike]) -> dict[str, str]:
    """A name for each file that no other has, such as 'camera2/0001', for what is made of it.

    It is the path below the folder that all files share, with '/' between its parts; without the suffix, unless that
    is another file's name, or what is left of it.
    """
    paths = {os.fspath(file): Path(os.path.abspath(file)) for file in files}
    if not paths:
        return {}
    shared = os.path.commonpath([path.parent for path in paths.values()])
    below = {file: path.relative_to(shared) for file, path in paths.items()}
    uses = Counter(name for path in {*below.values()} for name in {path, path.with_suffix('')})
    return {
        file: (path if uses[path.with_suffix('')] > 1 else path.with_suffix('')).as_posix()
        for file, path in below.items()
    }
