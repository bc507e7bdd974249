"""Tests in which images are predicted in tiles, and scored as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn

from ..datasets.checks import dataset_of_test
from ..datasets.image_pipeline import ImagePipeline
from ..registry import HOOKS
from .tiles import OVERLAP, Tiling, predict_tiles

UNTILED = ('LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs', 'PackSegInputs')
"""The steps of a test pipeline that are for the whole image. The others, such as ``Resize``, are for each tile."""


def use_tiles(cfg: Config, **tiling: Any) -> None:
    """Let tests of a config predict each image in tiles.

    Args:
        cfg: it is changed: its data set gives images as they are, and `TilesHook` has the rest of the pipeline.
        tiling: the arguments of ``Predictor`` for tiles.

    Raises:
        UserError: the config's pipeline reads images in a way of its own.
    """
    ImagePipeline(cfg)
    dataset = dataset_of_test(cfg)
    hook = dict(type='fasternet_mm.TilesHook', pipeline=dataset.pipeline, **tiling)
    hook['batch_size'] = cfg.test_dataloader.get('batch_size', 1)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), hook]
    dataset.pipeline = [step for step in dataset.pipeline if str(step['type']).rpartition('.')[2] in UNTILED]


@HOOKS.register_module()
class TilesHook(Hook):
    """In testing, predicts images in tiles; metrics and other hooks see what was put together, in pixels of the image.

    Args:
        pipeline: the test pipeline, of which tiles go through what comes after reading.
        tile, overlap, tile_whole: as of ``Predictor``.
        batch_size: tiles that go through the network together. Default: 1.
    """

    priority = 'LOWEST'  # after the one that exchanges the model for an optimized one, which comes before it in configs

    def __init__(
        self,
        pipeline: Sequence[Mapping[str, Any]],
        tile: tuple[int, int],
        overlap: float = OVERLAP,
        tile_whole: bool = False,
        batch_size: int = 1,
    ) -> None:
        self.pipeline, self.batch_size = pipeline, batch_size
        self.tiling = Tiling(tuple(tile), overlap, tile_whole)

    def before_test_epoch(self, runner: Runner) -> None:
        loader = dict(dataset=dict(pipeline=self.pipeline))
        pipeline = ImagePipeline(Config(dict(default_scope=runner.cfg.get('default_scope'), test_dataloader=loader)))
        runner.model = TiledModel(runner.model, pipeline, self.tiling, self.batch_size)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if isinstance(runner.model, TiledModel):  # else another hook has put back what it had exchanged
            runner.model = runner.model.module


class TiledModel(nn.Module):
    """A model whose ``test_step`` predicts whole images in tiles.

    Args:
        model: MMDetection's or MMSegmentation's.
        pipeline: makes its input of a tile.
        tiling: how images are cut.
        batch_size: tiles that go through the network together.
    """

    def __init__(self, model: nn.Module, pipeline: ImagePipeline, tiling: Tiling, batch_size: int) -> None:
        super().__init__()
        self.module, self.pipeline, self.tiling, self.batch_size = model, pipeline, tiling, batch_size

    def test_step(self, data: Mapping[str, Any]) -> list[BaseDataElement]:
        """The samples of images, uint8 ``(3, H, W)``, BGR, each with the prediction of its image."""
        for pixels, sample in zip(data['inputs'], data['data_samples']):
            image = pixels.permute(1, 2, 0).contiguous().numpy()
            result = predict_tiles(self.module.test_step, self.pipeline, image, self.tiling, self.batch_size)
            for name, predicted in result.items():
                setattr(sample, name, predicted)
        return data['data_samples']
