"""Drawings of the samples of MMDetection's and MMSegmentation's data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData

from ..datasets.image_files import names_of_images
from ..datasets.image_reading import read_image
from ..files import mark_output
from ..registry import HOOKS
from .drawing import draw_labels, draw_objects, object_text, with_legend, write_drawing, write_sheet
from .encoded_masks import EncodedMasks
from .palette import Color, palette_of


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


def draw_truth(sample: BaseDataElement, meta: Mapping[str, Any]) -> np.ndarray:
    """The image of a sample with its ground truth, RGB; label maps get a legend.

    Args:
        sample: MMDetection's or MMSegmentation's, with ``img_path`` and ground truth.
        meta: the data set's, with ``classes``.
    """
    annotations = [sample.gt_sem_seg if 'gt_sem_seg' in sample else sample.gt_instances]
    return _draw_side_by_side(sample.img_path, annotations, meta)


def draw_beside_truth(sample: BaseDataElement, meta: Mapping[str, Any], score_thr: float) -> np.ndarray:
    """The image of a tested sample twice, RGB: with the ground truth, and with the prediction.

    Args:
        sample: MMDetection's or MMSegmentation's, on the CPU, with ``img_path``, ground truth and predictions.
        meta: the data set's, with ``classes``.
        score_thr: detections below it are not drawn.
    """
    if 'pred_sem_seg' in sample:
        return _draw_side_by_side(sample.img_path, [sample.gt_sem_seg, sample.pred_sem_seg], meta)
    detections = sample.pred_instances[sample.pred_instances.scores >= score_thr]
    return _draw_side_by_side(sample.img_path, [sample.gt_instances, detections], meta)


def _draw_side_by_side(path: str, annotations: Sequence[BaseDataElement], meta: Mapping[str, Any]) -> np.ndarray:
    """An image once for each of the label maps, with a legend, or for each of the sets of instances."""
    image, classes, palette = read_image(path)[..., ::-1], meta['classes'], palette_of(meta)
    if isinstance(annotations[0], InstanceData):
        return np.concatenate([_draw_instances(image, part, classes, palette) for part in annotations], axis=1)
    label_maps = [pixels.data[0].numpy() for pixels in annotations]
    drawing = np.concatenate([draw_labels(image, label_map, palette) for label_map in label_maps], axis=1)
    return with_legend(drawing, label_maps, classes)


def _draw_instances(
    image: np.ndarray, instances: BaseDataElement, classes: Sequence[str], palette: Sequence[Color]
) -> np.ndarray:
    boxes, masks = instances.bboxes, instances.get('masks')
    boxes = getattr(boxes, 'tensor', boxes).numpy()  # MMDetection has classes of boxes that hold a tensor
    if masks is not None:
        if isinstance(masks, list):  # of an image that was predicted in tiles
            masks = EncodedMasks(masks, image.shape[:2])
        else:
            masks = masks.to_ndarray().astype(bool) if hasattr(masks, 'to_ndarray') else masks.numpy()
    labels = instances.labels.tolist()
    scores = instances.scores.tolist() if 'scores' in instances else [None] * len(labels)
    texts = [object_text(classes[label], score) for label, score in zip(labels, scores)]
    return draw_objects(image, boxes, [palette[label] for label in labels], texts, masks)
