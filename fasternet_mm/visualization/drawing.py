"""Images with objects and label maps drawn in."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import UserError
from ..files import write_atomically
from .palette import Color

OPACITY = 0.5
"""Share of a mask's or label's color in the pixels that it covers; the rest is the image's."""

LINE_COLOR = (255, 221, 0)
"""The color of counting lines: yellow, which few things in images have."""


def draw_objects(
    image: np.ndarray,
    boxes: np.ndarray,
    colors: Sequence[Color],
    texts: Sequence[str],
    masks: np.ndarray | None = None,
) -> np.ndarray:
    """The image with boxes, masks and a text at each box; the first objects come on top.

    Args:
        image: uint8 ``(H, W, 3)``, RGB; it stays as it is.
        boxes: ``(n, 4)``, xyxy in pixels; objects where they are not finite are not drawn.
        colors: RGB, one per object.
        texts: one per object.
        masks: bool ``(n, H, W)``.
    """
    drawing = image.copy()
    order = np.flatnonzero(np.isfinite(boxes).all(axis=1))[::-1]
    for number in order if masks is not None else ():
        inside = drawing[masks[number]]
        drawing[masks[number]] = inside * (1 - OPACITY) + np.array(colors[number]) * OPACITY
    canvas = Image.fromarray(drawing)
    draw = ImageDraw.Draw(canvas)
    font, line = _font(_text_size(canvas.size)), _line_width(canvas.size)
    for number in order:
        left, top, right, bottom = boxes[number].round().tolist()
        draw.rectangle((left, top, max(right, left), max(bottom, top)), outline=tuple(colors[number]), width=line)
    for number in order:
        _write(draw, canvas.size, boxes[number], texts[number], tuple(colors[number]), font)
    return np.array(canvas)


def object_text(name: str, score: float | None, number: int = 0) -> str:
    """'car', 'car 0.91', or '#3 car 0.91' of an object with a number."""
    text = name if score is None else f'{name} {score:.2f}'
    return f'#{number} {text}' if number else text


def draw_counting_line(
    image: np.ndarray, ends: tuple[float, float, float, float], to_left: int, to_right: int
) -> np.ndarray:
    """The image with a line, and beside its first end on each side how many crossed it to that side.

    Args:
        image: uint8 ``(H, W, 3)``, RGB; it stays as it is.
        ends: x1, y1, x2, y2 in pixels.
        to_left: the number to the left of somebody who walks from the first end to the second.
        to_right: that to the right.
    """
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    font, thickness = _font(_text_size(canvas.size)), _line_width(canvas.size)
    draw.line(ends, LINE_COLOR, 2 * thickness)
    x1, y1, x2, y2 = ends
    length = np.hypot(x2 - x1, y2 - y1)
    right_x, right_y = (y1 - y2) / length, (x2 - x1) / length
    for side, count in ((-1, to_left), (1, to_right)):
        text = str(count)
        width, height = draw.textlength(text, font) + 4, sum(font.getmetrics())
        away = side * (abs(right_x) * width + abs(right_y) * height) / 2 + side * 3 * thickness
        left, top = x1 + right_x * away - width / 2, y1 + right_y * away - height / 2
        left, top = _inside(left, top, width, height, canvas.size)
        draw.rectangle((left, top, left + width, top + height), fill=LINE_COLOR)
        draw.text((left + 2, top), text, 'black', font)
    return np.array(canvas)


def _write(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], box: np.ndarray, text: str, color: Color, font: Any
) -> None:
    """A text on its color above the box, or inside where there is no room; never beyond the image's edges."""
    width, height = draw.textlength(text, font) + 4, sum(font.getmetrics())
    top = box[1] - height if box[1] >= height else box[1]
    left, top = _inside(box[0], top, width, height, size)
    draw.rectangle((left, top, left + width, top + height), fill=color)
    draw.text((left + 2, top), text, _readable_on(color), font)


