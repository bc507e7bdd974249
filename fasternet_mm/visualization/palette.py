"""Colors of classes."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

Color = Sequence[int]
"""Red, green, blue, 0 to 255."""


def palette_of(meta: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """The color of each class of a data set; `default_palette` where its ``palette`` does not have them all."""
    classes, palette = meta['classes'], meta.get('palette')
    if not palette or isinstance(palette, str) or len(palette) < len(classes):
        return default_palette(len(classes))
    return [tuple(color) for color in palette]


def default_palette(count: int) -> list[tuple[int, int, int]]:
    """Colors that differ from their neighbors: hues a golden angle apart."""
    hues = (number * 0.618034 % 1 for number in range(count))
    return [tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, 0.95)) for hue in hues]
