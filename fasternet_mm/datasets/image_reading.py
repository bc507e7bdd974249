"""Images of every kind that a user may have, as the arrays that networks are trained on."""

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

ImageSource: TypeAlias = str | PathLike | bytes | np.ndarray | Image.Image
"""A file, an http or https URL, an encoded file's bytes, an array, or an image of Pillow's."""

MAX_BYTES = 100_000_000
"""Of an image from a URL."""

JPEG = b'\xff\xd8'
"""What its files begin with."""

MODES_16 = ('I', 'I;16', 'I;16B', 'I;16L', 'I;16N')
"""Pillow's names for 16 bits of gray; some of its releases open them with 32."""


def read_image(given: ImageSource, channel_order: str = 'bgr') -> np.ndarray:
    """An image as training and testing see it, which read files by OpenCV.

    EXIF orientation is applied, gray becomes three equal channels, transparency is left out, CMYK and palettes become
    colors, and of 16 bits the upper eight are taken. What OpenCV cannot decode is left to Pillow. Of several frames or
    pages the first is taken, and the log says so.

    Args:
        given: files, URLs and bytes hold any format of OpenCV's or Pillow's. Arrays are uint8 or uint16, ``(H, W)``,
            ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)``.
        channel_order: of arrays of three or four channels: 'bgr', as OpenCV reads, or 'rgb', as Pillow and Matplotlib
            do. Default: 'bgr'.

    Returns:
        uint8 ``(H, W, 3)``, BGR.

    Raises:
        UserError: that is no image, or only the beginning of one.
    """
    if isinstance(given, np.ndarray):
        return _from_array(given, channel_order)
    if isinstance(given, Image.Image):
        return _from_pillow(given)
    if isinstance(given, (bytes, bytearray, memoryview)):
        return _decode(bytes(given), f'{len(given):,} bytes')
    if not isinstance(given, (str, PathLike)):
        raise UserError(f'a {type(given).__name__} is no image: give a path, a URL, bytes, an array or a PIL image')
    name = str(given)
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
    """Whether a JPEG may be cut off: OpenCV 4 makes what is not there gray, and Pillow refuses it."""
    if not content.startswith(JPEG):
        return False
    place = len(JPEG)  # of the markers before the scan: among them may be a small image, with an end of its own
    while content[place : place + 1] == b'\xff' and content[place + 1 : place + 2] != b'\xda':
        place += 2 + int.from_bytes(content[place + 2 : place + 4], 'big')
    return content.find(b'\xff\xd9', place) < 0


def _has_several_frames(content: bytes) -> bool:
    try:
        with Image.open(BytesIO(content)) as image:
            return getattr(image, 'is_animated', False)
    except Exception:  # Pillow reads fewer kinds than OpenCV, and raises whatever it stumbles over
        return False


def _by_pillow(content: bytes, name: str) -> np.ndarray:
    try:
        with Image.open(BytesIO(content)) as image:
            return _from_pillow(image)
    except UserError as error:
        raise UserError(f'{name}: {error}') from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        if 'truncated' in str(error):
            raise UserError(f'{name} is cut off: only the beginning of an image is there; copy it again') from error
        raise UserError(
            f'{name} is not an image that can be read: use JPEG, PNG, BMP, TIFF, WebP or GIF, of less than '
            f'{Image.MAX_IMAGE_PIXELS:,} pixels'
        ) from error


def _from_pillow(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode in MODES_16:
        pixels = np.asarray(image)
        if pixels.size and not 0 <= pixels.min() <= pixels.max() <= 65535:
            raise UserError('an image with numbers below 0 or above 65535 has no known range: scale it to 0 to 255')
        return _from_array(pixels.astype(np.uint16), 'rgb')
    if image.mode == 'F':
        raise UserError('an image of floating-point numbers has no known range: scale it to 0 to 255')
    return _from_array(np.asarray(image.convert('RGB')), 'rgb')


def _from_array(array: np.ndarray, channel_order: str) -> np.ndarray:
    channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
    if channels not in (1, 3, 4) or array.size == 0 or array.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f'an array of {array.dtype} {array.shape} is no image: give uint8 or uint16, (H, W) or (H, W, C) with '
            '1, 3 or 4 channels'
        )
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if channels == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    colors = array[..., :3] if channel_order == 'bgr' else array[..., 2::-1]
    return np.ascontiguousarray(colors)
