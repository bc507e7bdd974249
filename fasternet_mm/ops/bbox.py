"""How much boxes overlap."""

from __future__ import annotations

from torch import Tensor

from .kernels import full_precision


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """IoU (mode 0) or intersection over the first box's area (mode 1), of pairs or of all with all."""
    from mmcv.ops.bbox import _bbox_overlaps_cpu  # plain PyTorch; mmcv.ops imports this module first

    ious.copy_(
        _bbox_overlaps_cpu(full_precision(bboxes1), full_precision(bboxes2), ('iou', 'iof')[mode], aligned, offset)
    )
