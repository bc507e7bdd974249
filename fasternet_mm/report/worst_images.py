"""Images for a report, with truth and prediction drawn in."""

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
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..errors import UserError

RIGHT, WRONG = (45, 140, 240), (245, 130, 20)
"""RGB of what is right or found, and of what is wrong or missed: blue and orange, for color-blind people too."""

WIDTHS = 400, 560
"""Pixels that a drawing is wide at the least and at the most."""


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


def open_image(path: Path) -> Image.Image:
    """The image in RGB, turned as its EXIF says, as wide as `WIDTHS` allow.

    Raises:
        UserError: the file is no image, or too large to be one of a data set.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as opened:
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            opened.draft('RGB', (WIDTHS[1], WIDTHS[1]))  # JPEG is decoded at a fraction of its size
            image = ImageOps.exif_transpose(opened).convert('RGB')
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise UserError(f'{path} cannot be shown in the report ({error}): is it an image?') from error
    width = min(max(image.width, WIDTHS[0]), WIDTHS[1])
    return image.resize((width, max(round(image.height * width / image.width), 1)))


def draw_objects(image: Image.Image, objects: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> str:
    """A ``data:`` URL of the image with boxes, masks and labels.

    Args:
        image: RGB, of any scale.
        objects: COCO annotations or detections, each also with ``text`` and ``right``.
        size: height and width that the objects' coordinates are in.
    """
    scale = image.width / size[1], image.height / size[0]
    drawing = image.copy()
    for one in objects:
        if one.get('segmentation'):
            mask = Image.fromarray(_decode(one['segmentation'], size) * np.uint8(110)).resize(image.size)
            drawing.paste(RIGHT if one['right'] else WRONG, mask=mask)
    draw = ImageDraw.Draw(drawing)
    font = ImageFont.load_default(12)
    for one in objects:
        color = RIGHT if one['right'] else WRONG
        x, y, width, height = one['bbox']
        corners = x * scale[0], y * scale[1], (x + width) * scale[0], (y + height) * scale[1]
        draw.rectangle(corners, outline=color, width=2)
        _, _, wide, high = draw.textbbox((0, 0), one['text'], font)
        left = min(max(corners[0], 0), max(image.width - wide - 4, 0))
        top = min(max(corners[1], 0), max(image.height - high - 3, 0))
        draw.rectangle((left, top, left + wide + 4, top + high + 3), fill=color)
        draw.text((left + 2, top), one['text'], 'white', font)
    return to_data_url(drawing)


def _decode(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """COCO's polygons or RLE as uint8 ``(height, width)``."""
    encoded = rle.fr_py_objects(segmentation, *size)
    return rle.decode(rle.merge(encoded) if isinstance(encoded, list) else encoded)


def draw_labels(image: Image.Image, labels: np.ndarray, palette: np.ndarray) -> str:
    """A ``data:`` URL of the image under the colors of its labels.

    Args:
        image: RGB, of any scale.
        labels: ``(height, width)``: classes; what is beyond the palette is left as it is.
        palette: uint8 ``(classes, 3)``, RGB.
    """
    small = np.asarray(Image.fromarray(labels.astype(np.int32)).resize(image.size, Image.Resampling.NEAREST))
    shown = (small >= 0) & (small < len(palette))
    colors = palette[np.where(shown, small, 0)]
    mixed = np.where(shown[..., None], 0.45 * np.asarray(image) + 0.55 * colors, np.asarray(image))
    return to_data_url(Image.fromarray(mixed.astype(np.uint8)))


def to_data_url(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, 'JPEG', quality=80)
    return 'data:image/jpeg;base64,' + base64.b64encode(file.getvalue()).decode()
