"""Boxes: non-maximum suppression, and how much they overlap."""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from torch import Tensor

from .kernels import full_precision


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Kept indices, by falling score. With offset 1, x2 and y2 are the last pixels inside a box."""
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # MMCV compares in float32: 0.6 there is slightly more than here, which decides for overlaps of exactly 0.6.
    return torchvision.ops.nms(full_precision(boxes), full_precision(scores), float(np.float32(iou_threshold)))


def _overlaps(box: np.ndarray, boxes: np.ndarray, offset: int) -> np.ndarray:
    """IoU of one box ``(4,)`` with boxes ``(N, 4)``."""
    size = (np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]) + offset).clip(0)
    inter = size.prod(1)
    area = (box[2:] - box[:2] + offset).prod()
    return inter / (area + (boxes[:, 2:] - boxes[:, :2] + offset).prod(1) - inter)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (https://arxiv.org/abs/1704.04503); ``method`` 0 drops, 1 is linear, 2 Gaussian.

    Writes boxes and decayed scores into the first rows of ``dets`` and returns their indices.
    """
    box = full_precision(boxes).numpy()
    score = full_precision(scores).numpy().copy()
    rest = np.arange(len(box))
    kept = []
    while len(rest):
        best = score[rest].argmax()
        chosen = rest[best]
        # The order among equal scores is MMCV's: the chosen box changes places with the first one, and a box that
        # falls below min_score is replaced by the last one.
        rest[best] = rest[0]
        rest = rest[1:]
        kept.append(chosen)
        overlap = _overlaps(box[chosen], box[rest], offset)
        if method == 2:
            score[rest] *= np.exp(-(overlap * overlap) / np.float32(sigma))
        else:
            decay = 1 - overlap if method == 1 else np.zeros_like(overlap)
            score[rest] *= np.where(overlap >= np.float32(iou_threshold), decay, 1)
        dead = score < np.float32(min_score)
        if dead[rest].any():
            queue, position = rest.tolist(), 0
            while position < len(queue):
                if dead[queue[position]]:
                    queue[position] = queue[-1]
                    queue.pop()
                else:
                    position += 1
            rest = np.array(queue, dtype=rest.dtype)
    kept = torch.tensor(kept, dtype=torch.long)
    dets[: len(kept)] = torch.cat((boxes[kept], torch.from_numpy(score)[kept, None].to(boxes.dtype)), dim=1)
    return kept


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Per kept detection: its index, then the indices of those that it suppressed. ``dets`` is ``(N, 5)``."""
    array = full_precision(dets).cpu().numpy()
    rest = full_precision(dets[:, 4]).sort(descending=True, stable=True).indices.cpu().numpy()
    groups = []
    while len(rest):
        chosen, rest = rest[0], rest[1:]
        matched = _overlaps(array[chosen, :4], array[rest, :4], 0) >= np.float32(iou_threshold)
        groups.append([int(chosen), *rest[matched].tolist()])
        rest = rest[~matched]
    return groups


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """IoU (mode 0) or intersection over the first box's area (mode 1), of pairs or of all with all."""
    from mmcv.ops.bbox import _bbox_overlaps_cpu  # plain PyTorch; mmcv.ops imports this module first

    ious.copy_(
        _bbox_overlaps_cpu(full_precision(bboxes1), full_precision(bboxes2), ('iou', 'iof')[mode], aligned, offset)
    )
