"""Images with objects and label maps drawn in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import UserError
from ..files import write_atomically
from .encoded_masks import EncodedMasks
from .fonts import font_for
from .palette import Color

OPACITY = 0.5
"""Share of a mask's or label's color in the pixels that it covers; the rest is the image's."""

SMALLEST_TEXT = 10
"""The size of letters in pixels below which they cannot be read."""

CROWDED = 0.15
"""Share of an image that texts may take before they become smaller."""

LARGEST_HIDDEN = 0.6
"""A label is left out where it would hide more than this share of an object, added up over objects; a label's counts
four times."""

_MARGIN = 2
"""Pixels left and right of a text on its label."""

_SHEET_GAP = 8
"""Pixels of white between the drawings of a sheet."""

LINE_COLOR = (255, 221, 0)
"""The color of counting lines: yellow, which few things in images have."""


def draw_objects(
    image: np.ndarray,
    boxes: np.ndarray,
    colors: Sequence[Color],
    texts: Sequence[str],
    masks: np.ndarray | EncodedMasks | None = None,
) -> np.ndarray:
    """The image with boxes, masks and a text at each box; the first objects come on top.

    Texts stand beside their box where they cover neither another text nor an object, and are left out where there is no
    room. Their size and that of lines follow the image's; where many texts would fill it, they are smaller.

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
        mask = masks[number]  # which may be decoded only now
        drawing[mask] = drawing[mask] * (1 - OPACITY) + np.array(colors[number]) * OPACITY
    canvas = Image.fromarray(drawing)
    draw = ImageDraw.Draw(canvas)
    width, height = canvas.size
    clipped = np.clip(boxes.round(), 0, (width - 1, height - 1) * 2)
    for number in order:
        left, top, right, bottom = clipped[number].tolist()
        draw.rectangle((left, top, right, bottom), outline=tuple(colors[number]), width=_line_width(canvas.size))
    texts = [texts[number] for number in order]
    font = _fitting_font(texts, canvas.size)
    extents = np.array([_extent(text, font) for text in texts]).reshape(-1, 2)
    places = place_labels(clipped[order][::-1], extents[::-1], canvas.size)[::-1]
    for number, text, place, extent in zip(order, texts, places.tolist(), extents):
        if min(place) < 0:
            continue
        color = tuple(colors[number])
        draw.rectangle((*place, *(place + extent - 1)), fill=color)
        draw.text((place[0] + _MARGIN, place[1]), text, _readable_on(color), font)
    return np.array(canvas)


def place_labels(boxes: np.ndarray, extents: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where the labels of boxes are to stand, in whole pixels, int ``(n, 2)``: left and top; -1 where there is no room.

    One after the other takes the place at its box's edges where it covers least: of the labels before it, of other
    objects, of its own object. All are inside the image. Without room is what would hide an object or much of a label.

    Args:
        boxes: ``(n, 4)``, xyxy in pixels of the image, the most important first.
        extents: width and height of each label, ``(n, 2)``.
        size: width and height of the image.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    labels = np.full((len(boxes), 4), -1.0)
    for number, ((left, top, right, bottom), (width, height)) in enumerate(zip(boxes, extents)):
        choices = np.array(
            [
                (left, top - height),  # above
                (right - width, top - height),
                (left, bottom + 1),  # below
                (right - width, bottom + 1),
                (right + 1, top),  # beside
                (left - width, top),
                (right + 1, bottom - height),
                (left - width, bottom - height),
                (left, top),  # inside
                (right - width, top),
                (left, bottom - height),
                (right - width, bottom - height),
            ]
        )
        choices = np.clip(choices, 0, np.maximum(np.subtract(size, (width, height)), 0)).round()
        choices = np.concatenate([choices, choices + (width, height)], axis=1)
        around = np.array([[*choices[:, :2].min(axis=0), *choices[:, 2:].max(axis=0)]])
        near = np.flatnonzero(_overlaps(around, boxes)[0])
        hidden = _overlaps(choices, boxes[near]) / np.maximum(areas[near], width * height / 4)
        hidden[:, near == number] /= 2  # a label inside its own box is not taken for another's
        labels_near = labels[:number][_overlaps(around, labels[:number])[0] > 0]
        cost = hidden.sum(axis=1) + 4 * _overlaps(choices, labels_near).sum(axis=1) / (width * height)
        if cost.min() <= LARGEST_HIDDEN:
            labels[number] = choices[cost.round(3).argmin()]
    return labels[:, :2].astype(int)


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The area that each of ``(n, 4)`` has in common with each of ``(m, 4)``, xyxy: ``(n, m)``."""
    first = np.maximum(boxes[:, None, :2], others[None, :, :2])
    last = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.maximum(last - first, 0).prod(axis=2)


def _fitting_font(texts: Sequence[str], size: tuple[int, int]) -> ImageFont.FreeTypeFont:
    """The font for an image of ``size``, (W, H), and a smaller one where so many texts would take too much of it."""
    for share in (1, 0.8, 0.65, 0.5):
        font = font_for(texts, max(round(share * _text_size(size)), SMALLEST_TEXT))
        if sum(math.prod(_extent(text, font)) for text in texts) <= CROWDED * math.prod(size):
            break
    return font


