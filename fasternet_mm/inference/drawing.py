"""Pictures with predictions drawn in, by the config's own visualizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer

from ..engine.storage import write_atomically
from ..registry import HOOKS


def draw_prediction(
    visualizer: Visualizer, sample: BaseDataElement, out_file: str, score_thr: float, beside_truth: bool = False
) -> None:
    """Draw a prediction into its picture and write it to ``out_file``; label maps get a legend.

    Args:
        visualizer: MMDetection's or MMSegmentation's local visualizer, with ``dataset_meta`` set.
        sample: a data sample with ``img_path`` and predictions.
        out_file: the drawing; the suffix chooses the format.
        score_thr: detections below it are not drawn.
        beside_truth: put the ground truth on the left.
    """
    image = mmcv.imread(sample.img_path, channel_order='rgb')
    if 'pred_sem_seg' not in sample:
        options = dict(draw_gt=beside_truth, pred_score_thr=score_thr)
        visualizer.add_datasample('prediction', image, sample, out_file=out_file, **options)
        return
    drawings = []
    for truth in (True, False) if beside_truth else (False,):
        visualizer.add_datasample('labels', image, sample, draw_gt=truth, draw_pred=not truth, with_labels=False)
        drawings.append(visualizer.get_image())
    maps = [sample.pred_sem_seg.data, *([sample.gt_sem_seg.data] if beside_truth else [])]
    counts = np.bincount(np.concatenate([labels.numpy().ravel() for labels in maps]))
    classes, palette = visualizer.dataset_meta['classes'], visualizer.dataset_meta['palette']
    shown = [label for label in np.argsort(-counts) if counts[label] and label < len(classes)]
    entries = [(classes[label], palette[label]) for label in shown]
    drawing = _with_legend(np.concatenate(drawings, axis=1), entries)
    suffix = Path(out_file).suffix
    write_atomically(out_file, cv2.imencode(suffix, cv2.cvtColor(drawing, cv2.COLOR_RGB2BGR))[1].tobytes())


def _with_legend(image: np.ndarray, entries: Sequence[tuple[str, Sequence[int]]]) -> np.ndarray:
    """The picture with names and colours of classes in rows under it; widened where a name is wider."""
    font, row, swatch, gap = (cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1), 18, 12, 6
    widths = [swatch + 3 * gap + cv2.getTextSize(name, *font)[0][0] for name, _ in entries]
    width = max([image.shape[1], *widths])
    places, left, top = [], 0, 0
    for wide in widths:
        if left and left + wide > width:
            left, top = 0, top + row
        places.append((left + gap, top + (row - swatch) // 2))
        left += wide
    result = np.full((image.shape[0] + top + row, width, 3), 255, np.uint8)
    result[: image.shape[0], : image.shape[1]] = image
    for (name, colour), (x, y) in zip(entries, places):
        y += image.shape[0]
        result[y : y + swatch, x : x + swatch] = colour
        cv2.putText(result, name, (x + swatch + gap, y + swatch - 1), *font[:2], (0, 0, 0), font[2], cv2.LINE_AA)
    return result


@HOOKS.register_module()
class DrawPredictionsHook(Hook):
    """In testing, draws every picture with ground truth on the left and predictions on the right.

    Args:
        out_dir: folder of the drawings, one per picture, and of ``sheet.png`` with the first ``sheet`` of them.
        score_thr: detections below it are not drawn. Default: 0.3.
        sheet: how many drawings the sheet shows. Default: 12.
    """

    def __init__(self, out_dir: str, score_thr: float = 0.3, sheet: int = 12) -> None:
        self.out_dir = Path(out_dir)
        self.score_thr = score_thr
        self.sheet = sheet
        self.drawings: list[Path] = []

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        for sample in outputs:
            out_file = self.out_dir / Path(sample.img_path).with_suffix('.png').name
            draw_prediction(runner.visualizer, sample.cpu(), str(out_file), self.score_thr, beside_truth=True)
            self.drawings.append(out_file)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if runner.rank == 0 and self.drawings:
            write_sheet(self.drawings[: self.sheet], self.out_dir / 'sheet.png')


def write_sheet(drawings: Sequence[Path], out_file: Path, columns: int = 3, width: int = 640) -> None:
    """One picture of many: scaled to ``width`` pixels each, ``columns`` in a row."""
    tiles = [cv2.imread(str(path)) for path in drawings]
    tiles = [cv2.resize(tile, (width, round(tile.shape[0] * width / tile.shape[1]))) for tile in tiles]
    height = max(tile.shape[0] for tile in tiles)
    sheet = np.full((-(-len(tiles) // columns) * (height + 8), columns * (width + 8), 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * (height + 8) + 4, number % columns * (width + 8) + 4
        sheet[top : top + len(tile), left : left + width] = tile
    write_atomically(out_file, cv2.imencode('.png', sheet)[1].tobytes())
