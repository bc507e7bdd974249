"""The GPUs that a training computes on, and what is said when their memory does not suffice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object

from ..datasets.checks import dataset_of
from ..devices import device_of_choice, gpu_computes_bfloat16
from ..errors import UserError
from .mixed_precision import precision_of

GIB = 2**30
"""Bytes of a GiB, the unit in which people read the memory of a GPU."""


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        name: as its driver has it.
        free: bytes that no process uses.
        total: bytes in all.
        bfloat16: whether it computes in bfloat16 by itself; older ones only convert.
    """

    name: str
    free: int
    total: int
    bfloat16: bool

    def __str__(self) -> str:
        return f'{self.name}, {self.free / GIB:.1f} of {self.total / GIB:.1f} GiB free'


def card_at_hand() -> Card | None:
    """The GPU that this process computes on; None where it computes on the CPU."""
    if device_of_choice() == 'cpu':
        return None
    free, total = torch.cuda.mem_get_info()
    return Card(torch.cuda.get_device_name(), free, total, gpu_computes_bfloat16())


def cards_of_training() -> list[Card]:
    """The GPU of each process of a training, which all call this together; empty where they compute on CPUs."""
    return [card for card in all_gather_object(card_at_hand()) if card]


def half_precision_of(cards: Sequence[Card]) -> str:
    """Of mixed precision: bfloat16, whose range is float32's, where all cards have it; else float16."""
    return 'bfloat16' if all(card.bfloat16 for card in cards) else 'float16'


def out_of_memory(cfg: Config, images: int) -> UserError:
    """The error after a training step that the memory of this process's GPU did not hold.

    Args:
        cfg: of the training.
        images: those that went through the model at once.
    """
    card = card_at_hand()
    memory = ''
    if card:
        others = max(0, card.total - card.free - torch.cuda.memory_reserved())
        memory = f' ({card.name}: {card.total / GIB:.1f} GiB, {others / GIB:.1f} of them taken by other programs)'
    precision = precision_of(cfg)
    lower = 'add --amp, give a smaller --batch' if precision == 'float32' else 'give a smaller --batch'
    return UserError(
        f"the GPU's memory{memory} does not hold a training step with {images} {'images' if images > 1 else 'image'}"
        f'{_size_text(cfg)} at once in {precision}: {lower} or, with --data, a smaller --size, or add --cfg-options '
        'model.backbone.with_cp=True; add --resume where there is a checkpoint already'
    )


def _size_text(cfg: Config) -> str:
    """The size that the train pipeline resizes images to, where it has one; that of a test where four make a mosaic."""
    steps = dataset_of(cfg, 'train').get('pipeline', [])
    if any('Mosaic' in str(step['type']) for step in steps):
        steps = dataset_of(cfg, 'test').get('pipeline', [])
    scales = [step['scale'] for step in steps if 'scale' in step]
    if scales and isinstance(scales[0], (list, tuple)) and len(scales[0]) == 2:
        width, height = scales[0]
        return f' of {height}x{width} (H x W)'
    return ''
