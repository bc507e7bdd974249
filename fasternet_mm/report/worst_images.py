"""The images of a report."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from hotcoco import mask as rle
from PIL import Image, ImageOps

from ..errors import UserError
from ..visualization.drawing import draw_objects

RIGHT, WRONG = (45, 140, 240), (245, 130, 20)
"""RGB of what is right or found, and of what is wrong or missed: blue and orange differ for color-blind people too."""

WORST_IMAGES = 12
"""The number of images in a report: with 12 pairs of drawings the page has a few megabytes at the most."""

WIDTHS = 400, 560
"""Least and largest width of a drawing in pixels: text stays readable, and two stand beside each other in the page."""


def find_images(folder: str | PathLike, names: Mapping[int, str]) -> dict[int, Path]:
    """The files of images that annotations name, by id.

    Raises:
        UserError: a name leads out of the folder, or files are missing: the first, and how many.
    """
    for name in names.values():
        if not name or PurePosixPath(name).is_absolute() or '..' in PurePosixPath(name).parts:
            raise UserError(f'the annotations name an image {name!r}: only names inside {folder} are read')
    paths = {number: Path(folder, name) for number, name in names.items()}
    missing = [path for path in paths.values() if not path.is_file()]
    if missing:
        raise UserError(
            f'{missing[0]} does not exist ({len(missing)} of {len(paths)} images are missing): name the folder that '
            'the file names in the annotations start from'
        )
    return paths


def open_image(path: Path, part: Sequence[float] | None = None) -> np.ndarray:
    """The image, uint8 RGB ``(H, W, 3)``, turned as its EXIF says, as wide as `WIDTHS` allow.

    Args:
        path: the file.
        part: what is shown of it: left, top, right and bottom, in fractions of its width and height. Default: all.

    Raises:
        UserError: the file is not an image, or too large to be one of a data set.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as opened:
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            if part is None:
                opened.draft('RGB', (WIDTHS[1], WIDTHS[1]))  # JPEG is decoded at a fraction of its size
            image = ImageOps.exif_transpose(opened).convert('RGB')
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise UserError(f'{path} cannot be shown in the report ({error}): is it an image?') from error
    if part is not None:
        image = image.crop([round(place * side) for place, side in zip(part, image.size * 2)])
    width = min(max(image.width, WIDTHS[0]), WIDTHS[1])
    return np.asarray(image.resize((width, max(round(image.height * width / image.width), 1))))


def draw_verdicts(
    image: np.ndarray,
    objects: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    window: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """The image with objects drawn in, in blue where they are right and in orange where they are wrong.

    Args:
        image: uint8 RGB, of any scale.
        objects: COCO annotations or detections, each also with ``text`` and ``right``.
        size: height and width that the objects' coordinates are in.
        window: left, top, right and bottom, in these coordinates, of what ``image`` shows. Default: all of it.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = window or (0, 0, size[1], size[0])
    boxes = np.array([annotation['bbox'] for annotation in objects], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes = (boxes - (left, top, left, top)) * np.tile((width / (right - left), height / (bottom - top)), 2)
    masks = np.zeros((len(objects), height, width), bool)
    for mask, annotation in zip(masks, objects):
        if annotation.get('segmentation'):
            decoded = _decode(annotation['segmentation'], size)[top:bottom, left:right]
            mask[:] = resize_labels(decoded, (height, width))
    colors = [RIGHT if annotation['right'] else WRONG for annotation in objects]
    return draw_objects(image, boxes, colors, [annotation['text'] for annotation in objects], masks)


def _decode(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """COCO's polygons or RLE as uint8 ``(height, width)``."""
    encoded = rle.fr_py_objects(segmentation, *size)
    return rle.decode(rle.merge(encoded) if isinstance(encoded, list) else encoded)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label map or mask at another height and width, by the nearest neighbor."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, labels.shape))
    return labels[rows[:, None], columns]


def to_data_url(image: np.ndarray) -> str:
    """A ``data:`` URL of an RGB image, as JPEG."""
    file = BytesIO()
    Image.fromarray(image).save(file, 'JPEG', quality=80)
    return 'data:image/jpeg;base64,' + base64.b64encode(file.getvalue()).decode()
