"""MMEngine's loops of training, which go on at the very step where a training was interrupted.

MMEngine begins the epoch anew, or reads all images of the steps behind it once more.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.utils import calc_dynamic_intervals
from torch import nn

from ..registry import HOOKS, LOOPS
from .data_order import base_seed, in_known_order, seed_step
from .finite_steps import NotFinite, SkippedSteps
from .micro_batches import MicroBatches
from .resumed_settings import PROCESSES

VALIDATED = 'last_validation_at'
"""The name under which the message hub has the step after which the last validation was. MMEngine's log would show all
that begins with "val" among the figures."""

BEHIND = 'batches_behind'
"""The name under which the message hub has how many steps of the present epoch are done."""

IMAGES = 'images_to_train_on'
"""The name under which the message hub has how many images the data set has."""

BATCHES = 'batches_in_an_epoch'
"""The name under which the message hub has how many steps an epoch has, by which `BEHIND` counts."""

ANNOTATIONS = 'annotations_to_train_on'
"""The name under which the message hub has a checksum of the data set's annotation files."""

HISTORY = 1000
"""Steps of which the message hub has losses and the like, unless the log's means are over more. MMEngine's million
would be copied at each step and be in each checkpoint."""


@HOOKS.register_module()
class ProgressHook(Hook):
    """Records what a resumed training has to know, and starts each step's random numbers from the step's own number.

    Drop path, dropout and the sampling of boxes then are those of the step, whatever was drawn before it. And it bounds
    what is remembered of the losses.
    """

    priority = 'VERY_HIGH'  # before hooks that draw, and before those that save

    def before_train(self, runner: Runner) -> None:
        self.history = max(HISTORY, _longest_window(runner))
        dataset = runner.train_dataloader.dataset
        recorded, images, annotations = runner.message_hub.runtime_info, len(dataset), _checksum(dataset)
        batches = len(runner.train_dataloader)
        if recorded.get(ANNOTATIONS, annotations) != annotations:
            runner.logger.warning('The annotation files have changed: the training goes on with what they are now.')
        runner.message_hub.update_info(ANNOTATIONS, annotations)
        if recorded.get(IMAGES, images) != images:
            recorded[BEHIND] = 0
            runner.logger.warning(
                f'The data have {images:,} images, and had {recorded[IMAGES]:,}: the epoch begins anew, and the order '
                'of images is another one.'
            )
        elif recorded.get(BEHIND) and recorded.get(BATCHES, batches) != batches:
            recorded[BEHIND] = 0
            runner.logger.warning(
                f'An epoch has {batches:,} steps, and had {recorded[BATCHES]:,}: the one that was interrupted begins '
                'anew.'
            )
        runner.message_hub.update_info(IMAGES, images)
        runner.message_hub.update_info(BATCHES, batches)
        if runner.iter and _gathers_images(dataset):
            runner.logger.info(
                'Images to put together are gathered anew: the first ones differ from those of a training without an '
                'interruption.'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint['meta'][PROCESSES] = get_world_size()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        seed_step(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        runner.message_hub.update_info(BEHIND, batch_idx + 1)
        for history in runner.message_hub.log_scalars.values():
            history.max_length = self.history

    def after_train_epoch(self, runner: Runner) -> None:
        runner.message_hub.update_info(BEHIND, 0)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        runner.message_hub.update_info(VALIDATED, runner.iter)


def _readers(dataset: Any) -> Iterator[Any]:
    """The data sets that read files, out of wrappers."""
    parts = [dataset.dataset] if hasattr(dataset, 'dataset') else getattr(dataset, 'datasets', None)
    if parts is None:
        yield dataset
    else:
        for part in parts:
            yield from _readers(part)


def _checksum(dataset: Any) -> int:
    """Of the content of annotation files; that of folders of label maps, which have none, is 0."""
    checksum = 0
    for part in _readers(dataset):
        path = Path(getattr(part, 'ann_file', None) or '')
        if path.is_file():
            with open(path, 'rb') as file:
                for block in iter(partial(file.read, 2**20), b''):
                    checksum = zlib.crc32(block, checksum)
    return checksum


def _gathers_images(dataset: Any) -> bool:
    """Whether a step of the pipeline, such as ``CachedMosaic``, keeps images that it has seen."""
    pipelines = (getattr(part, 'pipeline', None) for part in _readers(dataset))
    return any(hasattr(step, 'results_cache') for pipeline in pipelines for step in getattr(pipeline, 'transforms', ()))


def _longest_window(runner: Runner) -> int:
    """The most steps, of training or of a validation, that a mean of the log is over."""
    epochs = [len(loop.dataloader) for loop in (runner.train_loop, runner.val_loop) if loop is not None]
    lengths = {'epoch': max(epochs), 'global': runner.max_iters, None: runner.max_iters}
    own = [log for log in runner.log_processor.custom_cfg if log['method_name'] != 'current']
    windows = [runner.log_processor.window_size, *(log.get('window_size') for log in own)]
    if runner.val_loop is not None:
        windows.append(len(runner.val_loop.dataloader))  # its time for an image
    return max(lengths.get(window, window) for window in windows)


@LOOPS.register_module()
class EpochLoop(EpochBasedTrainLoop):
    """MMEngine's loop by the epoch, which goes on within an epoch, and does a validation that was interrupted.

    Args:
        runner: see MMEngine.
        dataloader: config of the data loader.
        images_at_once: see `MicroBatches`. Default: a step's images go through the model together.
        least_images: see `MicroBatches`.
        settings: of MMEngine's loop.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: Mapping[str, Any],
        images_at_once: int | None = None,
        least_images: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__(runner, _dataloader(runner, dataloader), **settings)
        self.micro_batches = MicroBatches(images_at_once, least_images) if images_at_once else None
        self.skipped_steps = SkippedSteps(runner)

    def run(self) -> nn.Module:
        self.runner.call_hook('before_train')
        behind = self.runner.message_hub.runtime_info.get(BEHIND, 0)
        if self._epoch and not behind and not self.stop_training:
            self._decide_current_val_interval()
            self._validate()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.dataloader.batch_sampler.begin(self._epoch, behind)
            self.run_epoch(behind)
            behind = 0
            self._decide_current_val_interval()
            self._validate()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self, behind: int = 0) -> None:
        """Train for an epoch, of which some batches lie behind."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for number, batch in enumerate(self.dataloader, behind):
            self.run_iter(number, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Mapping[str, Any]) -> None:
        """Train for a step."""
        _step(self, idx, data_batch)

    def _validate(self) -> None:
        is_last = self._epoch == self._max_epochs
        if self._epoch >= self.val_begin and (self._epoch % self.val_interval == 0 or is_last):
            _validate_once(self.runner)


@LOOPS.register_module()
class IterLoop(IterBasedTrainLoop):
    """MMEngine's loop by the step, which goes on at a step without reading the images of those before.

    Arguments are those of MMEngine's loop, and ``images_at_once`` and ``least_images`` as `EpochLoop` has them.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: Mapping[str, Any],
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
        images_at_once: int | None = None,
        least_images: int = 1,
    ) -> None:
        # MMEngine's constructor would begin to read images before it is known where the training goes on.
        BaseLoop.__init__(self, runner, _dataloader(runner, dataloader))
        self._max_iters, self._max_epochs = max_iters, 1
        self._iter, self._epoch = 0, 0
        self.val_begin, self.val_interval = val_begin, val_interval
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(val_interval, dynamic_intervals)
        self.stop_training = False
        self.micro_batches = MicroBatches(images_at_once, least_images) if images_at_once else None
        self.skipped_steps = SkippedSteps(runner)
        runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)

    def run(self) -> nn.Module:
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        if self._iter and not self.stop_training:
            self._decide_current_val_interval()
            self._validate()
        batches = self._batches()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            self._decide_current_val_interval()
            self._validate()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_iter(self, data_batch: Mapping[str, Any]) -> None:
        """Train for a step."""
        _step(self, self._iter, data_batch)

    def _batches(self) -> Iterator[Mapping[str, Any]]:
        order = self.dataloader.batch_sampler
        epoch = order.begin_at_step(self._iter)
        while True:
            yield from self.dataloader
            epoch += 1
            order.begin(epoch)

    def _validate(self) -> None:
        is_last = self._iter == self._max_iters
        if self._iter >= self.val_begin and (self._iter % self.val_interval == 0 or is_last):
            _validate_once(self.runner)


def _dataloader(runner: Runner, settings: Mapping[str, Any]) -> dict[str, Any]:
    return in_known_order(settings, base_seed(runner), skip_bad=runner.cfg.get('on_bad_sample', 'stop') == 'skip')


def _step(loop: EpochLoop | IterLoop, number: int, batch: Mapping[str, Any]) -> None:
    runner = loop.runner
    runner.call_hook('before_train_iter', batch_idx=number, data_batch=batch)
    loop.skipped_steps.before_step()
    try:
        if loop.micro_batches:
            outputs = loop.micro_batches.step(runner.model, batch, runner.optim_wrapper)
        else:
            outputs = runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
    except NotFinite:
        loop.skipped_steps.skip(batch)
        outputs = {}
    runner.call_hook('after_train_iter', batch_idx=number, data_batch=batch, outputs=outputs)
    loop._iter += 1


def _validate_once(runner: Runner) -> None:
    """Validate, unless the resumed training had done so when it was interrupted."""
    if runner.val_loop is not None and runner.message_hub.runtime_info.get(VALIDATED) != runner.iter:
        runner.val_loop.run()
