"""Whether a segmenter can learn from the steps of a run, tried on PyTorch's meta device, which computes nothing."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.registry import DATASETS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..datasets.checks import dataset_of
from ..devices import device_of_choice
from ..errors import UserError
from ..models.backbone import MIN_INPUT_SIZE, FasterNet

USUAL_SIDE = 512
"""Height and width, in pixels, that are tried where the config neither crops nor pads to a size."""


class _OneValue(Exception):
    """A batch norm gets one value per channel; the message is its name."""


def check_training_step(cfg: Config, model: nn.Module) -> None:
    """Try the smallest step of a training run.

    Args:
        cfg: of the run.
        model: what it trains; its weights are lost. Only segmenters are tried, and those whose heads need no labels.

    Raises:
        UserError: a batch norm would get one value per channel, which has no variance, as after pooling a single image
            to one pixel; or crops are too small for FasterNet.
    """
    if not hasattr(model, 'decode_head'):
        return
    height, width = _training_size(cfg)
    if isinstance(model.backbone, FasterNet) and min(height, width) < MIN_INPUT_SIZE:
        raise UserError(
            f'the config trains on crops of {height}x{width} (H x W), and FasterNet takes {MIN_INPUT_SIZE}x'
            f'{MIN_INPUT_SIZE} or more: set crop_size in the train pipeline and model.data_preprocessor.size to more'
        )
    images, which, remedy = _smallest_step(cfg)
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_refuse_one_value(name))
    try:
        _forward(model.to('meta').train(), torch.empty(images, 3, height, width, device='meta'))
    except _OneValue as error:
        raise UserError(
            f'{which} has {images} image of {height}x{width} (H x W), from which {error}, a batch norm, gets one value '
            f'per channel and cannot learn: {remedy}, or train a model that does not pool to one pixel, such as '
            'configs/fpn_fasternet_s.py'
        ) from None
    except Exception:  # heads that need labels, operators that the meta device lacks: only a run can tell
        return


def _refuse_one_value(name: str) -> Any:
    def hook(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if norm.training and inputs[0].numel() == inputs[0].shape[1]:
            raise _OneValue(name)

    return hook


def _forward(model: nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        maps = model.extract_feat(images)
        for heads in (model.decode_head, getattr(model, 'auxiliary_head', None)):
            for head in heads if isinstance(heads, nn.ModuleList) else [heads] if heads is not None else []:
                head(maps)


def _smallest_step(cfg: Config) -> tuple[int, str, str]:
    """How many images a norm sees in it, a name for the step, and how to give it more images."""
    loader, processes = cfg.train_dataloader, _processes(cfg)
    batch = loader.get('batch_size', 1)
    which = 'a training step of a process' if processes > 1 else 'a training step'
    remedy = 'set train_dataloader.batch_size=2'
    infinite = str(loader.get('sampler', {}).get('type')).endswith('InfiniteSampler')
    if not infinite and not loader.get('drop_last') and batch > 1:
        count = math.ceil(len(DATASETS.build(loader.dataset)) / processes)
        if count % batch:
            batch, which = count % batch, f'the last training step of an epoch ({count} images in steps of {batch})'
            remedy = 'set train_dataloader.drop_last=True'
    if processes > 1 and device_of_choice() == 'cuda' and 'SyncBN' in str(cfg.model):
        batch *= processes
    return batch, which, remedy


def _processes(cfg: Config) -> int:
    started = os.environ.get('WORLD_SIZE') or os.environ.get('SLURM_NTASKS') or 1
    return max(get_world_size(), int(started) if cfg.get('launcher', 'none') != 'none' else 1)


def _training_size(cfg: Config) -> tuple[int, int]:
    """Height and width: of crops, padded to the preprocessor's size."""
    sizes = [(cfg.model.get('data_preprocessor') or {}).get('size')]
    sizes += [step.get('crop_size') for step in dataset_of(cfg, 'train').get('pipeline', ())]
    sides = [(size, size) if isinstance(size, int) else size for size in sizes if size]
    return tuple(map(max, zip(*sides))) if sides else (USUAL_SIDE, USUAL_SIDE)
