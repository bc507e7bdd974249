"""Steps of a training and of its evaluations, tried on copies before it begins, so that neither learns from them."""

from __future__ import annotations

import copy
import gc
import io
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from statistics import median
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DATASETS, init_default_scope
from torch import nn

from ...engine.memory_layout import lay_out
from ...engine.optimizer import in_few_operators
from ...engine.runner import build_model
from ...models.backbone import FasterNet

WARM_UP_STEPS = 2
"""Steps whose time does not count: memory is given out, the optimizer makes its moments, cuDNN looks for kernels."""

TIMED_STEPS = 3
"""Steps whose median counts."""

LONG_ENOUGH = 10.0
"""Seconds after which no other step is tried, but for a second one: on a CPU large models take as long for one."""

CACHED_IMAGES = 5
"""Images that are read first: a cached mosaic is made from its fifth image on."""


@contextmanager
def untouched_chance() -> Iterator[None]:
    """Random numbers after it are those that would have come without what is drawn within it."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def build_trial(cfg: Config, device: torch.device) -> tuple[nn.Module, OptimWrapper]:
    """A model as the config trains it, with random weights, and its optimizer."""
    hub = MessageHub.get_current_instance()
    for progress in ('epoch', 'iter'):  # which TOOD's head and YOLOX's preprocessor ask for
        hub.update_info(progress, 0)
    model = build_model(cfg).to(device).train()
    return model, build_optim_wrapper(model, in_few_operators(cfg.optim_wrapper, model))


def build_dataset(settings: ConfigDict, scope: str) -> BaseDataset:
    """The data set of a loader, silently: pycocotools would tell of each of its own steps."""
    init_default_scope(scope)
    with redirect_stdout(io.StringIO()):
        return DATASETS.build(copy.deepcopy(settings))


def train_step_seconds(cfg: Config, dataset: BaseDataset, device: torch.device, at_once: int) -> tuple[float, float]:
    """The time of a training step, and that of reading an image for it.

    Args:
        cfg: of the training; its model, optimizer and precision count.
        dataset: what it trains on.
        device: where it computes.
        at_once: images that go through the model together.
    """
    images, reading = _read(dataset, at_once)
    batch = pseudo_collate(images)
    model, wrapper = build_trial(cfg, device)
    if isinstance(model.backbone, FasterNet):
        lay_out(model.backbone)
    return _seconds(lambda: model.train_step(batch, optim_wrapper=wrapper), device), reading


def evaluation_seconds(cfg: Config, dataset: BaseDataset, device: torch.device, at_once: int) -> tuple[float, float]:
    """The time of finding what is in ``at_once`` images, and that of reading one of them; arguments as above."""
    quiet = copy.deepcopy(cfg)
    # Random weights find something everywhere; a trained model's candidates are few.
    _let_nothing_pass(quiet.model.get('test_cfg'))
    images, reading = _read(dataset, at_once)
    batch = pseudo_collate(images)
    model = build_model(quiet).to(device).eval()

    def step() -> None:
        with torch.no_grad():
            model.test_step(batch)

    return _seconds(step, device), reading


def release_memory() -> None:
    """Give back what trials took of a GPU."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def _let_nothing_pass(settings: Any) -> None:
    if isinstance(settings, dict):
        if 'score_thr' in settings:
            settings['score_thr'] = 1.0
        for part in settings.values():
            _let_nothing_pass(part)


def _read(dataset: BaseDataset, count: int) -> tuple[list[dict[str, Any]], float]:
    """Images in an order of chance, from the first again where they are too few, and the median time to read one."""
    order = np.random.default_rng(0).permutation(len(dataset))
    images, seconds = [], []
    for number in range(CACHED_IMAGES + count):
        start = time.perf_counter()
        images.append(dataset[int(order[number % len(order)])])
        seconds.append(time.perf_counter() - start)
    return images[CACHED_IMAGES:], median(seconds[CACHED_IMAGES:])


def _seconds(step: Callable[[], Any], device: torch.device) -> float:
    """The median time of some steps; of the second one where a step takes long."""
    seconds: list[float] = []
    while len(seconds) < WARM_UP_STEPS + TIMED_STEPS and (len(seconds) < 2 or sum(seconds) < LONG_ENOUGH):
        start = time.perf_counter()
        step()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return median(seconds[WARM_UP_STEPS:] or seconds[-1:])
