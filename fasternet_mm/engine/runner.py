"""From a config to a checked, ready MMEngine runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import broadcast, get_rank, master_only
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.model.weight_init import PretrainedInit
from mmengine.optim import OptimWrapperDict
from mmengine.registry import MODEL_WRAPPERS, MODELS, init_default_scope
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.visualization import (
    ClearMLVisBackend,
    MLflowVisBackend,
    TensorboardVisBackend,
    WandbVisBackend,
)
from mmengine.visualization import LocalVisBackend as MMEngineLocalVisBackend
from torch import nn
from torch.utils.data import DataLoader

from ..cpus import cpus_per_process
from ..datasets.checks import check_data, classes_of, learns_masks
from ..devices import device_of_choice
from ..errors import UserError
from ..files import appearing, check_writable, mark_output
from ..models.backbone import FasterNet, InvalidArgument
from ..signals import EndingSignals, end_with_parent, ignore_signals_of_the_group
from ..weights.classes import check_classes
from ..weights.loading import fit_weights
from ..weights.pretrained import StrictPretrainedInit, has_fasternet, strict_loading
from ..weights.seal import seal
from ..weights.sources import read_checkpoint
from ..weights.training_state import check_training_state
from .bad_samples import watched
from .finite_steps import refuse_not_finite
from .initialization import initializers, leave_out_pretrained
from .loader_processes import end_loading, explaining_dead_loaders
from .log_files import survive_full_disk
from .loggers import leave_out_loggers
from .mixed_precision import forget_unused_scaler
from .optimizer import in_few_operators, keep_implementation
from .processes import from_rank_0, start_processes
from .resumed_settings import keep_settings, refuse_other_steps
from .terminal import shorten
from .tracker_backends import tracked
from .training_step import check_training_step

OWN_CLASSES = {
    MMEngineCheckpointHook: 'CheckpointHook',
    MMEngineLocalVisBackend: 'LocalVisBackend',
    TensorboardVisBackend: 'TensorboardVisBackend',
    WandbVisBackend: 'WandbVisBackend',
    MLflowVisBackend: 'MLflowVisBackend',
    ClearMLVisBackend: 'ClearMLVisBackend',
    EpochBasedTrainLoop: 'EpochLoop',
    IterBasedTrainLoop: 'IterLoop',
}
"""What stands in the place of MMEngine's classes that a config names."""

RESTART = 'a training on other classes starts with --start CHECKPOINT instead of --resume'
"""What to do where a training cannot be resumed for its classes."""

GO_ON = 'go on with --resume'
"""What to do where a training was ended by what is mended now."""


