"""How many images a GPU's memory holds at once, measured by training steps of the largest images."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_world_size

from ...datasets.checks import dataset_of
from ...engine.device_memory import GIB, Card, out_of_memory
from ...engine.processes import alone
from ..layouts.annotated_data import DetectionData, OwnData
from .trial_steps import build_dataset, build_trial, release_memory

ROOM = 0.9
"""The share of the free memory that a measured step may take: other images have more objects and other proposals."""


def measure_images_at_once(cfg: Config, data: OwnData, most: int, least: int, cards: Sequence[Card]) -> tuple[int, str]:
    """The most images that fit into the fullest of the GPUs: ``most``, or a half, a quarter, … of it.

    Args:
        cfg: of the training; its precision counts.
        data: what it trains on.
        most: images per process and step.
        least: the fewest that the model learns from.
        cards: of all processes.

    Returns:
        The number, and for people what was measured.

    Raises:
        UserError: ``least`` images do not fit.
    """
    free = min(card.free for card in cards)
    refused = ''
    images = most
    while True:
        try:
            peak = peak_memory(cfg, data, images)
            needed = f'{peak / GIB:.1f} GiB'
        except torch.cuda.OutOfMemoryError:
            peak, needed = free, 'more than there is'
        if peak <= ROOM * free:
            return images, f'{refused}a step with {images} at once takes {needed} of {free / GIB:.1f} GiB that are free'
        if images <= least:
            raise out_of_memory(cfg, images)
        refused = f'{images} would take {needed}; '
        images = max(least, images // 2)


def peak_memory(cfg: Config, data: OwnData, images: int) -> int:
    """Bytes that PyTorch takes of this process's GPU for training steps with the largest images.

    Raises:
        torch.cuda.OutOfMemoryError: there is not so much memory.
    """
    try:
        torch.cuda.reset_peak_memory_stats()
        with alone():
            parameters = train_briefly(cfg, largest_batch(cfg, data, images), torch.device('cuda'))
        copies = 4 * parameters if get_world_size() > 1 else 0  # DistributedDataParallel's buckets of gradients
        return torch.cuda.max_memory_reserved() + copies
    finally:
        release_memory()


def train_briefly(cfg: Config, batch: dict[str, Any], device: torch.device) -> int:
    """Two steps of a model with random weights, since the optimizer makes its moments in the first.

    Returns:
        The number of parameters.
    """
    model, wrapper = build_trial(cfg, device)
    for _ in range(2):
        model.train_step(batch, optim_wrapper=wrapper)
    return sum(parameter.numel() for parameter in model.parameters())


def largest_batch(cfg: Config, data: OwnData, images: int) -> dict[str, Any]:
    """A batch of the images that need most memory, each at the largest random size.

    It is made by the pipeline of the last part of the training, where there is one: whole images are larger than
    parts of mosaics.
    """
    settings = copy.deepcopy(dataset_of(cfg, 'train'))
    settings.pipeline = next(
        (copy.deepcopy(hook.switch_pipeline) for hook in cfg.get('custom_hooks', []) if 'switch_pipeline' in hook),
        settings.pipeline,
    )
    for step in settings.pipeline:
        if 'ratio_range' in step:
            step.ratio_range = (max(step.ratio_range),) * 2
    dataset = build_dataset(settings, cfg.default_scope)
    order = _most_memory_first(cfg, data)
    return pseudo_collate([dataset[order[number % len(order)]] for number in range(images)])


def _most_memory_first(cfg: Config, data: OwnData) -> list[int]:
    """Numbers of training images: the widest and the highest, to whose sides all are padded, then by objects."""
    if not isinstance(data, DetectionData):  # crops are of one size
        return [*range(len(data.image_paths['train']))]
    content = data.splits['train']
    images = content['images']
    numbers = [*range(len(images))]
    if 'AspectRatioBatchSampler' in str(cfg.train_dataloader.get('batch_sampler')):  # upright ones are never among wide
        wide = [number for number in numbers if images[number]['width'] >= images[number]['height']]
        upright = [*{*numbers} - {*wide}]
        numbers = max(wide, upright, key=len)
    objects = Counter(annotation['image_id'] for annotation in content['annotations'])
    by_shape = sorted(numbers, key=lambda number: images[number]['width'] / images[number]['height'])
    by_objects = sorted(numbers, key=lambda number: -objects[images[number]['id']])
    return [*dict.fromkeys([by_shape[-1], by_shape[0], *by_objects])]
