"""Two-stage detectors as functions of tensors alone, from images to boxes and masks.

MMDetection's ``predict`` works image by image on Python objects. Here is the same arithmetic, in the same order so
that the numbers are the same, on whole batches and without a branch on any number: one recording is right for every
batch and every size. Only the order of regions of equal score is each runtime's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.ops import RoIAlign
from mmdet.models import (
    ConvFCBBoxHead,
    FCNMaskHead,
    Shared2FCBBoxHead,
    Shared4Conv1FCBBoxHead,
    dense_heads,
    roi_heads,
)
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder
from torch import Tensor, nn
from torchvision.ops import roi_align

from ..models.two_stage.box_coding import decode_boxes
from ..models.two_stage.roi_extractor import SingleRoIExtractor
from ..models.two_stage.roi_head import StandardRoIHead
from ..models.two_stage.rpn_head import RPNHead
from .graphs import Graph, Preparation, check_settings, check_types
from .suppression import first_of_each, is_plain, suppress


class TwoStageGraph(Graph):
    """Faster R-CNN (https://arxiv.org/abs/1506.01497) and Mask R-CNN (https://arxiv.org/abs/1703.06870).

    ``(N, 3, H, W)`` to the K detections in all images, by falling score: ``boxes`` ``(K, 4)``, xyxy in pixels;
    ``scores`` ``(K,)``; ``labels`` ``(K,)``; ``batch_indices`` ``(K,)``, which image each is in; and of Mask R-CNN
    ``masks`` ``(K, 28, 28)``, the probability of the object over its box.
    """

    task = 'detection'

    def __init__(self, detector: nn.Module, preparation: Preparation | None) -> None:
        super().__init__(preparation)
        self.detector = detector
        self.masks = ClassMasks(detector.roi_head.mask_head) if detector.roi_head.with_mask else None
        names = ['boxes', 'scores', 'labels', 'batch_indices', *(['masks'] if self.masks else [])]
        self.outputs = {name: {0: 'detections'} for name in names}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        size = images.shape[-2:]
        maps = self.detector.extract_feat(self.prepare(images))
        rois = _proposals(self.detector.rpn_head, maps, size)
        boxes, scores, labels, batch_indices = _detections(self.detector.roi_head, maps, rois, size)
        if self.masks is None:
            return boxes, scores, labels, batch_indices
        rois = torch.cat((batch_indices[:, None].float(), boxes), 1)
        features, places = _roi_features(self.detector.roi_head.mask_roi_extractor, maps, rois)
        of_class = torch.zeros_like(places) if self.detector.roi_head.mask_head.class_agnostic else labels[places]
        masks = _put_back(self.masks(features, of_class).sigmoid(), places, rois)
        return boxes, scores, labels, batch_indices, masks


def _proposals(head: nn.Module, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Regions that may hold an object: ``(R, 5)``, image, then xyxy. `RPNHead.predict` for a batch."""
    cfg = head.test_cfg
    outputs = head(maps)
    anchors = head.prior_generator.grid_priors([m.shape[-2:] for m in maps], device=maps[0].device)
    boxes, scores, levels = [], [], []
    for level, (logits, deltas, anchor) in enumerate(zip(*outputs, anchors)):
        score = logits.permute(0, 2, 3, 1).flatten(1).sigmoid()
        score, best = score.topk(_smaller(cfg.nms_pre, score.shape[1]), dim=1)
        deltas = deltas.permute(0, 2, 3, 1).reshape(deltas.shape[0], -1, 4)
        deltas = deltas.gather(1, best[..., None].expand(-1, -1, 4))
        boxes.append(_decode(head.bbox_coder, anchor[best], deltas, size))
        scores.append(score)
        levels.append(torch.full_like(best, level))
    boxes, scores, levels = torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(levels, 1)
    batch_indices = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand_as(levels).flatten()
    # Boxes that are too small are marked by a score below all others, at which they suppress nothing.
    small = ~((boxes[..., 2:] - boxes[..., :2]) > cfg.get('min_bbox_size', -1)).all(-1)
    scores = scores.masked_fill(small, -1).flatten()
    boxes = boxes.masked_fill(small[..., None], 0).flatten(0, 1)
    selected = suppress(boxes, scores, levels.flatten(), batch_indices, cfg.nms.iou_threshold)
    selected = selected[first_of_each(batch_indices[selected], cfg.max_per_img, maps[0].shape[0])]
    return torch.cat((batch_indices[selected, None].float(), boxes[selected]), 1)


def _detections(head: nn.Module, maps: Sequence[Tensor], rois: Tensor, size: Sequence[int]) -> tuple[Tensor, ...]:
    """Boxes, scores, labels and images of the objects in regions. `BBoxHead.predict_by_feat` for a batch."""
    cfg = head.test_cfg
    features, places = _roi_features(head.bbox_roi_extractor, maps, rois)
    logits, deltas = (_put_back(output, places, rois) for output in head.bbox_head(features))
    scores = logits.softmax(-1)[:, :-1]
    row, label = (scores > cfg.score_thr).nonzero().unbind(1)
    scores = scores[row, label]
    rois = rois[row]
    of_class = torch.zeros_like(label) if head.bbox_head.reg_class_agnostic else label
    deltas = deltas.reshape(deltas.shape[0], -1, 4)[row, of_class]
    boxes = _decode(head.bbox_head.bbox_coder, rois[:, 1:], deltas, size)
    batch_indices = rois[:, 0].long()
    selected = suppress(boxes, scores, label, batch_indices, cfg.nms.iou_threshold)
    selected = selected[first_of_each(batch_indices[selected], cfg.max_per_img, maps[0].shape[0])]
    return boxes[selected], scores[selected], label[selected], batch_indices[selected]


def _roi_features(extractor: nn.Module, maps: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
    """RoIAlign from the level that suits each region's size: the features level by level, and the regions' places."""
    maps = maps[: extractor.num_inputs]
    levels = extractor.map_roi_levels(rois, len(maps))
    places = [(levels == level).nonzero().squeeze(1) for level in range(len(maps))]
    features = [
        roi_align(features, rois[place], layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned)
        for features, place, layer in zip(maps, places, extractor.roi_layers)
    ]
    return torch.cat(features), torch.cat(places)


def _put_back(values: Tensor, places: Tensor, rois: Tensor) -> Tensor:
    """Undo the order of `_roi_features`: later, on small outputs, which costs less than on features."""
    return values.new_zeros(rois.shape[0], *values.shape[1:]).index_put((places,), values)


def _decode(coder: Any, anchors: Tensor, deltas: Tensor, size: Sequence[int]) -> Tensor:
    """Boxes ``(..., 4)``, cut at the image's edges, out of place: exporters cannot follow `delta2bbox`."""
    height, width = size
    means, stds = deltas.new_tensor(coder.means), deltas.new_tensor(coder.stds)
    x1, y1, x2, y2 = decode_boxes(anchors, deltas, means, stds).unbind(-1)
    return torch.stack((x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)), -1)


def _smaller(limit: int, size: Any) -> Any:
    """The smaller of a number and a size, written in the way that the exporter at work can follow."""
    if torch.jit.is_tracing():
        return torch.minimum(torch.tensor(limit), torch.as_tensor(size))
    return torch.sym_min(limit, size)


class ClassMasks(nn.Module):
    """`FCNMaskHead` for one class of each region, with less work.

    The head makes four pixels of each by a transposed convolution, and then computes all classes of every pixel. The
    stride of that convolution is its kernel's size, so it is a 1x1 convolution whose outputs are moved to their places.
    Here only one class is computed, before they are moved.

    Shape:
        ``(K, C, h, w)`` and labels ``(K,)`` to logits ``(K, 2 h, 2 w)``.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.convs = head.convs
        self.scale = head.upsample.stride[0]
        cells, channels = self.scale**2, head.upsample.out_channels
        weight = head.upsample.weight.permute(2, 3, 1, 0).flatten(0, 2)
        self.register_buffer('spread', weight[..., None, None])
        self.register_buffer('spread_bias', head.upsample.bias.repeat(cells))
        self.register_buffer('weight', head.conv_logits.weight.flatten(1).repeat(1, cells))
        self.register_buffer('bias', head.conv_logits.bias)
        self.register_buffer('total', torch.eye(cells).repeat_interleave(channels, 1)[..., None, None])

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
        x = F.conv2d(x, self.spread, self.spread_bias).relu() * self.weight[labels][..., None, None]
        # The sum over the channels of each cell, written as a convolution, so that runtimes keep the memory layout.
        return F.pixel_shuffle(F.conv2d(x, self.total), self.scale)[:, 0] + self.bias[labels][:, None, None]


def check_two_stage(detector: nn.Module) -> None:
    """Raise `UserError` unless every part is of a kind whose arithmetic is written here."""
    rpn, roi = detector.rpn_head, detector.roi_head
    check_types('model.rpn_head', rpn, RPNHead, dense_heads.RPNHead)
    check_types('model.rpn_head.anchor_generator', rpn.prior_generator, AnchorGenerator)
    check_types('model.rpn_head.bbox_coder', rpn.bbox_coder, DeltaXYWHBBoxCoder)
    check_types('model.roi_head', roi, StandardRoIHead, roi_heads.StandardRoIHead)
    check_types('model.roi_head.bbox_head', roi.bbox_head, ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead)
    check_types('model.roi_head.bbox_head.bbox_coder', roi.bbox_head.bbox_coder, DeltaXYWHBBoxCoder)
    extractors = dict(bbox_roi_extractor=roi.bbox_roi_extractor)
    if roi.with_mask:
        check_types('model.roi_head.mask_head', roi.mask_head, FCNMaskHead)
        extractors['mask_roi_extractor'] = roi.mask_roi_extractor
    for name, extractor in extractors.items():
        check_types(f'model.roi_head.{name}', extractor, SingleRoIExtractor, roi_heads.SingleRoIExtractor)
        check_types(f'model.roi_head.{name}.roi_layer', extractor.roi_layers[0], RoIAlign)
    coders = rpn.bbox_coder, roi.bbox_head.bbox_coder
    tests = rpn.test_cfg, roi.test_cfg
    limits = rpn.test_cfg.get('nms_pre', -1), rpn.test_cfg.max_per_img, roi.test_cfg.max_per_img
    settings = {
        'model.rpn_head.loss_cls.use_sigmoid must be True': rpn.use_sigmoid_cls,
        'model.roi_head.shared_head must be None': not roi.with_shared_head,
        'model.roi_head.bbox_head needs with_cls and with_reg': roi.bbox_head.with_cls and roi.bbox_head.with_reg,
        'model.roi_head.bbox_head.loss_cls must be a softmax': not roi.bbox_head.custom_cls_channels,
        'the bbox_coders need clip_border=True, add_ctr_clamp=False': all(
            coder.clip_border and not coder.add_ctr_clamp for coder in coders
        ),
        'model.roi_head.mask_head.upsample_cfg needs type="deconv"': (
            not roi.with_mask or roi.mask_head.upsample_method == 'deconv'
        ),
        'the roi_layers need pool_mode="avg"': all(
            extractor.roi_layers[0].pool_mode == 'avg' for extractor in extractors.values()
        ),
        'model.test_cfg needs nms of type "nms", with iou_threshold alone': all(is_plain(cfg.nms) for cfg in tests),
        'model.test_cfg needs rpn.nms_pre, rpn.max_per_img and rcnn.max_per_img above 0': min(limits) > 0,
    }
    check_settings(settings)