class StrictRunner(Runner):
    """MMEngine's runner, except that a checkpoint must fit the model (see `load_weights`), and rank 0's is everyone's.

    Weights to start from need to be on rank 0's machine alone; to resume, each process reads the checkpoint.
    ``load_options`` in the config are options of `fit_weights` for ``load_from``; resuming has none. ``compile``, True
    or options of ``torch.compile``, is for the backbone.
    """

    split = 'train'
    """The split whose classes are compared with a checkpoint's."""

    resumed_at = 0
    """The iteration that training went on from."""

    ending_signals = EndingSignals()
    """What `StopSignalsHook` asks for signals; of the training that runs, which has its own."""

    def train(self) -> nn.Module:
        dead_loaders = explaining_dead_loaders('--workers', '--batch', GO_ON)
        with EndingSignals() as self.ending_signals, dead_loaders, tracked(self.visualizer):
            try:
                return super().train()
            finally:
                end_loading([self._train_loop, self._val_loop])

    def test(self) -> dict[str, float]:
        settings = '--cfg-options test_dataloader.num_workers', 'test_dataloader.batch_size'
        with explaining_dead_loaders(*settings, 'test again'):
            try:
                return super().test()
            finally:
                end_loading([self._test_loop])

    def load_checkpoint(self, filename: str, map_location: Any = 'cpu', **_: Any) -> dict[str, Any]:
        # On the CPU, whatever MMEngine asks for: model and optimizer copy from there to where they are.
        checkpoint = read_checkpoint(filename)
        if self.cfg.get('resume'):
            self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        forget_unused_scaler(checkpoint)
        fit = fit_weights(_bare(self.model), checkpoint, filename, **_load_options(self.cfg))
        fit.load()
        if not self.cfg.get('resume'):  # what was taken, by our names: EMAHook reads it
            checkpoint = {**checkpoint, 'state_dict': _bare(self.model).state_dict()}
            self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        if not fit.notes:  # which tell of heads for another number of classes
            check_classes(checkpoint, filename, classes_of(self.cfg, self.split), advice=None)
        self._has_loaded = True
        return checkpoint

    def load_or_resume(self) -> None:
        if self._has_loaded:
            return
        reads = self.rank == 0 or self._resume
        if reads:
            super().load_or_resume()
        if self._resume:
            self.resumed_at = self.iter
        state = _bare(self.model).state_dict()
        for value in state.values():
            broadcast(value)
        if self._load_from and not reads:
            # Hooks take from rank 0's weights what they take from a checkpoint there, such as EMAHook its averages.
            self.call_hook('after_load_checkpoint', checkpoint=dict(meta={}, state_dict=state))
            self._has_loaded = True

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        # MMEngine writes into the file itself, where an interruption would leave half a checkpoint.
        if '://' in str(out_dir) or kwargs.get('backend_args') or kwargs.get('file_client_args'):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        with appearing(Path(out_dir, filename)) as draft:
            super().save_checkpoint(str(draft.parent), draft.name, *args, **kwargs)
            seal(draft)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        survive_full_disk(logger)
        shorten(logger)
        return logger

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict[str, Any], *args: Any, **kwargs: Any) -> DataLoader:
        if isinstance(dataloader, dict):
            # Workers beyond the CPUs only take turns. One stays where there are few, to read while the model computes.
            workers = min(dataloader.get('num_workers', 0), cpus_per_process())
            dataloader = {**dataloader, 'num_workers': workers, 'dataset': watched(dataloader['dataset'])}
            if device_of_choice() == 'cpu':
                dataloader['pin_memory'] = False  # for copies to a GPU; PyTorch warns where there is none
        loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)
        return loader

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        device = device_of_choice()
        shared = any(True for _ in model.parameters())  # an exported file has none that processes would have to share
        if device == 'cuda' and shared:
            return super().wrap_model(model_wrapper_cfg, model)
        # MMEngine would take MPS where there is no CUDA, and SyncBN needs CUDA, even between processes.
        model = revert_sync_batchnorm(model).to(device)
        if not (self.distributed and shared):
            return model
        wrapper = model_wrapper_cfg or dict(broadcast_buffers=False)
        return MODEL_WRAPPERS.build({'type': 'MMDistributedDataParallel', 'module': model, **wrapper})

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        if isinstance(optim_wrapper, dict):
            optim_wrapper = in_few_operators(optim_wrapper, self.model)
        built = super().build_optim_wrapper(optim_wrapper)
        for wrapper in built.values() if isinstance(built, OptimWrapperDict) else [built]:
            keep_implementation(wrapper.optimizer)
            refuse_not_finite(wrapper.optimizer)
        return built

    def _maybe_compile(self, target: str) -> None:
        # MMEngine would compile the whole training step; in a detector's, targets are assigned and boxes sampled one
        # image at a time, which takes the compiler many minutes and gains nothing.
        if self.cfg.get('compile'):
            _bare(self.model).backbone.compile(**_compile_options(self.cfg))

    @strict_loading()
    def _init_model_weights(self) -> None:
        if self._load_from or self.rank > 0:  # pretrained parts would be fetched and read, only to be overwritten
            leave_out_pretrained(_bare(self.model))
        super()._init_model_weights()


def _start_worker(initialize: Callable[[int], None] | None, number: int) -> None:
    """What a process that loads data does first; it may be pickled."""
    ignore_signals_of_the_group()
    end_with_parent()
    if initialize:
        initialize(number)


class EvaluationRunner(StrictRunner):
    """Leaves the work directory the config that it was trained with; the visualizer puts its own beside the log."""

    split = 'test'

    def dump_config(self) -> None:
        pass


