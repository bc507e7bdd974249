"""How long, how fast and at what size to train on data of one's own; docs/your-own-data.md gives the reasons."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

ENOUGH_IMAGES = 2000
"""The number of images from which on each is seen `EPOCHS` times. Fewer images are seen more often."""

EPOCHS = dict(detection=12, segmentation=40)
"""How often each of many images is seen: detectors as in the 1x schedule."""

MIN_STEPS = 400
"""Steps of the shortest training: in fewer, nothing is learned."""

IMAGES_PER_STEP = 16
"""Images per step of all GPUs together, at most: those of the published recipes, whose learning rates are for them."""

IMAGES_PER_STEP_ON_CPUS = 8
"""The same on CPUs, for detectors whose neck and heads have batch norms, which learn little from fewer images."""

STEPS_PER_EPOCH = 10
"""A step has a tenth of the training images at most: in one of more, the weights would change too seldom."""

MIN_STEPS_ON_GPUS = 1200
"""Steps of the shortest training on GPUs. Their batches are larger, so that as many epochs are fewer steps, and new
heads need a number of steps whatever the batch. With 200 images they are about 100 epochs, Ultralytics' default."""

MAX_WARMUP = 500
"""Steps of the longest warm-up, as in MMDetection's schedules; it is a tenth of the training where that is less."""

SMALL_OBJECT = 32
"""The side of a square, in pixels, below which COCO calls objects small."""

LARGEST = dict(detection=(800, 1333), segmentation=(1024, 2048))
"""Height and width that images are resized to fit into at most: those of COCO's and Cityscapes' usual recipes."""

MUCH_LARGER = 2.0
"""From how many times as large objects tiles are suggested: each tile takes as long as an image without them."""

SMALLEST_TILE = 128
"""Pixels of the shortest side of a tile that is suggested: of less around an object, little says what it is."""

JITTER = dict(detection=(0.8, 1.25), segmentation=(0.5, 2.0))
"""In training, images are resized to fit into the size times a random number between these."""

MOSAIC_JITTER = (0.5, 1.5)
"""In a mosaic, images are resized to fit into the size times a random number between these."""

MOSAIC_IMAGES = 4
"""The fewest images that a mosaic is put together from."""

PLAIN_PART = 0.2
"""The share of a run, at its end, in which images look as they will when the model is used: no mosaic, no color."""

INGREDIENTS = dict(
    color='hue, saturation and brightness vary',
    mosaic='images are put together from parts of four',
    average='evaluated and saved are weights averaged over the last steps',
    balance='images with rare classes are seen more often',
)
"""What training may have beside mirrored and resized images, by the names that ``--without`` takes."""

AVERAGED_PART = 0.1
"""The steps, as a share of the run, over which weights are averaged with falling weight."""

LONGEST_AVERAGE = 5000
"""Steps over which weights are averaged at most: RTMDet's number, for 300 epochs of COCO."""

LONGER_FROM_SCRATCH = dict(detection=1.25, segmentation=1.0)
"""How many times as long a training is whose first weights are random."""

LR_FROM_SCRATCH = 2e-3
"""The least learning rate of detectors from random weights, for `IMAGES_PER_STEP`: those of the configs are for trained
backbones, which must not move far."""

CROP = 512
"""The side, in pixels, of the squares that segmenters are trained on, where images are as large."""

