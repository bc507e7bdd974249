"""Fonts that have the letters of class names, in whatever language these are."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font
from mmengine.logging import print_log
from PIL import ImageFont

OWN_FONT = str(Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf'))
"""Matplotlib brings it. It has Latin, Greek, Cyrillic and Arabic letters, but no Chinese, Japanese or Korean ones."""


def font_for(texts: Iterable[str], size: int) -> ImageFont.FreeTypeFont:
    """A font of a size in pixels that has the letters of texts: `OWN_FONT`, or else one of the system's."""
    return _font(_file_with(_lacking(OWN_FONT, frozenset(''.join(texts)))), size)


@functools.cache
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


@functools.cache
def _file_with(letters: frozenset[str]) -> str:
    """The file of the font that has the most of some letters, which `OWN_FONT` has not; of equal ones the first."""
    if not letters:
        return OWN_FONT
    file = min([OWN_FONT, *sorted(findSystemFonts())], key=lambda file: len(_lacking(file, letters)))
    if _lacking(file, letters):
        _tell_of_squares()
    return file


def _lacking(file: str, letters: frozenset[str]) -> frozenset[str]:
    return frozenset(letter for letter in letters if letter.isprintable() and ord(letter) not in _code_points(file))


@functools.cache
def _code_points(file: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(file).get_charmap())
    except RuntimeError:  # not a font after all
        return frozenset()


@functools.cache  # once is enough
def _tell_of_squares() -> None:
    print_log(
        'No font here has all letters of the class names, and those that it lacks are drawn as squares: install one '
        'that has them, such as the package fonts-noto-cjk of Debian and Ubuntu for Chinese, Japanese and Korean.',
        logger='current',
        level=logging.WARNING,
    )
