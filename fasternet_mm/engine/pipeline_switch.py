"""Another pipeline for the last part of a training."""

from __future__ import annotations

from mmdet.engine.hooks import PipelineSwitchHook as MMDetectionPipelineSwitchHook
from mmengine.dataset import Compose
from mmengine.runner import Runner

from ..registry import HOOKS


@HOOKS.register_module()
class PipelineSwitchHook(MMDetectionPipelineSwitchHook):
    """MMDetection's hook, with the same arguments, for a data set in wrappers too, such as ``ClassBalancedDataset``.

    MMDetection's gives the pipeline to the wrapper, which does not read images, so that nothing would change.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        if runner.epoch < self.switch_epoch or self._has_switched:
            return
        runner.logger.info('From now on the images are as they will be when the model is used.')
        dataset = runner.train_dataloader.dataset
        while hasattr(dataset, 'dataset'):
            dataset = dataset.dataset
        dataset.pipeline = Compose(self.switch_pipeline)
        # Workers that live on have copies of the data set: the loader starts others where it has no iterator.
        runner.train_dataloader._iterator = None
        self._has_switched = True
