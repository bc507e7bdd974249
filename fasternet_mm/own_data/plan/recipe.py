"""How long, how fast and at what size to train on data of one's own; docs/your-own-data.md gives the reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .image_descriptions import ImageDescription

ENOUGH_IMAGES = 2000
"""From so many on, an image is seen `EPOCHS` times; below, more often the fewer there are."""

EPOCHS = dict(detection=12, segmentation=40)

MIN_STEPS = 400

MAX_WARMUP = 500

SMALL_OBJECT = 32
"""Pixels: COCO calls objects of less than 32x32 small."""

LARGEST = dict(detection=(1333, 800), segmentation=(2048, 1024))
"""The longer and the shorter side that images are not enlarged or kept beyond."""

JITTER = dict(detection=(0.8, 1.25), segmentation=(0.5, 2.0))
"""In training, images are resized to fit into the scale times a random number between these."""

CROP = 512

LEAST_BATCH = dict(detection=1, segmentation=2)
"""The norms of pooled maps in segmenters need two images; of a single one, two crops are drawn."""


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run.

    Attributes:
        task: 'detection' or 'segmentation'.
        scale: longer and shorter side that images are resized to fit into.
        scale_reason: why, for people.
        crop: side of the squares that segmenters are trained on.
        batch: images per process and step.
        images_per_step: of all processes.
        epochs: how often each image is seen.
        steps: in all.
        warmup: steps in which the learning rate grows.
        lr: learning rate after the warm-up.
        interval: evaluations are so many epochs (detection) or steps (segmentation) apart.
    """

    task: str
    scale: tuple[int, int]
    scale_reason: str
    crop: int
    batch: int
    images_per_step: int
    epochs: int
    steps: int
    warmup: int
    lr: float
    interval: int

    @property
    def interval_text(self) -> str:
        unit = 'epoch' if self.task == 'detection' else 'step'
        return f'{self.interval:,} {unit}s' if self.interval > 1 else unit


def choose_recipe(
    task: str,
    images: Sequence[ImageDescription],
    batch: int,
    processes: int,
    lr: float,
    base_batch: int,
    scale: tuple[int, int] | None = None,
    epochs: int | None = None,
    scale_reason: str = 'as you say',
) -> Recipe:
    """The recipe for a data set.

    Args:
        task: 'detection' or 'segmentation'.
        images: those to train on.
        batch: images per process and step that the config has.
        processes: that train together.
        lr: the config's learning rate, for ``base_batch`` images per step in all.
        base_batch: see ``lr``.
        scale: two sides to resize images to. Default: `choose_scale`.
        epochs: how often each image is seen. Default: `EPOCHS`, and more where there are few images.
        scale_reason: of ``scale``, for people.
    """
    count = len(images)
    batch = min(batch, max(LEAST_BATCH[task], count // processes))
    together = batch * processes
    steps_per_epoch = math.ceil(count / together)
    if epochs is None:
        usual = EPOCHS[task] * max(1.0, math.sqrt(ENOUGH_IMAGES / count))
        epochs = math.ceil(max(usual, MIN_STEPS / steps_per_epoch))
    # Detectors are trained by the epoch, whose last step may have fewer images; segmenters by the step.
    steps = epochs * steps_per_epoch if task == 'detection' else math.ceil(epochs * count / together)
    if scale:
        scale, reason = (max(scale), min(scale)), scale_reason
    else:
        scale, reason = choose_scale(task, images)
    return Recipe(
        task=task,
        scale=scale,
        scale_reason=reason,
        crop=min(CROP, 32 * math.ceil(scale[1] / 32)),
        batch=batch,
        images_per_step=together,
        epochs=epochs,
        steps=steps,
        warmup=min(MAX_WARMUP, steps // 10),
        lr=lr * math.sqrt(together / base_batch),
        interval=max(1, (epochs if task == 'detection' else steps) // 10),
    )


def choose_scale(task: str, images: Sequence[ImageDescription]) -> tuple[tuple[int, int], str]:
    """Longer and shorter side to resize images to, and the reason.

    It is the middle image's size, enlarged until a quarter of the objects at most are small, and within `LARGEST`.
    """
    longer, shorter = (sorted(side(one.size) for one in images)[len(images) // 2] for side in (max, min))
    object_sides = sorted(side for one in images for side in one.sides)
    largest = LARGEST[task]
    reason = 'the middle size of the images'
    factor = 1.0
    if object_sides:
        quarter = object_sides[len(object_sides) // 4]
        if quarter < SMALL_OBJECT:
            factor = SMALL_OBJECT / max(quarter, 1)
            reason = f'enlarged, since a quarter of the objects are below {quarter:.0f} pixels'
    limit = min(largest[0] / longer, largest[1] / shorter)
    if factor > limit:
        factor = limit
        reason += f', within {largest[0]}x{largest[1]}'
    return (round(longer * factor), round(shorter * factor)), reason
