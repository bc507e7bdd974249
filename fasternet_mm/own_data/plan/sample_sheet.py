"""A sheet of sample images with their annotations, for a look before training."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from ...datasets.checks import dataset_of
from ...visualization.drawing import write_drawing, write_sheet
from ...visualization.sample_drawing import draw_truth

SAMPLES = 12
"""The number of images on the sheet, at most."""


def draw_samples(cfg: Config, image_classes: Sequence[set[int]], out_file: Path) -> None:
    """Draw some of the training images with their annotations, as training reads them.

    Args:
        cfg: as `use_own_data` made it.
        image_classes: the classes in each image that it trains on, in the order of its data set.
        out_file: the sheet; the suffix chooses the format.
    """
    init_default_scope(cfg.default_scope)
    pack = dict(type='PackSegInputs' if 'decode_head' in cfg.model else 'PackDetInputs')
    settings = dataset_of(cfg, 'train')
    config = {**settings, 'pipeline': [*settings.pipeline[:2], pack]}
    with redirect_stdout(io.StringIO()):  # pycocotools tells of each step
        dataset = DATASETS.build(config)
    with tempfile.TemporaryDirectory(prefix='fasternet_mm-') as folder:
        drawings = []
        for number in choose_samples(image_classes):
            drawings.append(Path(folder, f'{number}.png'))
            write_drawing(drawings[-1], draw_truth(dataset[number]['data_samples'], dataset.metainfo))
        write_sheet(drawings, out_file)


def choose_samples(image_classes: Sequence[set[int]]) -> list[int]:
    """Numbers of up to `SAMPLES` images: each next one has most of the classes that those before it do not have."""
    order = np.random.default_rng(0).permutation(len(image_classes)).tolist()
    chosen: list[int] = []
    classes: set[int] = set()
    while order and len(chosen) < SAMPLES:
        number = max(order[:1000], key=lambda number: len(image_classes[number] - classes))
        order.remove(number)
        chosen.append(number)
        classes |= image_classes[number]
    return chosen
