"""Predicted label maps as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..datasets.image_files import names_of_images
from ..files import mark_output, write_atomically
from ..registry import HOOKS


@HOOKS.register_module()
class WriteLabelMapsHook(Hook):
    """In testing, writes the label map that is predicted for each image.

    MMSegmentation's ``IoUMetric(output_dir=…)`` takes a file's name from the image's, so that the 0001.jpg of a second
    camera overwrites the first one's. Here it comes from the image's path below the folder that all images share. As
    there, the first class is 0, or 1 with ``reduce_zero_label``.

    Args:
        out_dir: folder of the PNG files of 8 bits.
    """

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)
        self.names: dict[str, str] = {}

    def before_test(self, runner: Runner) -> None:
        mark_output(self.out_dir)

    def before_test_epoch(self, runner: Runner) -> None:
        self.names = names_of_images(runner.test_dataloader.dataset)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        for sample in outputs:
            labels = sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)
            if sample.get('reduce_zero_label', False):
                labels = labels + np.uint8(1)
            content = cv2.imencode('.png', labels)[1].tobytes()
            write_atomically(self.out_dir / f'{self.names[sample.img_path]}.png', content)
