"""Which candidates of a detector are objects, background or neither, and which are learned from, for a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.models.task_modules import BboxOverlaps2D, MaxIoUAssigner, PseudoSampler, RandomSampler
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from ..ignoring_assigner import IgnoringAssigner

LARGEST_OVERLAPS = 2**24
"""Pairs of an object and a candidate whose IoU is computed at a time; each of several intermediate results takes 64 MB,
or 128 MB where it has both axes. That is an image of 62 objects at 800x1344; one of more objects is not divided."""


class PaddedBoxes(NamedTuple):
    """Boxes of several images: ``boxes`` ``(B, N, 4)``, xyxy, and which are no padding: ``valid``, bool ``(B, N)``."""

    boxes: Tensor
    valid: Tensor


def pad_boxes(boxes: Sequence[Tensor]) -> PaddedBoxes:
    """Put boxes ``(n, 4)`` of each image into one tensor; N is at least 1."""
    counts = np.array([len(of_image) for of_image in boxes])
    column = np.arange(max(1, counts.max()))
    valid = column < counts[:, None]
    places = np.where(valid, (counts.cumsum() - counts)[:, None] + column, counts.sum())
    device = boxes[0].device
    places = torch.from_numpy(places).to(device, non_blocking=True)
    padded = torch.cat([*boxes, boxes[0].new_zeros(1, 4)])[places]
    return PaddedBoxes(padded, torch.from_numpy(valid).to(device, non_blocking=True))


def pad_regions(ignored: Sequence[InstanceData | None] | None) -> PaddedBoxes | None:
    """Ignored regions of each image, which may have None; None where no image has any."""
    given = [of_image for of_image in ignored or () if of_image is not None]
    if not given:
        return None
    none = get_box_tensor(given[0].bboxes)[:0]
    return pad_boxes([none if of_image is None else get_box_tensor(of_image.bboxes) for of_image in ignored])


def can_assign(assigner: Any) -> bool:
    """Whether `assign` does what an assigner does."""
    return (
        type(assigner) in (MaxIoUAssigner, IgnoringAssigner)
        and type(assigner.iou_calculator) is BboxOverlaps2D
        and assigner.iou_calculator.dtype is None
        and assigner.gt_max_assign_all
        and assigner.ignore_wrt_candidates
        and assigner.perm_repeat_gt_cfg is None
        and assigner.gpu_assign_thr < 0
        and isinstance(assigner.neg_iou_thr, (float, tuple))
    )


def assign(
    assigner: MaxIoUAssigner, candidates: PaddedBoxes, objects: PaddedBoxes, regions: PaddedBoxes | None
) -> Tensor:
    """What `MaxIoUAssigner` and `IgnoringAssigner` assign.

    Args:
        assigner: one that `can_assign` accepts.
        candidates: ``(B, N, 4)``.
        objects: ``(B, G, 4)``.
        regions: ``(B, R, 4)``, ignored. None: there are none in the batch.

    Returns:
        long ``(B, N)``: the object's number from 1, 0 for background, -1 for neither and for padding.
    """
    images, most = objects.valid.shape
    together = max(1, LARGEST_OVERLAPS // (most * candidates.valid.shape[1]))
    if together >= images:
        return _assign(assigner, candidates, objects, regions)
    parts = []
    for first in range(0, images, together):
        part = slice(first, first + together)
        of_part = (None if boxes is None else _cut(boxes, part) for boxes in (candidates, objects, regions))
        parts.append(_assign(assigner, *of_part))
    return torch.cat(parts)


def _cut(boxes: PaddedBoxes, images: slice) -> PaddedBoxes:
    return PaddedBoxes(boxes.boxes[images], boxes.valid[images])


def _assign(
    assigner: MaxIoUAssigner, candidates: PaddedBoxes, objects: PaddedBoxes, regions: PaddedBoxes | None
) -> Tensor:
    overlaps = bbox_overlaps(objects.boxes, candidates.boxes).masked_fill(~objects.valid[..., None], -1)
    ignored = None
    spares_regions = type(assigner) is IgnoringAssigner
    if regions is not None and (assigner.ignore_iof_thr > 0 or (spares_regions and assigner.ignore_iof_thr == 0)):
        covered = bbox_overlaps(candidates.boxes, regions.boxes, mode='iof').masked_fill(~regions.valid[:, None], -1)
        ignored = covered.amax(dim=2) > assigner.ignore_iof_thr
        if not spares_regions:
            overlaps = overlaps.masked_fill(ignored[:, None], -1)
    best, number = overlaps.max(dim=1)
    low, high = assigner.neg_iou_thr if isinstance(assigner.neg_iou_thr, tuple) else (0, assigner.neg_iou_thr)
    assigned = torch.full_like(number, -1).masked_fill((best >= low) & (best < high), 0)
    assigned = torch.where(best >= assigner.pos_iou_thr, number + 1, assigned)
    if assigner.match_low_quality:
        best = overlaps.masked_fill(~candidates.valid[:, None], -1).amax(dim=2, keepdim=True)
        nearest = (overlaps == best) & (best >= assigner.min_pos_iou) & objects.valid[..., None]
        numbers = torch.arange(1, overlaps.shape[1] + 1, device=nearest.device)
        nearest = (nearest * numbers[:, None]).amax(dim=1)  # of several objects the last one, as in MMDetection
        assigned = torch.where(nearest > 0, nearest, assigned)
    assigned = assigned.masked_fill(~objects.valid.any(dim=1, keepdim=True), 0)
    if ignored is not None and spares_regions:
        assigned = assigned.masked_fill(ignored & (assigned == 0), -1)
    return assigned.masked_fill(~candidates.valid, -1)


class Drawn(NamedTuple):
    """Candidates of each image, of which some are none: ``places`` long ``(B, K)``, and ``valid`` bool ``(B, K)``."""

    places: Tensor
    valid: Tensor

    @property
    def counts(self) -> Tensor:
        """How many there are, ``(B,)``."""
        return self.valid.sum(dim=1)


def draw_samples(sampler: RandomSampler | PseudoSampler, assigned: Tensor) -> tuple[Drawn, Drawn]:
    """Which candidates a sampler draws of each image: objects, and background. K is the same for every batch.

    Args:
        sampler: `RandomSampler` itself, or `PseudoSampler`, which takes all.
        assigned: long ``(B, N)``: the object's number from 1, 0 for background, -1 for what is not sampled.
    """
    if type(sampler) is PseudoSampler:
        places = torch.arange(assigned.shape[1], device=assigned.device).expand_as(assigned)
        return Drawn(places, assigned > 0), Drawn(places, assigned == 0)
    most = int(sampler.num * sampler.pos_fraction)
    positive = _draw(assigned > 0, most, most)
    count = positive.counts[:, None]
    limit = sampler.num - count
    if sampler.neg_pos_ub >= 0:
        limit = torch.minimum(limit, (sampler.neg_pos_ub * count.clamp(min=1)).long())
    return positive, _draw(assigned == 0, limit, sampler.num)


def sample(sampler: RandomSampler, assigned: Tensor) -> tuple[Tensor, Tensor]:
    """`draw_samples`, as two bool ``(B, N)``."""
    positive, negative = (
        torch.zeros_like(assigned, dtype=torch.bool).scatter(1, drawn.places, drawn.valid)
        for drawn in draw_samples(sampler, assigned)
    )
    return positive, negative


def _draw(candidates: Tensor, limit: Tensor | int, most: int) -> Drawn:
    """Up to ``limit`` candidates of each image, all equally probable: the ones with the largest random numbers."""
    keys = torch.rand(candidates.shape, device=candidates.device).masked_fill(~candidates, -1)
    largest, places = keys.topk(min(most, keys.shape[1]), dim=1)
    rank = torch.arange(largest.shape[1], device=keys.device)
    return Drawn(places, (largest >= 0) & (rank < limit))
