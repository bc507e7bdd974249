"""Single-stage detectors as functions of tensors alone, from images to boxes and masks.

The same arithmetic as MMDetection's ``predict``, in the same order, as in `two_stage_graph`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmdet.models import dense_heads
from mmdet.models.dense_heads import RTMDetHead, RTMDetInsHead, RTMDetSepBNHead
from mmdet.models.task_modules import DistancePointBBoxCoder, MlvlPointGenerator
from torch import Tensor, nn

from ..models.single_stage.rtmdet_ins_head import RTMDetInsSepBNHead
from .graphs import Graph, Preparation, check_settings, check_types
from .suppression import first_of_each, is_plain, suppress

HEADS = RTMDetHead, RTMDetSepBNHead, RTMDetInsHead, RTMDetInsSepBNHead, dense_heads.RTMDetInsSepBNHead

MARGIN = 1e-3
"""How far below the threshold, in logits, scores are still computed: more than rounding can move a logit."""


class SingleStageGraph(Graph):
    """RTMDet and RTMDet-Ins (https://arxiv.org/abs/2212.07784).

    ``(N, 3, H, W)`` to the K detections in all images, by falling score: ``boxes`` ``(K, 4)``, xyxy in pixels;
    ``scores`` ``(K,)``; ``labels`` ``(K,)``; ``batch_indices`` ``(K,)``, which image each is in; and of RTMDet-Ins
    ``mask_logits`` ``(K, h, w)``, of the whole image, where each cell is ``mask_stride`` pixels high and wide.
    """

    task = 'detection'

    def __init__(self, detector: nn.Module, preparation: Preparation | None) -> None:
        super().__init__(preparation)
        self.detector = detector
        strides = [stride for stride, _ in detector.bbox_head.prior_generator.strides]
        self.outputs = {name: {0: 'detections'} for name in ('boxes', 'scores', 'labels', 'batch_indices')}
        if isinstance(detector.bbox_head, RTMDetInsHead):
            self.outputs['mask_logits'] = {0: 'detections', 1: 'mask_height', 2: 'mask_width'}
            self.mask_stride = strides[0]
        # A neck that enlarges a map by a factor, and not to the size of the next one, takes only sizes that all
        # strides divide.
        by_factor = any(isinstance(part, nn.Upsample) and part.scale_factor for part in detector.neck.modules())
        if by_factor and (preparation is None or preparation.pad_size_divisor % strides[-1]):
            self.size_divisor = strides[-1]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        head = self.detector.bbox_head
        logits, distances, *for_masks = head(self.detector.extract_feat(self.prepare(images)))
        sizes = [level.shape[-2:] for level in logits]
        points = torch.cat(head.prior_generator.grid_priors(sizes, device=images.device, with_stride=True))
        scores, labels, place, batch_indices = _candidates(head, logits)
        boxes = _decode(points[place], _at(distances, batch_indices, place), images.shape[-2:])
        # Boxes that are too small are marked by a score below all others, at which they suppress nothing.
        small = ~((boxes[:, 2:] - boxes[:, :2]) > head.test_cfg.get('min_bbox_size', -1)).all(1)
        if head.test_cfg.get('min_bbox_size', -1) >= 0:
            scores, boxes = scores.masked_fill(small, -1), boxes.masked_fill(small[:, None], 0)
        selected = suppress(boxes, scores, labels, batch_indices, head.test_cfg.nms.iou_threshold)
        selected = selected[first_of_each(batch_indices[selected], head.test_cfg.max_per_img, images.shape[0])]
        batch_indices, place = batch_indices[selected], place[selected]
        detections = boxes[selected], scores[selected], labels[selected], batch_indices
        if not for_masks:
            return detections
        kernels, features = for_masks
        kernels = _at(kernels, batch_indices, place)
        return *detections, _mask_logits(head, features, kernels, points[place], batch_indices)


def _candidates(head: nn.Module, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, labels, places among all points, and images of what may be an object, as `filter_scores_and_topk` does.

    Of each level of each image those above the threshold, and of these the best ``nms_pre``.
    """
    cfg = head.test_cfg
    levels = [torch.full_like(level[0, 0], number).flatten() for number, level in enumerate(logits)]
    levels = torch.cat(levels).long()
    all_logits = torch.cat([level.flatten(2) for level in logits], 2)
    # Few are above the threshold, and only of these is the sigmoid computed.
    threshold = cfg.get('score_thr', 0)
    least = math.log(threshold / (1 - threshold)) - MARGIN if threshold > 0 else -math.inf
    batch_indices, labels, places = (all_logits > least).nonzero().unbind(1)
    scores = all_logits[batch_indices, labels, places].sigmoid()
    scores = scores.masked_fill(scores <= threshold, -1)
    scores, order = scores.sort(descending=True)
    batch_indices, labels, places = batch_indices[order], labels[order], places[order]
    groups = batch_indices * len(logits) + levels[places]
    best = first_of_each(groups, cfg.nms_pre, all_logits.shape[0] * len(logits))
    return scores[best], labels[best], places[best], batch_indices[best]


def _at(maps: Sequence[Tensor], batch_indices: Tensor, places: Tensor) -> Tensor:
    """The columns ``(K, C)`` of maps ``(N, C, h, w)`` at places among all points."""
    return torch.cat([level.flatten(2) for level in maps], 2).transpose(1, 2)[batch_indices, places]


def _decode(points: Tensor, distances: Tensor, size: Sequence[int]) -> Tensor:
    """Boxes ``(M, 4)``, cut at the image's edges, from points and the distances to the left, top, right and bottom."""
    height, width = size
    left, top, right, bottom = distances.unbind(1)
    x, y = points[:, 0], points[:, 1]
    x1, x2 = (x - left).clamp(0, width), (x + right).clamp(0, width)
    y1, y2 = (y - top).clamp(0, height), (y + bottom).clamp(0, height)
    return torch.stack((x1, y1, x2, y2), 1)


def _mask_logits(head: nn.Module, features: Tensor, kernels: Tensor, points: Tensor, batch_indices: Tensor) -> Tensor:
    """``(K, h, w)``: for each object a small network of its own, with the weights ``kernels``, over its image's map."""
    height, width = features.shape[-2:]
    cells = head.prior_generator.single_level_grid_priors((height, width), level_idx=0, device=features.device)
    offsets = (points[:, :2, None] - cells.t()) / (points[:, 2, None, None] * 8)
    x = torch.cat((offsets, features.flatten(2)[batch_indices]), 1)
    parameters = kernels.split(head.weight_nums + head.bias_nums, 1)
    layers = len(head.weight_nums)
    for number, (weight, bias) in enumerate(zip(parameters[:layers], parameters[layers:])):
        outputs = head.bias_nums[number]
        weight = weight.reshape(-1, outputs, head.weight_nums[number] // outputs)
        x = weight @ x + bias[:, :, None]
        x = x.relu() if number < layers - 1 else x
    return x.reshape(-1, height, width)


def check_single_stage(detector: nn.Module) -> None:
    """Raise `UserError` unless every part is of a kind whose arithmetic is written here."""
    head = detector.bbox_head
    check_types('model.bbox_head', head, *HEADS)
    check_types('model.bbox_head.anchor_generator', head.prior_generator, MlvlPointGenerator)
    check_types('model.bbox_head.bbox_coder', head.bbox_coder, DistancePointBBoxCoder)
    cfg = head.test_cfg
    check_settings(
        {
            'model.bbox_head.loss_cls.use_sigmoid must be True': head.use_sigmoid_cls,
            'model.bbox_head.loss_cls must be one of a sigmoid for each class': not getattr(
                head.loss_cls, 'custom_cls_channels', False
            ),
            'model.bbox_head.with_objectness must be False': not head.with_objectness,
            'model.bbox_head.bbox_coder needs clip_border=True': head.bbox_coder.clip_border,
            'model.test_cfg needs nms of type "nms", with iou_threshold alone': is_plain(cfg.nms),
            'model.test_cfg needs nms_pre and max_per_img above 0': min(cfg.get('nms_pre', -1), cfg.max_per_img) > 0,
            'model.test_cfg needs a score_thr from 0 to below 1': 0 <= cfg.get('score_thr', 0) < 1,
            # MMDetection compares it in pixels of the image before it was resized, which the file never sees.
            'model.test_cfg.min_bbox_size must be 0 or left out': cfg.get('min_bbox_size', -1) <= 0,
            'model.test_cfg needs a mask_thr_binary between 0 and 1': not isinstance(head, RTMDetInsHead)
            or 0 < cfg.mask_thr_binary < 1,
        }
    )
