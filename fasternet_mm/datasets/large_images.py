"""Images that are too large to be held in memory, read from their files by parts."""

from __future__ import annotations

import warnings
from functools import cached_property
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..errors import UserError
from ..extras import require

REDUCED_SIDE = 2048
"""Pixels of the longer side of the reduced image that stands for a large one where people look at it."""

TIFF_SUFFIXES = ('.tif', '.tiff')


def is_large(path: str | PathLike) -> bool:
    """Whether an image has more pixels than Pillow opens without a warning, 89 million, by its header.

    Above, files of strangers may be made to fill the memory. What is not an image is not large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('error', Image.DecompressionBombWarning)
        try:
            with Image.open(path):
                return False
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            return True
        except Exception:  # Pillow's decoders raise whatever they stumble over
            return False


class LargeImage:
    """A TIFF file as an array uint8 ``(H, W, 3)``, BGR; ``image[top:bottom, left:right]`` reads that part alone.

    TIFF is the format whose files can be read by parts: it stores an image in tiles or strips. Channels, bits and
    orientation become what `read_image` makes of them. libvips reads them (https://www.libvips.org), which decodes
    as much of the file as a part needs, keeps what a row of tiles needs, and turns CMYK into colors.

    Args:
        path: the file.

    Attributes:
        shape: height, width, 3.

    Raises:
        UserError: libvips is not installed, or the file is not a TIFF that can be read.
    """

    def __init__(self, path: str | PathLike) -> None:
        self.path = str(path)
        if Path(path).suffix.lower() not in TIFF_SUFFIXES:
            raise UserError(
                f'{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, and its format cannot be read by parts: save '
                'it as a tiled TIFF, as by: vips tiffsave IN OUT.tif --tile --compression deflate'
            )
        vips = require('pyvips', 'reading large images by parts')
        self._error = vips.Error
        try:
            self._pixels = self._in_color(vips.Image.tiffload(self.path).autorot())
        except vips.Error as error:
            raise self._unreadable(error) from error
        self.shape = (self._pixels.height, self._pixels.width, 3)

    def _in_color(self, image):
        if image.format not in ('uchar', 'ushort') or image.bands > 4:
            raise UserError(
                f'{self.path} has {image.bands} channels of the type {image.format}: use 1 to 4 channels of 8 or 16 '
                'bits'
            )
        if image.interpretation == 'cmyk':
            image = image.colourspace('srgb')
        if image.format == 'ushort':
            image = (image >> 8).cast('uchar')
        if image.bands < 3:
            image = image[0].bandjoin([image[0], image[0]])
        return image[:3]

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray:
        rows, columns = part
        return self._read(
            self._pixels.crop(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        )

    @cached_property
    def reduced(self) -> np.ndarray:
        """The whole image, its longer side of `REDUCED_SIDE` pixels, uint8 ``(h, w, 3)``, BGR."""
        return self._read(self._pixels.resize(min(1, REDUCED_SIDE / max(self.shape))))

    def _read(self, pixels) -> np.ndarray:
        try:
            return cv2.cvtColor(pixels.numpy(), cv2.COLOR_RGB2BGR)
        except self._error as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UserError:
        reason = str(error).strip().splitlines()[-1]
        return UserError(f'{self.path} is not a TIFF that can be read ({reason}): copy it again, or save it anew')