def _inside(left: float, top: float, width: float, height: float, size: tuple[int, int]) -> tuple[int, int]:
    """The nearest place to ``left, top`` where all of a rectangle is in an image of ``size``, (W, H)."""
    return (
        min(max(round(left), 0), max(size[0] - math.ceil(width), 0)),
        min(max(round(top), 0), max(size[1] - math.ceil(height), 0)),
    )


def _text_size(size: tuple[int, int]) -> int:
    return min(max(min(size) // 30, 10), 40)


def _line_width(size: tuple[int, int]) -> int:
    return max(round(min(size) / 200), 1)


def _readable_on(color: Color) -> str:
    return 'black' if np.dot(color, (0.299, 0.587, 0.114)) > 140 else 'white'


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib brings a font with Latin, Greek and Cyrillic letters."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf')), size)


def draw_labels(image: np.ndarray, label_map: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    """The image under the colors of its labels; where the palette has no color, as for the ignored label, it is bare.

    Args:
        image: uint8 ``(H, W, 3)``, RGB; it stays as it is.
        label_map: integers ``(H, W)``.
        palette: a color, RGB, per label.
    """
    drawing, known = image.copy(), (label_map >= 0) & (label_map < len(palette))
    colors = np.array(palette)[label_map[known]]
    drawing[known] = drawing[known] * (1 - OPACITY) + colors * OPACITY
    return drawing


def with_legend(
    drawing: np.ndarray, label_maps: Sequence[np.ndarray], classes: Sequence[str], palette: Sequence[Color]
) -> np.ndarray:
    """Names and colors of the classes in the label maps in rows under a drawing, the most frequent first.

    A drawing is widened where a name is wider.
    """
    counts = np.bincount(np.concatenate([labels.ravel() for labels in label_maps]))[: len(classes)]
    labels = [label for label in np.argsort(-counts, kind='stable') if counts[label]]
    font, row, swatch, gap = _font(11), 18, 12, 6
    widths = [swatch + 3 * gap + round(font.getlength(classes[label])) for label in labels]
    total_width = max([drawing.shape[1], *widths])
    places, left, top = [], 0, drawing.shape[0]
    for width in widths:
        if left and left + width > total_width:
            left, top = 0, top + row
        places.append((left + gap, top + (row - swatch) // 2))
        left += width
    image = Image.new('RGB', (total_width, top + row), 'white')
    image.paste(Image.fromarray(drawing))
    draw = ImageDraw.Draw(image)
    for label, (x, y) in zip(labels, places):
        draw.rectangle((x, y, x + swatch - 1, y + swatch - 1), fill=tuple(palette[label]))
        draw.text((x + swatch + gap, y + swatch / 2), classes[label], 'black', font, anchor='lm')
    return np.array(image)


def write_drawing(path: str | Path, drawing: np.ndarray) -> None:
    """Write an RGB drawing, whole or not at all; the suffix chooses the format.

    Raises:
        UserError: OpenCV writes no such format.
    """
    try:
        content = cv2.imencode(Path(path).suffix, drawing[..., ::-1])[1].tobytes()
    except cv2.error as error:
        raise UserError(f'{path}: a drawing can be .png, .jpg, .webp, .bmp or .tif, name it so') from error
    write_atomically(path, content)


def write_sheet(drawings: Sequence[Path], out_file: Path, columns: int = 3, width: int = 640) -> None:
    """One image of many: scaled to ``width`` pixels each, ``columns`` in a row."""
    tiles = [cv2.imread(str(path)) for path in drawings]
    tiles = [cv2.resize(tile, (width, round(tile.shape[0] * width / tile.shape[1]))) for tile in tiles]
    height = max(tile.shape[0] for tile in tiles)
    sheet = np.full((-(-len(tiles) // columns) * (height + 8), columns * (width + 8), 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * (height + 8) + 4, number % columns * (width + 8) + 4
        sheet[top : top + len(tile), left : left + width] = tile
    write_drawing(out_file, sheet[..., ::-1])
