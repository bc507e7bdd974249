"""Images with objects and label maps drawn in."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from PIL import Image, ImageDraw, ImageFont

from ..datasets.image_files import names_of_images
from ..datasets.image_reading import read_image
from ..errors import UserError
from ..files import mark_output, write_atomically
from ..registry import HOOKS

Color = Sequence[int]

OPACITY = 0.5
"""Of masks and labels over the image."""


def palette_of(meta: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """A color, RGB, for each class of a data set; where it has none, those that MMSegmentation would give it."""
    classes, palette = meta['classes'], meta.get('palette')
    if not palette or isinstance(palette, str) or len(palette) < len(classes):
        palette = np.random.RandomState(42).randint(0, 255, (len(classes), 3)).tolist()
    return [tuple(color) for color in palette]


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
    smaller_side = min(canvas.size)
    font, line = _font(min(max(smaller_side // 30, 10), 40)), max(round(smaller_side / 200), 1)
    for number in order:
        left, top, right, bottom = boxes[number].round().tolist()
        draw.rectangle((left, top, max(right, left), max(bottom, top)), outline=tuple(colors[number]), width=line)
    for number in order:
        _write(draw, canvas.size, boxes[number], texts[number], tuple(colors[number]), font)
    return np.array(canvas)


def _write(draw: ImageDraw.ImageDraw, size: Color, box: np.ndarray, text: str, color: Color, font: Any) -> None:
    """A text on its color above the box, or inside where there is no room; never beyond the image's edges."""
    width, height = draw.textlength(text, font) + 4, sum(font.getmetrics())
    top = box[1] - height if box[1] >= height else box[1]
    left, top = (
        min(max(round(place), 0), max(room - extent, 0))
        for place, room, extent in zip((box[0], top), size, (width, height))
    )
    draw.rectangle((left, top, left + width, top + height), fill=color)
    draw.text((left + 2, top), text, _readable_on(color), font)


def _readable_on(color: Color) -> str:
    return 'black' if np.dot(color, (0.299, 0.587, 0.114)) > 140 else 'white'


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib brings a font with Latin, Greek and Cyrillic letters."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf')), size)