LEAST_BATCH = dict(detection=1, segmentation=2)
"""The fewest images a step: norms of pooled maps in segmenters need two, so two crops are drawn of a single image."""


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run.

    Attributes:
        task: 'detection' or 'segmentation'.
        size: height and width that images are resized to fit into, as they are or turned by a quarter.
        size_reason: why, for people.
        crop: side of the squares that segmenters are trained on.
        batch: images per process and step.
        images_per_step: of all processes.
        epochs: how often each image is seen.
        steps: in all.
        warmup: steps in which the learning rate grows.
        lr: learning rate after the warm-up.
        interval: the epochs (detection) or steps (segmentation) from one evaluation to the next.
        ingredients: what training has of `INGREDIENTS`.
        plain_from: the epoch, counted from 0, from which images are neither mosaics nor vary in color.
        momentum: the share of the newest weights in their average.
    """

    task: str
    size: tuple[int, int]
    size_reason: str
    crop: int
    batch: int
    images_per_step: int
    epochs: int
    steps: int
    warmup: int
    lr: float
    interval: int
    ingredients: tuple[str, ...] = ()
    plain_from: int = 0
    momentum: float = 0.0

    @property
    def interval_text(self) -> str:
        unit = 'epoch' if self.task == 'detection' else 'step'
        return f'{self.interval:,} {unit}s' if self.interval > 1 else unit


def choose_recipe(
    task: str,
    count: int,
    batch: int,
    processes: int,
    lr: float,
    base_batch: int,
    size: tuple[int, int],
    size_reason: str,
    epochs: int | None = None,
    least_steps: int = MIN_STEPS,
    repeated: int = 0,
    from_scratch: bool = False,
    without: Collection[str] = (),
) -> Recipe:
    """The recipe for a data set.

    Args:
        task: 'detection' or 'segmentation'.
        count: the number of images to train on.
        batch: images per process and step that the config has.
        processes: that train together.
        lr: the config's learning rate, for ``base_batch`` images per step in all.
        base_batch: see ``lr``.
        size: height and width that images are resized to fit into; the smaller one becomes the height.
        size_reason: why, for people.
        epochs: how often each image is seen. Default: `EPOCHS`, and more where there are few images.
        least_steps: of a training whose epochs are not given. Default: `MIN_STEPS`.
        repeated: how many images are seen once more in an epoch. Default: none.
        from_scratch: whether the first weights are random. Default: no.
        without: names of `INGREDIENTS` to leave out. Default: none.
    """
    batch = min(batch, max(LEAST_BATCH[task], count // processes))
    together = batch * processes
    in_an_epoch = count + repeated
    steps_per_epoch = math.ceil(in_an_epoch / together)
    if epochs is None:
        usual = EPOCHS[task] * max(1.0, math.sqrt(ENOUGH_IMAGES / count))
        if from_scratch:
            usual *= LONGER_FROM_SCRATCH[task]
        epochs = math.ceil(max(usual, least_steps / steps_per_epoch))
    # Detectors are trained by the epoch, whose last step may have fewer images; segmenters by the step.
    steps = epochs * steps_per_epoch if task == 'detection' else math.ceil(epochs * in_an_epoch / together)
    lr *= math.sqrt(together / base_batch)
    if from_scratch and task == 'detection':
        lr = max(lr, LR_FROM_SCRATCH * math.sqrt(together / IMAGES_PER_STEP))
    height, width = sorted(size)
    return Recipe(
        task=task,
        size=(height, width),
        size_reason=size_reason,
        crop=min(CROP, 32 * math.ceil(height / 32)),
        batch=batch,
        images_per_step=together,
        epochs=epochs,
        steps=steps,
        warmup=min(MAX_WARMUP, steps // 10),
        lr=lr,
        interval=max(1, (epochs if task == 'detection' else steps) // 10),
        ingredients=_ingredients(task, count, repeated, without),
        plain_from=epochs - max(1, round(epochs * PLAIN_PART)),
        momentum=1 / min(LONGEST_AVERAGE, max(2, round(steps * AVERAGED_PART))),
    )


def _ingredients(task: str, count: int, repeated: int, without: Collection[str]) -> tuple[str, ...]:
    fitting = dict(
        color=True,
        mosaic=task == 'detection' and count >= MOSAIC_IMAGES,
        average=True,
        balance=repeated > 0,
    )
    return tuple(name for name in INGREDIENTS if fitting[name] and name not in without)


def choose_batch(task: str, count: int, processes: int, on_gpus: bool) -> tuple[int, str]:
    """Images per process and step, a power of two, and the reason.

    Args:
        task: 'detection' or 'segmentation'.
        count: the number of images to train on.
        processes: that train together.
        on_gpus: whether GPUs compute, else CPUs.
    """
    together, least, reason = IMAGES_PER_STEP, 2, 'as the published recipes have'
    if not on_gpus:
        together, least, reason = IMAGES_PER_STEP_ON_CPUS, 4, 'so that batch norms see enough images'
    while together > least and together * STEPS_PER_EPOCH > count:
        together //= 2
        reason = f'a tenth of the training images, but {least} at least'
    return max(LEAST_BATCH[task], together // processes), reason


def choose_size(
    task: str, sizes: Sequence[tuple[int, int]], object_sides: Sequence[float]
) -> tuple[tuple[int, int], str]:
    """Height and width, the smaller one first, to resize images to, and the reason.

    It is the middle image's size, enlarged until a quarter of the objects at most are small, and within `LARGEST`.

    Args:
        task: 'detection' or 'segmentation'.
        sizes: height and width of each image.
        object_sides: the square root of each object's area.
    """
    height = sorted(map(min, sizes))[len(sizes) // 2]
    width = sorted(map(max, sizes))[len(sizes) // 2]
    largest = LARGEST[task]
    reason = 'the middle size of the images'
    factor = 1.0
    if object_sides:
        quarter = sorted(object_sides)[len(object_sides) // 4]
        if quarter < SMALL_OBJECT:
            factor = SMALL_OBJECT / max(quarter, 1)
            reason = f'enlarged, since a quarter of the objects are below {quarter:.0f} pixels'
    limit = min(largest[0] / height, largest[1] / width)
    if factor > limit:
        factor = limit
        reason += f', within {largest[0]}x{largest[1]}'
    return (round(height * factor), round(width * factor)), reason


def choose_tile(
    task: str, sizes: Sequence[tuple[int, int]], object_sides: Sequence[float], size: tuple[int, int]
) -> tuple[int, float, float] | None:
    """The side of square tiles in which a quarter of the objects at most are small, where in images many more are.

    Args:
        task: 'detection' or 'segmentation'.
        sizes: height and width of each image.
        object_sides: the square root of each object's area.
        size: height and width that images are resized to fit into without tiles.

    Returns:
        The side; that of the objects, a quarter of which are smaller, in images that are resized without tiles; and how
        many times as large they are in tiles. None where tiles do not make them `MUCH_LARGER`.
    """
    if not object_sides or not sizes:
        return None
    quarter = max(sorted(object_sides)[len(object_sides) // 4], 1)
    height, width = sorted(map(min, sizes))[len(sizes) // 2], sorted(map(max, sizes))[len(sizes) // 2]
    factor = min(min(size) / height, max(size) / width)
    shown = min(LARGEST[task])
    side = max(SMALLEST_TILE, 32 * round(shown * min(1, quarter / SMALL_OBJECT) / 32))
    larger = min(shown / side, max(1, SMALL_OBJECT / quarter)) / factor if side < height else 0
    return (side, quarter * factor, larger) if quarter * factor < SMALL_OBJECT and larger >= MUCH_LARGER else None
