"""Images of every kind that a user may have, read as the arrays that networks are trained on."""

from __future__ import annotations

import logging
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from mmengine.logging import print_log
from PIL import Image, ImageOps

from ..download import fetch
from ..errors import UserError

ImageSource: TypeAlias = str | PathLike | bytes | bytearray | memoryview | np.ndarray | Image.Image
"""A file, an http or https URL, an encoded file's bytes, an array, or an image of Pillow's."""

MAX_BYTES = 100_000_000
"""The largest image that is fetched from a URL, so that an endless answer does not fill the memory."""

JPEG = b'\xff\xd8'
"""The first bytes of JPEG files."""

MODES_16 = ('I', 'I;16', 'I;16B', 'I;16L', 'I;16N')
"""Pillow's modes for 16 bits of gray; some of its releases open such files in the first one, which has 32."""


def read_image(image: ImageSource, channel_order: str = 'bgr') -> np.ndarray:
    """An image as training and testing see it, which read files by OpenCV.

    EXIF orientation is applied, gray becomes three equal channels, transparency is left out, CMYK and palettes become
    colors, and of 16 bits the upper eight are taken. Pillow decodes what OpenCV cannot. Of several frames or pages the
    first is taken, and the log says so.

    Args:
        image: files, URLs and bytes hold any format of OpenCV's or Pillow's. Arrays are uint8 or uint16, ``(H, W)``,
            ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)``.
        channel_order: of arrays of three or four channels: 'bgr', as OpenCV reads, or 'rgb', as Pillow and Matplotlib
            do. Default: 'bgr'.

    Returns:
        uint8 ``(H, W, 3)``, BGR.

    Raises:
        UserError: the source is not an image, or is only the beginning of one.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image, channel_order)
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _decode(bytes(image), f'{len(image):,} bytes')
    if not isinstance(image, (str, PathLike)):
        raise UserError(
            f'type {type(image).__name__} is not read as an image: give a path, a URL, bytes, an array or a PIL image'
        )
    name = str(image)
    if is_url(name):
        return _decode(fetch(name, MAX_BYTES), name)
    try:
        return _decode(Path(name).read_bytes(), name)
    except OSError as error:
        raise UserError(f'{name} cannot be read ({error.strerror}): give an image file') from error


def is_url(name: str) -> bool:
    return name.lower().startswith(('http://', 'https://'))


def _decode(content: bytes, name: str) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    except cv2.error:  # too many pixels
        image = None
    if image is None or _lacks_end(content):
        image = _by_pillow(content, name)
    if not content.startswith(JPEG) and _has_several_frames(content):
        print_log(f'{name} has several frames: the first is taken', logger='current', level=logging.WARNING)
    return image


def _lacks_end(content: bytes) -> bool:
    """Whether a JPEG may be cut off: OpenCV 4 makes the missing part gray, while Pillow refuses the file."""
    if not content.startswith(JPEG):
        return False
    place = len(JPEG)  # skip the segments before the scan: one may hold a small image, with an end of its own
    while content[place : place + 1] == b'\xff' and content[place + 1 : place + 2] != b'\xda':
        place += 2 + int.from_bytes(content[place + 2 : place + 4], 'big')
    return content.find(b'\xff\xd9', place) < 0


def _has_several_frames(content: bytes) -> bool:
    try:
        with Image.open(BytesIO(content)) as image:
            return getattr(image, 'is_animated', False)
    except Exception:  # Pillow reads fewer formats than OpenCV, and its decoders raise errors of many types
        return False


def _by_pillow(content: bytes, name: str) -> np.ndarray:
    try:
        with Image.open(BytesIO(content)) as image:
            return _from_pillow(image)
    except UserError as error:
        raise UserError(f'{name}: {error}') from error
    except Exception as error:  # Pillow's decoders raise errors of many types
        if 'truncated' in str(error):
            raise UserError(f'{name} is cut off, it is only the beginning of an image: copy it again') from error
        raise UserError(
            f'{name} is not an image that can be read: use JPEG, PNG, BMP, TIFF, WebP or GIF, of less than '
            f'{Image.MAX_IMAGE_PIXELS:,} pixels'
        ) from error


def _from_pillow(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode in MODES_16:
        pixels = np.asarray(image)
        if pixels.size and not 0 <= pixels.min() <= pixels.max() <= 65535:
            raise UserError(
                'the range of an image with numbers below 0 or above 65535 is unknown: scale it to 0 to 255'
            )
        return _from_array(pixels.astype(np.uint16), 'rgb')
    if image.mode == 'F':
        raise UserError('the range of an image of floating-point numbers is unknown: scale it to 0 to 255')
    return _from_array(np.asarray(image.convert('RGB')), 'rgb')


def _from_array(array: np.ndarray, channel_order: str) -> np.ndarray:
    pixels = array[..., None] if array.ndim == 2 else array
    is_image = pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4) and pixels.size > 0
    if not is_image or pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f'an array of {array.dtype} {array.shape} is not an image: give uint8 or uint16, (H, W) or (H, W, C) with '
            '1, 3 or 4 channels'
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3] if channel_order == 'bgr' else pixels[..., 2::-1])