@strict_loading()
def build_runner(cfg: Config, splits: Sequence[str], augmented: bool = False) -> Runner:
    """Check everything that can be checked, then build the runner for the ``splits`` ('train', 'val', 'test') used.

    Nothing is written before the checks have passed, except downloads to PyTorch's cache.

    Args:
        cfg: with ``work_dir`` set; ``load_from``, ``load_options`` and ``resume`` say what to start from.
        splits: those that will be used.
        augmented: test on several versions of each image, as ``tta_pipeline`` and ``tta_model`` say. Default: False.

    Raises:
        UserError: the augmentation, data, model, checkpoints or work directory cannot be used.
    """
    start_processes(cfg)
    from_rank_0(partial(check_run, cfg, splits, augmented))  # whose error ends all
    if get_rank() > 0:
        check_run(cfg, splits, augmented)
    _use_own_classes(cfg)
    check_writable(cfg.work_dir)
    mark_output(cfg.work_dir)
    if augmented:
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = {**cfg.tta_model, 'module': cfg.model}
    if 'train' in splits and cfg.get('resume') and cfg.get('load_from'):
        keep_settings(cfg)
    if 'train' not in splits:
        leave_out_loggers(cfg)
    cfg.custom_hooks = _hooks(cfg, splits)
    return (StrictRunner if 'train' in splits else EvaluationRunner).from_cfg(cfg)


def _use_own_classes(cfg: Config) -> None:
    """Let this package's classes do what MMEngine's do, by which less is lost: see each of them.

    Raises:
        UserError: an option needs them, and the config has other ones.
    """
    loop = cfg.get('train_cfg') or {}
    if 'by_epoch' in loop:
        loop['type'] = EpochBasedTrainLoop if loop.pop('by_epoch') else IterBasedTrainLoop
    backends = cfg.get('visualizer', {}).get('vis_backends') or ()
    for part in (loop, cfg.get('default_hooks', {}).get('checkpoint') or {}, *backends):
        for mmengines, own in OWN_CLASSES.items():
            if part.get('type') in (mmengines, mmengines.__name__, f'mmengine.{mmengines.__name__}'):
                part['type'] = f'fasternet_mm.{own}'
    skipping = [option for option in ('on_nan', 'on_bad_sample') if cfg.get(option) == 'skip']
    if skipping and loop and not str(loop['type']).startswith('fasternet_mm.'):
        raise UserError(
            f"{skipping[0]}='skip' is for the training loops of MMEngine, EpochBasedTrainLoop and IterBasedTrainLoop, "
            f'and train_cfg has {loop["type"]}: leave it out, or change the loop'
        )


def _hooks(cfg: Config, splits: Sequence[str]) -> list[dict[str, Any]]:
    """The config's own hooks that are for these splits, and those that every run of this package has."""
    hooks = list(cfg.get('custom_hooks') or [])
    if 'train' not in splits:
        # A checkpoint has the averages as its weights. The hook would exchange them with equal ones, which fails where
        # another model, such as an optimized one, stands in the place of the runner's.
        hooks = [hook for hook in hooks if not str(hook['type']).endswith('EMAHook')]
    if not any('MemoryLayoutHook' in str(hook['type']) for hook in hooks):
        hooks.append(dict(type='fasternet_mm.MemoryLayoutHook'))
    ours = ['ProgressHook', 'PlainCheckpointHook', 'BrokenLogitsHook', 'StopSignalsHook']
    if 'train' in splits and cfg.get('on_bad_sample') == 'skip':
        ours.append('SkippedSamplesHook')
    return [*hooks, *(dict(type=f'fasternet_mm.{name}') for name in ours)]


def check_run(cfg: Config, splits: Sequence[str], augmented: bool = False) -> None:
    """The checks of `build_runner`, which write nothing.

    Raises:
        UserError: the augmentation, data, model or checkpoints cannot be used.
    """
    if augmented and not {'tta_model', 'tta_pipeline'} <= cfg.keys():
        raise UserError(
            '--tta: the config has no tta_model and tta_pipeline: add them, as the segmenters in configs/ do'
        )
    if augmented and cfg.tta_model.type.endswith('DetTTAModel') and learns_masks(cfg):
        raise UserError(
            '--tta: DetTTAModel merges the boxes of several predictions and cannot merge masks, which this config '
            'learns: leave --tta out, or test a detector of boxes'
        )
    check_data(cfg, splits)
    check_checkpoints(cfg, splits)
    if 'train' in splits and cfg.get('compile'):
        check_compiler(_compile_options(cfg))


