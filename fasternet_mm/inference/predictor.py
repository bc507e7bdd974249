"""A trained model, applied to picture files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer

from ..data.checks import meta_of_test_set
from ..engine.runner import build_model
from ..errors import UserError
from ..evaluation.coco_results import category_ids
from ..weights.loading import load_weights
from .engines import is_exported
from .optimization import optimize


def picture_reader(cfg: Config) -> Callable[[str], dict[str, Any]]:
    """From a picture file to what the config's test pipeline makes of it.

    It raises `UserError` for a file that is not a picture.
    """
    pipeline = Compose([step for step in cfg.test_dataloader.dataset.pipeline if step.type != 'LoadAnnotations'])

    def read(picture: str) -> dict[str, Any]:
        if mmcv.imread(picture) is None:
            raise UserError(f'{picture} is not a picture that can be read: use JPEG, PNG, BMP, TIFF or WebP')
        return pipeline(dict(img_path=picture, img_id=0))

    return read


class Predictor:
    """Runs a config's model, from a checkpoint, through the config's test pipeline.

    Args:
        cfg: an MMDetection or MMSegmentation config.
        checkpoint: weights of exactly that model: see `local_file`; or an exported file, which brings its own network.
        device: as for PyTorch. Default: CUDA when there is one.
        allow_mismatch: take from the checkpoint what fits. Default: False.
        optimized: run a model of PyTorch as `optimize` makes it. Default: True.
        bf16: compute in bfloat16, not exactly. Default: False.
        trusted: an exported file may be a program: see `open_engine`. Default: False.

    Raises:
        UserError: config and checkpoint do not fit, or one cannot be used.
        ValueError: the device does not compute in bfloat16.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: str,
        device: str | None = None,
        allow_mismatch: bool = False,
        optimized: bool = True,
        bf16: bool = False,
        trusted: bool = False,
    ) -> None:
        self.device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        self.cfg = cfg
        if is_exported(checkpoint):
            from .exported import use_exported  # takes seconds: it brings MMDetection's models

            use_exported(cfg, checkpoint, 'bfloat16' if bf16 else 'float32', trusted)
            self.model = build_model(cfg).to(self.device).eval()
        else:
            self.model = build_model(cfg)
            load_weights(self.model, checkpoint, allow_mismatch=allow_mismatch)
            self.model.to(self.device).eval()
            if optimized:
                self.model = optimize(self.model, torch.bfloat16 if bf16 else None)
        self.read = picture_reader(cfg)
        self.dataset_meta = meta_of_test_set(cfg)
        # As MMSegmentation's data sets colour classes that come without colours.
        colours = np.random.RandomState(42).randint(0, 255, (len(self.dataset_meta['classes']), 3)).tolist()
        self.dataset_meta['palette'] = self.dataset_meta.get('palette') or colours

    @property
    def category_ids(self) -> list[int]:
        """The id of each class: the test annotations' where they are at hand, else COCO's own, else 1, 2, 3, …."""
        return category_ids(self.cfg.test_evaluator.ann_file, self.dataset_meta['classes'])

    def __call__(self, picture: str) -> BaseDataElement:
        """The data sample of one picture file, its predictions in the picture's own pixels.

        Raises:
            UserError: the file is not a picture, or the model cannot take its size.
        """
        data = self.read(picture)
        try:
            with torch.no_grad():
                return self.model.test_step(pseudo_collate([data]))[0].cpu()
        except ValueError as error:
            raise UserError(f'{picture}: {error}') from error

    def visualizer(self) -> Visualizer:
        """The config's visualizer with this model's classes and colours; it writes nowhere by itself."""
        visualizer = VISUALIZERS.build({**self.cfg.visualizer, 'vis_backends': None, 'save_dir': None})
        visualizer.dataset_meta = self.dataset_meta
        return visualizer
