"""Suppression of overlapping boxes, for whole batches and without a branch on any number, as in `Graph`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, batch_indices: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that NMS within each group of each image leaves, by falling score.

    Boxes with a negative score are never among them. As in MMCV's ``batched_nms``, groups are moved apart, to the right
    and down; images are moved down as well. For a single image the coordinates are MMCV's to the bit.
    """
    # Two more boxes, away from all others: TorchVision tells torch.export that NMS leaves at least two, and without any
    # box there would be no largest coordinate.
    boxes = torch.cat((boxes, boxes.new_tensor([[-2, -2, -1, -1], [-4, -4, -3, -3]])))
    scores = F.pad(scores, (0, 2), value=-1)
    groups, batch_indices = F.pad(groups, (0, 2)), F.pad(batch_indices, (0, 2))
    step = boxes.max() + 1  # amax() without axes becomes no ONNX in PyTorch 2.1
    right, down = groups * step, (groups + batch_indices) * step
    # MMCV compares in float32: 0.6 there is slightly more than here.
    selected = nms(boxes + torch.stack((right, down, right, down), 1), scores, float(np.float32(iou_threshold)))
    return selected[scores[selected] >= 0]


def first_of_each(groups: Tensor, limit: int, count: int) -> Tensor:
    """Which elements are among the first ``limit`` of their group, one of ``count``: bool ``(K,)``."""
    own = (groups[:, None] == torch.arange(count, device=groups.device)).long()
    return (own.cumsum(0) * own).sum(1) <= limit


def is_plain(nms_cfg: Mapping[str, Any]) -> bool:
    """Whether a config's NMS is what `suppress` does."""
    return nms_cfg.get('type', 'nms') == 'nms' and nms_cfg.keys() <= {'type', 'iou_threshold', 'split_thr'}