@strict_loading()
def check_checkpoints(cfg: Config, splits: Sequence[str]) -> None:
    """Build the model, and match what this process would load into it.

    Raises:
        UserError: the model cannot be built, initialized or learn from the run's steps, or a checkpoint cannot be
            had, read or fitted.
    """
    model = build_model(cfg)
    beginnings = list(initializers(model))
    if get_rank() > 0 and not cfg.get('resume'):
        return
    source = cfg.get('load_from')
    if source:
        checkpoint = read_checkpoint(source, mmap=True)
        fit_weights(model, checkpoint, source, **_load_options(cfg))
        if cfg.get('resume'):
            check_training_state(checkpoint, source)
            refuse_other_steps(cfg)
            check_classes(checkpoint, source, classes_of(cfg, 'train'), RESTART)
        elif 'train' not in splits and not _load_options(cfg).get('allow_mismatch'):
            check_classes(checkpoint, source, classes_of(cfg, 'test'))
    elif 'train' in splits:
        for module, initializer in beginnings:
            if isinstance(initializer, PretrainedInit):
                _check_pretrained(module, initializer)
    if 'train' in splits:
        check_training_step(cfg, model)


def _check_pretrained(module: nn.Module, initializer: PretrainedInit) -> None:
    checkpoint = read_checkpoint(initializer.checkpoint, mmap=True)
    if isinstance(initializer, StrictPretrainedInit) and has_fasternet(module):
        fit_weights(module, checkpoint, initializer.checkpoint, **initializer.options)


def _load_options(cfg: Config) -> dict[str, Any]:
    return {} if cfg.get('resume') else dict(cfg.get('load_options', {}))


def check_compiler(options: dict[str, Any]) -> None:
    """Compile a line of code and run it.

    Args:
        options: of ``torch.compile``.

    Raises:
        UserError: that does not work here.
    """
    if not hasattr(nn.Module, 'compile'):
        raise UserError(f'--compile needs PyTorch 2.2 or newer, and this is {torch.__version__}: train without it')
    device = device_of_choice()
    try:
        torch.compile(_line_of_code, **options)(torch.ones(8, device=device))
    except Exception as error:  # by the compiler, the linker, Triton, the operating system, …
        reason = str(error).strip().split('\n')[0]
        needed = 'Triton, which comes with PyTorch on Linux' if device == 'cuda' else 'a C++ compiler, such as g++'
        raise UserError(
            f'torch.compile does not work here ({reason}): it needs {needed}; install that, or train without --compile'
        ) from error


def _line_of_code(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + x


def _compile_options(cfg: Config) -> dict[str, Any]:
    return dict(cfg.compile) if isinstance(cfg.compile, dict) else {}


def _bare(model: nn.Module) -> nn.Module:
    return getattr(model, 'module', model)


@strict_loading()
def build_model(cfg: Config) -> BaseModel:
    """The model of a config, with initial weights not yet set.

    Raises:
        UserError: the config has no ``model``, or one that cannot be built, or whose parts do not fit together.
    """
    if 'model' not in cfg:
        raise UserError('the config has no model: give one of configs/, or one that has them as its _base_')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    try:
        # Here the model is in one process, whatever training will be.
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
    except InvalidArgument as error:
        raise UserError(f"the config's model cannot be built: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError, ImportError, RuntimeError) as error:
        # What MMDetection's and MMSegmentation's constructors raise for a config that they do not accept, or whose
        # package is missing: without timm their TIMMBackbone raises a RuntimeError.
        reason = f'{type(error).__name__}: {error.args[0] if error.args else "no reason given"}'
        raise UserError(f"the config's model cannot be built ({reason}); --debug shows where") from error
    _check_channels(cfg.model, model)
    return model


def _check_channels(cfg: ConfigDict, model: BaseModel) -> None:
    """Raise `UserError` where OpenMMLab's neck or head is for maps of other channels than a FasterNet's."""
    part = 'neck' if cfg.get('neck') else 'decode_head'
    node, follower, backbone = cfg.get(part), getattr(model, part, None), getattr(model, 'backbone', None)
    expected = node.get('in_channels') if isinstance(node, dict) else None
    if not isinstance(backbone, FasterNet) or not isinstance(expected, (list, tuple)):
        return
    if type(follower).__module__.partition('.')[0] not in ('mmdet', 'mmseg'):
        return  # others' may take a part of the maps
    given = [backbone.channels[i] for i in backbone.out_indices]
    given = [given[i] for i in node.get('in_index', range(len(given))) if i < len(given)]
    if [*expected] != given:
        raise UserError(
            f'model.{part}.in_channels={[*expected]}, but model.backbone gives maps of {given} channels: set it '
            f'with --cfg-options model.{part}.in_channels={str(given).replace(" ", "")}'
        )