def _extent(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height of a label in pixels."""
    return math.ceil(font.getlength(text)) + 2 * _MARGIN, sum(font.getmetrics())


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
    font, thickness = font_for('0123456789', _text_size(canvas.size)), _line_width(canvas.size)
    draw.line(ends, LINE_COLOR, 2 * thickness)
    x1, y1, x2, y2 = ends
    length = np.hypot(x2 - x1, y2 - y1)
    right_x, right_y = (y1 - y2) / length, (x2 - x1) / length
    for side, count in ((-1, to_left), (1, to_right)):
        text = str(count)
        width, height = _extent(text, font)
        away = side * (abs(right_x) * width + abs(right_y) * height) / 2 + side * 3 * thickness
        left, top = x1 + right_x * away - width / 2, y1 + right_y * away - height / 2
        left, top = _inside(left, top, width, height, canvas.size)
        draw.rectangle((left, top, left + width, top + height), fill=LINE_COLOR)
        draw.text((left + _MARGIN, top), text, 'black', font)
    return np.array(canvas)


def _inside(left: float, top: float, width: float, height: float, size: tuple[int, int]) -> tuple[int, int]:
    """The nearest place to ``left, top`` where all of a rectangle is in an image of ``size``, (W, H)."""
    return (
        min(max(round(left), 0), max(size[0] - math.ceil(width), 0)),
        min(max(round(top), 0), max(size[1] - math.ceil(height), 0)),
    )


def _text_size(size: tuple[int, int]) -> int:
    """The size of letters in pixels for an image of ``size``, (W, H): 15 at 640x480, 96 at 4000x3000."""
    return max(round(math.sqrt(math.prod(size)) / 36), SMALLEST_TEXT)


def _line_width(size: tuple[int, int]) -> int:
    return max(round(math.sqrt(math.prod(size)) / 300), 1)


def _readable_on(color: Color) -> str:
    return 'black' if np.dot(color, (0.299, 0.587, 0.114)) > 140 else 'white'


def draw_labels(image: np.ndarray, label_map: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    """The image under the colors of its labels; where the palette has no color, as for the ignored label, it is bare.

    What is covered becomes gray first, so that hues are the palette's alone.

    Args:
        image: uint8 ``(H, W, 3)``, RGB; it stays as it is.
        label_map: integers ``(H, W)``.
        palette: a color, RGB, per label.
    """
    drawing, known = image.copy(), (label_map >= 0) & (label_map < len(palette))
    grays = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    blended = np.array(palette)[:, None] * OPACITY + np.arange(256)[:, None] * (1 - OPACITY)  # of each label and gray
    drawing[known] = blended.round().astype(np.uint8)[label_map[known], grays[known]]
    return drawing


def with_legend(drawing: np.ndarray, label_maps: Sequence[np.ndarray], classes: Sequence[str]) -> np.ndarray:
    """Names and colors of the classes in rows under a drawing of label maps, the most frequent first.

    The colors are those that the classes have in the drawing, on average. A drawing is widened where a name is wider.

    Args:
        drawing: of `draw_labels`, uint8 RGB; where there are several label maps, theirs side by side.
        label_maps: integers ``(H, W)``.
        classes: the name of each label.
    """
    label_map = np.concatenate(label_maps, axis=1)
    counts = np.bincount(label_map.ravel())[: len(classes)]
    labels = [label for label in np.argsort(-counts, kind='stable') if counts[label]]
    colors = [drawing[label_map == label].mean(axis=0).round().astype(int).tolist() for label in labels]
    text_size = _text_size(label_maps[0].shape)
    font, row, swatch, gap = font_for(classes, text_size), round(1.6 * text_size), text_size, text_size // 2
    widths = [swatch + 3 * gap + math.ceil(font.getlength(classes[label])) for label in labels]
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
    for label, color, (x, y) in zip(labels, colors, places):
        draw.rectangle((x, y, x + swatch - 1, y + swatch - 1), fill=tuple(color))
        draw.text((x + swatch + gap, y + swatch / 2), classes[label], 'black', font, anchor='lm')
    return np.array(image)


def write_drawing(path: str | PathLike, drawing: np.ndarray) -> None:
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
    """One image of many, in rows that are as wide as the sheet, whatever the shapes of the drawings.

    Args:
        drawings: files.
        out_file: the suffix chooses the format.
        columns: drawings of a usual shape in a row. Default: 3.
        width: pixels of a drawing of a usual shape. Default: 640.
    """
    tiles = [cv2.imread(str(path)) for path in drawings]
    aspects = np.array([tile.shape[1] / tile.shape[0] for tile in tiles])
    columns = min(columns, len(tiles))
    count = max(round(aspects.sum() / (columns * np.median(aspects))), 1)
    middles = aspects.cumsum() - aspects / 2  # of the tiles, were all in one row
    numbers = (middles * count / aspects.sum()).astype(int)
    rows = [[tile for tile, own in zip(tiles, numbers) if own == number] for number in np.unique(numbers)]
    write_drawing(out_file, np.concatenate([_sheet_row(row, columns * width) for row in rows])[..., ::-1])


def _sheet_row(tiles: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Images side by side, BGR, as high as each other, that fill ``width`` pixels with what is white between them."""
    aspects = [tile.shape[1] / tile.shape[0] for tile in tiles]
    height = max(round((width - _SHEET_GAP * (len(tiles) + 1)) / sum(aspects)), 1)
    row = np.full((height + _SHEET_GAP, width, 3), 255, np.uint8)
    left = float(_SHEET_GAP)
    for tile, aspect in zip(tiles, aspects):
        first = round(left)
        last = min(max(round(left + aspect * height), first + 1), width)
        method = cv2.INTER_AREA if tile.shape[0] > height else cv2.INTER_LINEAR
        row[_SHEET_GAP:, first:last] = cv2.resize(tile, (last - first, height), interpolation=method)
        left += aspect * height + _SHEET_GAP
    return row
