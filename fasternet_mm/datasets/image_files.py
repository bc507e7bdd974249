"""What image files say of themselves without being decoded, and the labels in label maps."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

SUFFIXES = frozenset(('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'))
"""Suffixes, in lower case, by which images are found in folders."""

ONE_CHANNEL = ('1', 'L', 'P', 'I', 'I;16', 'I;16B')
"""Pillow's modes in which a pixel is one integer."""


def size_as_read(image: Image.Image) -> tuple[int, int]:
    """Width and height as OpenCV gives them, which turns an image as its EXIF says."""
    turned = 'exif' in image.info and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return image.size[::-1] if turned else image.size


def last_change(status: os.stat_result) -> int:
    """When a file changed, in nanoseconds: also one put in its place with the time that an archive has for it."""
    return max(status.st_mtime_ns, status.st_ctime_ns)


def image_size(path: str | os.PathLike) -> tuple[int, int] | str:
    """Width and height of an image file as OpenCV reads them, from its header; or what is wrong with it."""
    try:
        with Image.open(path) as image:
            return size_as_read(image)
    except UnidentifiedImageError:
        return 'is not an image'
    except Exception as error:  # Pillow raises whatever it stumbles over
        return f'cannot be read ({error})'


def labels_in(label_map: Image.Image) -> set[int]:
    """The labels in a label map of one channel (`ONE_CHANNEL`)."""
    if label_map.mode in ('L', 'P'):  # six times as fast as NumPy
        return set(np.flatnonzero(label_map.histogram()).tolist())
    return set(np.unique(np.asarray(label_map)).astype(int).tolist())


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
