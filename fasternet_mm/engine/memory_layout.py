"""The memory layout of a backbone's maps in training, which changes its speed and nothing else."""

from __future__ import annotations

import copy
import logging
import time
from statistics import median

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..models import FasterNet
from ..registry import HOOKS

LAYOUTS = {'channels_last': torch.channels_last, 'contiguous': torch.contiguous_format}
"""What may be chosen; the first one where the times are equal."""

WARM_UP_STEPS = 2
"""Steps in which cuDNN looks for its kernels, and memory is given out."""

TIMED_STEPS = 5
"""Steps of each layout, whose median counts."""


@HOOKS.register_module()
class MemoryLayoutHook(Hook):
    """Gives a FasterNet's images in training the layout in which its step is faster; necks and heads follow it.

    On the CPU this is channels_last, as docs/benchmarks.md shows, so that a seed gives the same numbers each time. On
    GPUs it depends on the card, the precision and the sizes of the maps, and is measured in the first step. Other
    backbones, compiled ones and evaluations stay as they are.

    Args:
        layout: 'channels_last' or 'contiguous'. Default: None, the faster one.
    """

    def __init__(self, layout: str | None = None) -> None:
        self.layout = layout

    def before_train(self, runner: Runner) -> None:
        backbone = getattr(getattr(runner.model, 'module', runner.model), 'backbone', None)
        self.handle = None
        if isinstance(backbone, FasterNet) and not runner.cfg.get('compile'):
            self.handle = lay_out(backbone, self.layout)

    def after_train(self, runner: Runner) -> None:
        if self.handle:
            self.handle.remove()


def lay_out(backbone: FasterNet, layout: str | None = None) -> RemovableHandle:
    """Let a backbone's images have a layout in training, as `MemoryLayoutHook` says, until the handle is removed."""
    chosen = [layout] if layout else []

    def arrange(backbone: FasterNet, inputs: tuple[Tensor]) -> Tensor | None:
        (images,) = inputs
        if not backbone.training:
            return None
        if not chosen:
            measured = images.is_cuda and not _waits_for_others(backbone)
            chosen.append(faster_layout(backbone, images) if measured else 'channels_last')
        return images.contiguous(memory_format=LAYOUTS[chosen[0]])

    return backbone.register_forward_pre_hook(arrange)


def faster_layout(backbone: FasterNet, images: Tensor) -> str:
    """The layout in which a training step of a backbone is faster, measured on a copy of it.

    Args:
        backbone: in training mode; it is not changed, nor are random numbers drawn.
        images: ``(N, 3, H, W)``, under the autocast that training has.

    Returns:
        a key of `LAYOUTS`. After an error, such as too little memory for the copy, it is 'channels_last'.
    """
    devices = [images.device] if images.is_cuda else []
    try:
        trial = copy.deepcopy(backbone)
        trial._forward_pre_hooks.clear()
        with torch.random.fork_rng(devices), torch.enable_grad():
            inputs = {name: images.contiguous(memory_format=layout) for name, layout in LAYOUTS.items()}
            for x in inputs.values():
                for _ in range(WARM_UP_STEPS):
                    step_seconds(trial, x)
            turns = [{name: step_seconds(trial, x) for name, x in inputs.items()} for _ in range(TIMED_STEPS)]
    except RuntimeError as error:  # out of memory, above all: training itself tells what to do then
        print_log(f'Memory layouts cannot be compared: {error}', logger='current', level=logging.WARNING)
        return 'channels_last'
    seconds = {name: median(turn[name] for turn in turns) for name in LAYOUTS}
    times = ', '.join(f'{name} {value * 1000:.1f} ms' for name, value in seconds.items())
    print_log(f"Memory layout of the backbone's maps by the time of its training step: {times}", logger='current')
    return min(seconds, key=seconds.get)


def step_seconds(backbone: nn.Module, images: Tensor) -> float:
    """The time of a forward and a backward pass."""
    backbone.zero_grad()
    _wait(images)
    start = time.perf_counter()
    sum(x.float().square().mean() for x in backbone(images)).backward()
    _wait(images)
    return time.perf_counter() - start


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def _waits_for_others(backbone: nn.Module) -> bool:
    """Whether its steps wait for those of other processes."""
    return any(isinstance(module, nn.SyncBatchNorm) for module in backbone.modules())
