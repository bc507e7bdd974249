"""How a training computes on the machine at hand: precision, images at once, workers; and each decision's reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.config import Config

from ...cpus import cpus_per_process
from ...devices import cpu_computes_bfloat16
from ...engine.device_memory import Card, half_precision_of
from ...engine.mixed_precision import compute_in_float32, is_mixed, mix_precision, mix_precision_on_cpu, precision_of
from ..layouts.annotated_data import OwnData
from .gpu_batch import measure_images_at_once
from .recipe import LEAST_BATCH, Recipe

MAX_WORKERS = 8
"""Processes that read and resize images for one GPU, at most: each gives about 100 images of 640x480 per second, and
more of them only take memory."""


@dataclass(frozen=True)
class Computing:
    """What was decided for the device, as sentences for people; what is empty is as the config has it.

    Attributes:
        device: which GPUs.
        precision: in which numbers the model computes, and why.
        memory: how many images go through the model at once, and why.
        workers: how many processes prepare images, and why.
    """

    device: str = ''
    precision: str = ''
    memory: str = ''
    workers: str = ''


def use_cpus(cfg: Config, mixed: bool | None = None, workers: int | None = None) -> Computing:
    """Set a config to CPUs, after its data and schedule.

    Args:
        cfg: it is changed.
        mixed: whether to compute in mixed precision. Default: where the CPU computes in bfloat16 by itself.
        workers: processes that prepare images. Default: the config's.
    """
    if workers is not None:
        use_workers(cfg, workers)
    if mixed is False or not cpu_computes_bfloat16():
        return Computing()
    mix_precision_on_cpu(cfg)
    return Computing(
        precision='bfloat16 mixed with float32, which this CPU computes in by itself: faster than float32 (--no-amp)'
    )


def use_gpus(
    cfg: Config,
    data: OwnData,
    recipe: Recipe,
    cards: Sequence[Card],
    mixed: bool | None = None,
    workers: int | None = None,
) -> Computing:
    """Set a config to GPUs, after its data and schedule.

    Args:
        cfg: it is changed.
        data: what it trains on.
        recipe: its batch.
        cards: the GPUs, one for each process.
        mixed: whether to compute in mixed precision. Default: yes.
        workers: processes that prepare images. Default: by the CPUs.

    Raises:
        UserError: the memory is too small.
    """
    device = str(min(cards, key=lambda card: card.free))
    if len(cards) > 1:
        device = f'{len(cards)} GPUs; the fullest: {device}'
    return Computing(
        device,
        _use_precision(cfg, cards, mixed),
        _use_memory(cfg, data, recipe, cards),
        _use_workers(cfg, workers),
    )


def _use_precision(cfg: Config, cards: Sequence[Card], mixed: bool | None) -> str:
    if mixed is False:
        compute_in_float32(cfg)
        return 'float32, as you say'
    if mixed is None and is_mixed(cfg):
        return f'{precision_of(cfg)} mixed with float32, as the config has it'
    half = half_precision_of(cards)
    mix_precision(cfg, half)
    reason = (
        'which this GPU computes in by itself'
        if half == 'bfloat16'
        else 'since this GPU has no bfloat16; the loss is scaled so that small gradients count'
    )
    return f'{half} mixed with float32, {reason}: faster than float32 and about half of its memory (--no-amp)'


def _use_memory(cfg: Config, data: OwnData, recipe: Recipe, cards: Sequence[Card]) -> str:
    least = min(recipe.batch, LEAST_BATCH[recipe.task])
    at_once, measured = measure_images_at_once(cfg, data, recipe.batch, least, cards)
    loop = 'EpochLoop' if recipe.task == 'detection' else 'IterLoop'
    cfg.train_cfg.update(type=f'fasternet_mm.{loop}', images_at_once=at_once, least_images=least)
    if at_once == recipe.batch:
        return measured
    return f'{at_once} images at once, and the gradients of the {recipe.batch} are added up: {measured}'


def _use_workers(cfg: Config, workers: int | None) -> str:
    cpus = cpus_per_process()
    reason = 'as you say'
    if workers is None:
        workers = max(1, min(MAX_WORKERS, cpus - 1))
        cpu_text = f'{cpus} CPUs' if cpus > 1 else 'one CPU'
        reason = f'of {cpu_text} per process; one thread computes beside the GPU'
    use_workers(cfg, workers)
    cfg.train_dataloader.pin_memory = True  # from where a GPU fetches images while it computes
    return f'{workers} {"processes prepare" if workers != 1 else "process prepares"} images, {reason}'


def use_workers(cfg: Config, workers: int) -> None:
    """Let so many processes prepare images for training; with 0 the training does it itself."""
    cfg.train_dataloader.update(num_workers=workers, persistent_workers=workers > 0)
