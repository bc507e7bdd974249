"""Images from strangers: only still images of common formats and of limited size are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, TiffImagePlugin

from ..datasets.image_reading import read_image
from ..errors import UserError

FORMATS = ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF')
"""Pillow's names of what is accepted. Other formats are not even tried: for EPS Pillow would start Ghostscript."""

MOST_MEGAPIXELS = 178
"""The highest limit of megapixels: Pillow opens nothing larger, lest a small file fill the memory."""

START_OF_SCAN = b'\xff\xda'
"""What each scan of a JPEG begins with. By chance it is also elsewhere in a file, about once in 65,536 bytes."""

MOST_SCANNED = 10_000
"""Megapixels that all scans of a JPEG may go over together. A usual progressive file has about ten scans. But a scan
may have 31 bytes, and takes a CPU about 2 ms a megapixel, so that one file could keep a CPU busy for a day."""


@dataclass(frozen=True)
class Limits:
    """What is accepted of strangers.

    Attributes:
        megabytes: the largest file, in units of 10^6 bytes. Default: 20.
        megapixels: the largest image, in units of 10^6 pixels, at most `MOST_MEGAPIXELS`; each takes three bytes
            once it is decoded. Default: 64, which most phones' photos keep.

    Raises:
        UserError: a limit is outside what is possible.
    """

    megabytes: float = 20
    megapixels: float = 64

    def __post_init__(self) -> None:
        if not 0 < self.megabytes < float('inf'):
            raise UserError(f'a limit of {self.megabytes:g} megabytes is not possible: give a number above 0')
        if not 0 < self.megapixels <= MOST_MEGAPIXELS:
            raise UserError(
                f'a limit of {self.megapixels:g} megapixels is not possible: give a number above 0, at most '
                f'{MOST_MEGAPIXELS}'
            )

    @property
    def bytes(self) -> int:
        """The largest file."""
        return round(self.megabytes * 1e6)


class UploadTooLarge(UserError):
    """A file from a stranger has more bytes or pixels than are accepted."""


def read_upload(content: bytes, limits: Limits) -> np.ndarray:
    """An image that a stranger sent, as `read_image` gives it.

    The kind of file is told from its first bytes, never from its name. The number of pixels is read in its header, so
    that nothing large is ever decoded.

    Args:
        content: the file, as it came.
        limits: what is accepted.

    Returns:
        uint8 ``(H, W, 3)``, BGR.

    Raises:
        UploadTooLarge: the file has too many bytes or pixels.
        UserError: it is empty, is no image of `FORMATS`, has several frames or pages, or is damaged.
    """
    if not content:
        raise UserError('the file is empty: send an image')
    check_bytes(len(content), limits)
    too_large = (
        f'the image has more than {limits.megapixels:g} megapixels, the most that is accepted: send a smaller one'
    )
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            pixels = max(image.width * image.height, _tile_pixels(image))
            is_jpeg = image.format in ('JPEG', 'MPO')
            # A phone's JPEG may have a small copy of itself, or its depths, as further frames.
            several = image.format != 'MPO' and getattr(image, 'is_animated', False)
    except Image.DecompressionBombError as error:
        raise UploadTooLarge(too_large) from error
    except Exception as error:  # Pillow's readers raise errors of many types
        raise UserError(
            'the file is not an image of a kind that is accepted: send JPEG, PNG, BMP, TIFF, WebP or still GIF'
        ) from error
    if pixels > limits.megapixels * 1e6:
        raise UploadTooLarge(too_large)
    if is_jpeg and content.count(START_OF_SCAN) * pixels > MOST_SCANNED * 1e6:
        raise UserError('the file is a JPEG of unusually many scans: save it anew, as a usual JPEG or as PNG')
    if several:
        raise UserError('the file has several frames or pages, and only single images are accepted: send one of them')
    try:
        return read_image(content)
    except UserError as error:
        reason = str(error).removeprefix(f'{len(content):,} bytes')  # as `read_image` calls a file without a name
        raise UserError(f'the file{reason}') from error


def _tile_pixels(image: Image.Image) -> int:
    """Of a tile of a TIFF, which is decoded as a whole, however small the image is; 0 where there are none."""
    tags = getattr(image, 'tag_v2', {})
    return tags.get(TiffImagePlugin.TILEWIDTH, 0) * tags.get(TiffImagePlugin.TILELENGTH, 0)


def check_bytes(size: int, limits: Limits) -> None:
    """Refuse a file of this many bytes, or of these so far, if that is too many.

    Raises:
        UploadTooLarge: it is.
    """
    if size > limits.bytes:
        raise UploadTooLarge(
            f'the file has more than {limits.megabytes:g} MB, the most that is accepted: send a smaller one'
        )
