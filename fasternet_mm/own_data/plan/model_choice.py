"""Which of the packaged configs data of one's own are trained with, where the user names none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...engine.config import CONFIG, load_config
from ...engine.device_memory import GIB, Card
from ..layouts.annotated_data import DetectionData, OwnData

VARIANTS = 't0', 't1', 't2', 's', 'm', 'l'
"""From the fastest to the most accurate."""

LARGEST = 's'
"""The largest variant of the fast families; those of the accurate ones go on."""

FAST = dict(boxes='rtmdet', masks='rtmdet_ins', pixels='fpn')
"""The family for what is learned; its heads are as fast as FasterNet is."""

ACCURATE = dict(boxes='faster_rcnn', masks='mask_rcnn', pixels='upernet')
"""The family whose heads take several times as long, and of whose detectors weights trained on COCO are published."""

UP_TO_IMAGES = dict(t1=1000, t2=10_000)
"""The most images that a variant is chosen for on a GPU: a larger one learns more from more of them."""

LEAST_MEMORY = dict(t1=4 * GIB, t2=8 * GIB, s=12 * GIB)
"""Bytes of a GPU that are free where a variant is chosen: for 16 images of 640x640 at once, in mixed precision."""


@dataclass(frozen=True)
class ModelChoice:
    """A model.

    Attributes:
        config: the name of a packaged config.
        reason: why it was chosen, for people.
    """

    config: str
    reason: str


def choose_model(data: OwnData, cards: Sequence[Card] = (), tilt: str | None = None) -> ModelChoice:
    """The model for a data set and the device that trains it.

    Args:
        data: as they were read.
        cards: the GPU of each process. Default: training computes on CPUs.
        tilt: 'fast' for the next smaller variant; 'accurate' for the next larger one, and on GPUs for heads that take
            more time. Default: neither.
    """
    task, task_reason = _task(data)
    families, variant, reason = FAST, *_variant(len(data.image_paths['train']), cards)
    if tilt == 'fast':
        smaller = VARIANTS[max(0, VARIANTS.index(variant) - 1)]
        reason = f'{reason}; --fast changes nothing, since there is no faster one'
        if smaller != variant:
            variant, reason = smaller, f'smaller than {variant.upper()}, for --fast'
    elif tilt == 'accurate':
        larger = VARIANTS[VARIANTS.index(variant) + 1]
        reason = f'larger than {variant.upper()}, for --accurate'
        if cards:
            families, larger = ACCURATE, max(larger, LARGEST, key=VARIANTS.index)
            reason += ', with heads that take more time'
        variant = larger
    return ModelChoice(f'{families[task]}_fasternet_{variant}', f'for {task_reason}; {variant.upper()}, {reason}')


def model_of_run(work_dir: Path) -> str | None:
    """The config that an earlier run with data of one's own began with; None where its work directory does not say."""
    if not Path(work_dir, CONFIG).is_file():
        return None
    return load_config(str(Path(work_dir, CONFIG))).get('model_of_run')


def _task(data: OwnData) -> tuple[str, str]:
    """A key of `FAST`, and what is learned, with the reason where it may surprise."""
    if not isinstance(data, DetectionData):
        return 'pixels', 'a class for each pixel'
    if data.with_masks:
        return 'masks', 'boxes and masks'
    objects = [obj for annotations in data.objects.values() for obj in annotations]
    without = sum('segmentation' not in obj for obj in objects)
    if without == len(objects):
        return 'boxes', 'boxes'
    return 'boxes', f'boxes alone, since {without:,} of the {len(objects):,} objects have no mask'


def _variant(count: int, cards: Sequence[Card]) -> tuple[str, str]:
    if not cards:
        return 't0', 'the smallest variant, since a CPU trains it'
    variant = next((name for name, most in UP_TO_IMAGES.items() if count <= most), LARGEST)
    reason = f'for {count:,} images on a GPU'
    free = min(card.free for card in cards)
    fitting = ['t0', *(name for name, least in LEAST_MEMORY.items() if free >= least)]
    if variant not in fitting:
        return fitting[-1], f'the largest variant for {free / GIB:.1f} GiB of memory that are free'
    return variant, reason