def draw_labels(image: np.ndarray, label_map: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    """The image under the colors of its labels; what the palette lacks, as the ignored label, stays as it is.

    Args:
        image: uint8 ``(H, W, 3)``, RGB; it stays as it is.
        label_map: integers ``(H, W)``.
        palette: a color, RGB, per label.
    """
    drawing, known = image.copy(), label_map < len(palette)
    colors = np.array(palette)[label_map[known]]
    drawing[known] = drawing[known] * (1 - OPACITY) + colors * OPACITY
    return drawing


def with_legend(
    drawing: np.ndarray, label_maps: Sequence[np.ndarray], classes: Sequence[str], palette: Sequence[Color]
) -> np.ndarray:
    """Names and colors of the classes in the label maps in rows under a drawing, the most frequent first.

    A drawing is widened where a name is wider.
    """
    counts = np.bincount(np.concatenate([labels.ravel() for labels in label_maps]))
    shown = [label for label in np.argsort(-counts, kind='stable') if counts[label] and label < len(classes)]
    font, row, swatch, gap = _font(11), 18, 12, 6
    widths = [swatch + 3 * gap + round(font.getlength(classes[label])) for label in shown]
    width = max([drawing.shape[1], *widths])
    places, left, top = [], 0, drawing.shape[0]
    for wide in widths:
        if left and left + wide > width:
            left, top = 0, top + row
        places.append((left + gap, top + (row - swatch) // 2))
        left += wide
    image = Image.new('RGB', (width, top + row), 'white')
    image.paste(Image.fromarray(drawing))
    draw = ImageDraw.Draw(image)
    for label, (x, y) in zip(shown, places):
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


@HOOKS.register_module()
class DrawPredictionsHook(Hook):
    """In testing, draws every image with ground truth on the left and predictions on the right.

    Args:
        out_dir: folder of the drawings, one per image, with its path below the folder that all share, and of
            ``sheet.png`` with the first ``sheet`` of them.
        score_thr: detections below it are not drawn. Default: 0.3.
        sheet: how many drawings the sheet shows. Default: 12.
    """

    def __init__(self, out_dir: str, score_thr: float = 0.3, sheet: int = 12) -> None:
        self.out_dir = Path(out_dir)
        self.score_thr = score_thr
        self.sheet = sheet
        self.drawings: list[Path] = []
        self.names: dict[str, str] = {}

    def before_test_epoch(self, runner: Runner) -> None:
        self.names = names_of_images(runner.test_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        mark_output(self.out_dir)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        for sample in outputs:
            name = self.names[sample.img_path]
            out_file = self.out_dir / ('sheet-1.png' if name == 'sheet' else f'{name}.png')
            # The visualizer knows the classes in the first process alone.
            meta = runner.test_dataloader.dataset.metainfo
            write_drawing(out_file, draw_beside_truth(sample.cpu(), meta, self.score_thr))
            self.drawings.append(out_file)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if runner.rank == 0 and self.drawings:
            write_sheet(self.drawings[: self.sheet], self.out_dir / 'sheet.png')


def draw_beside_truth(sample: BaseDataElement, meta: Mapping[str, Any], score_thr: float) -> np.ndarray:
    """The image of a tested sample twice, RGB: with the ground truth, and with the prediction.

    Args:
        sample: MMDetection's or MMSegmentation's, on the CPU, with ``img_path``, ground truth and predictions.
        meta: the data set's, with ``classes``.
        score_thr: detections below it are not drawn.
    """
    image, palette = read_image(sample.img_path)[..., ::-1], palette_of(meta)
    if 'pred_sem_seg' in sample:
        maps = [labels.data[0].numpy() for labels in (sample.gt_sem_seg, sample.pred_sem_seg)]
        drawings = [draw_labels(image, labels, palette) for labels in maps]
        return with_legend(np.concatenate(drawings, axis=1), maps, meta['classes'], palette)
    found = sample.pred_instances
    instances = sample.gt_instances, found[found.scores >= score_thr]
    drawings = [_draw_instances(image, one, meta['classes'], palette) for one in instances]
    return np.concatenate(drawings, axis=1)


def draw_truth(sample: BaseDataElement, meta: Mapping[str, Any]) -> np.ndarray:
    """The image of a sample with its ground truth, RGB; label maps get a legend.

    Args:
        sample: MMDetection's or MMSegmentation's, with ``img_path`` and ground truth.
        meta: the data set's, with ``classes``.
    """
    image, palette = read_image(sample.img_path)[..., ::-1], palette_of(meta)
    if 'gt_sem_seg' in sample:
        labels = sample.gt_sem_seg.data[0].numpy()
        return with_legend(draw_labels(image, labels, palette), [labels], meta['classes'], palette)
    return _draw_instances(image, sample.gt_instances, meta['classes'], palette)


def _draw_instances(
    image: np.ndarray, instances: BaseDataElement, classes: Sequence[str], palette: Sequence[Color]
) -> np.ndarray:
    boxes, masks = instances.bboxes, instances.get('masks')
    boxes = getattr(boxes, 'tensor', boxes).numpy()  # of MMDetection's box types, as of tensors
    if masks is not None:
        masks = masks.to_ndarray().astype(bool) if hasattr(masks, 'to_ndarray') else masks.numpy()
    labels = instances.labels.tolist()
    scores = instances.scores.tolist() if 'scores' in instances else [None] * len(labels)
    texts = [object_text(classes[label], score) for label, score in zip(labels, scores)]
    return draw_objects(image, boxes, [palette[label] for label in labels], texts, masks)


def object_text(name: str, score: float | None) -> str:
    return name if score is None else f'{name} {score:.2f}'


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
