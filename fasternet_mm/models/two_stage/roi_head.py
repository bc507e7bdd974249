"""The second stage of Faster R-CNN (https://arxiv.org/abs/1506.01497) and Mask R-CNN (https://arxiv.org/abs/1703.06870),
for all images of a batch at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmcv.ops import batched_nms
from mmdet.models import (
    ConvFCBBoxHead,
    CrossEntropyLoss,
    FCNMaskHead,
    L1Loss,
    Shared2FCBBoxHead,
    Shared4Conv1FCBBoxHead,
    SmoothL1Loss,
    roi_heads,
)
from mmdet.models.losses import accuracy
from mmdet.models.task_modules import DeltaXYWHBBoxCoder, RandomSampler
from mmdet.models.utils import unpack_gt_instances
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from mmdet.structures.mask.structures import BaseInstanceMasks
from mmengine.structures import InstanceData
from torch import Tensor

from ...registry import MODELS
from .batched_assignment import assign, can_assign, pad_boxes, pad_regions, sample
from .box_coding import BoxCoding, image_limits, image_scales
from .mask_targets import mask_targets


class RoISamples(NamedTuple):
    """The RoIs of a batch that are learned from: K in all, the P that belong to objects first.

    Both kinds are in the order of their images.

    Attributes:
        rois: ``(K, 5)``: number of the image, then x1, y1, x2, y2 in its pixels.
        labels: ``(K,)``, the objects' classes, and the number of classes for background.
        boxes: ``(P, 4)``, the objects' boxes.
        images, objects: ``(P,)``, on the host: the image, and the object's number in it.
    """

    rois: Tensor
    labels: Tensor
    boxes: Tensor
    images: np.ndarray
    objects: np.ndarray


@MODELS.register_module()
class StandardRoIHead(roi_heads.StandardRoIHead):
    """MMDetection's head, with targets, samples, losses and detections of all images of a batch computed together.

    MMDetection's goes from image to image, and asks the device some dozen times for each how many boxes there are.
    Parameters, losses and predictions are the same; which candidates are sampled is drawn by other random numbers.
    With parts that are not written here (see `is_batched`) it does what MMDetection's does.

    Args:
        kwargs: as for `mmdet.models.StandardRoIHead`.

    Attributes:
        is_batched: whether every part is of a kind whose arithmetic is written here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_batched = _is_batched(self)
        if self.is_batched:
            self.box_coding = BoxCoding(self.bbox_head.bbox_coder)

    def loss(
        self,
        x: Sequence[Tensor],
        rpn_results_list: Sequence[InstanceData],
        batch_data_samples: Sequence[DetDataSample],
    ) -> dict[str, Tensor]:
        """Losses of boxes, and of masks where the head has them.

        Args:
            x: maps ``(N, C, H, W)`` per level.
            rpn_results_list: per image, the proposals: ``bboxes`` ``(n, 4)``.
            batch_data_samples: per image, ``gt_instances``: ``bboxes``, ``labels``, and ``masks`` where the head has
                them; and, if there are any, ``ignored_instances`` with ``bboxes``.

        Returns:
            ``loss_cls``, ``acc`` in percent, ``loss_bbox``, ``loss_mask``. Without a RoI in the whole batch there are
            no ``loss_cls`` and ``acc``, as in MMDetection.
        """
        if not self.is_batched:
            return super().loss(x, rpn_results_list, batch_data_samples)
        samples = self._sample(rpn_results_list, batch_data_samples)
        outputs = self._bbox_forward(x, samples.rois)
        losses = self._box_losses(outputs['cls_score'], outputs['bbox_pred'], samples)
        if self.with_mask:
            masks = [sample.gt_instances.masks for sample in batch_data_samples]
            losses['loss_mask'] = self._mask_loss(x, outputs['bbox_feats'], samples, masks)
        return losses

    def _sample(
        self, rpn_results_list: Sequence[InstanceData], batch_data_samples: Sequence[DetDataSample]
    ) -> RoISamples:
        truth, ignored, _ = unpack_gt_instances(batch_data_samples)
        objects = pad_boxes([get_box_tensor(of_image.bboxes) for of_image in truth])
        proposals = pad_boxes([get_box_tensor(of_image.bboxes) for of_image in rpn_results_list])
        assigned = assign(self.bbox_assigner, proposals, objects, pad_regions(ignored))
        candidates = proposals.boxes
        if self.bbox_sampler.add_gt_as_proposals:
            numbers = torch.arange(1, objects.valid.shape[1] + 1, device=assigned.device).where(objects.valid, -1)
            candidates = torch.cat((objects.boxes, candidates), dim=1)
            assigned = torch.cat((numbers, assigned), dim=1)
        positive, negative = sample(self.bbox_sampler, assigned)
        # One copy to the host tells how many RoIs there are, and of which objects.
        chosen = torch.where(positive, assigned, torch.where(negative, 0, -1)).cpu().numpy()
        return _gather(chosen, candidates, truth, self.bbox_head.num_classes)

    def _box_losses(self, cls_score: Tensor, bbox_pred: Tensor, samples: RoISamples) -> dict[str, Tensor]:
        head, labels, count = self.bbox_head, samples.labels, len(samples.boxes)
        losses = {}
        if len(labels):
            weights = None
            if self.train_cfg.pos_weight > 0:
                weights = torch.ones_like(labels, dtype=cls_score.dtype)
                weights[:count] = self.train_cfg.pos_weight
            losses['loss_cls'] = head.loss_cls(cls_score, labels, weights, avg_factor=len(labels))
            losses['acc'] = accuracy(cls_score, labels)
        offsets = bbox_pred[:count].unflatten(1, (-1, 4))
        of_class = torch.zeros_like(labels[:count]) if head.reg_class_agnostic else labels[:count]
        offsets = offsets.gather(1, of_class[:, None, None].expand(-1, -1, 4)).squeeze(1)
        targets = self.box_coding.encode(samples.rois[:count, 1:], samples.boxes)
        losses['loss_bbox'] = head.loss_bbox(offsets, targets, avg_factor=len(labels))
        return losses

    def _mask_loss(
        self, x: Sequence[Tensor], bbox_feats: Tensor, samples: RoISamples, masks: Sequence[BaseInstanceMasks]
    ) -> Tensor:
        count = len(samples.boxes)
        rois, labels = samples.rois[:count], samples.labels[:count]
        if self.share_roi_extractor:
            outputs = self._mask_forward(x, pos_inds=slice(count), bbox_feats=bbox_feats)
        else:
            outputs = self._mask_forward(x, rois)
        if not count:
            return outputs['mask_preds'].sum()
        targets = mask_targets(masks, rois[:, 1:], samples.images, samples.objects, self.train_cfg)
        of_class = torch.zeros_like(labels) if self.mask_head.class_agnostic else labels
        return self.mask_head.loss_mask(outputs['mask_preds'], targets, of_class)

    def predict_bbox(
        self,
        x: Sequence[Tensor],
        batch_img_metas: Sequence[Mapping[str, Any]],
        rpn_results_list: Sequence[InstanceData],
        rcnn_test_cfg: Mapping[str, Any] | None,
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Objects in proposals.

        Args:
            x: maps ``(N, C, H, W)`` per level.
            batch_img_metas: per image, ``img_shape``, and ``scale_factor`` where boxes are rescaled.
            rpn_results_list: per image, the proposals: ``bboxes`` ``(n, 4)``.
            rcnn_test_cfg: ``score_thr``, ``nms``, ``max_per_img``. None: scores and boxes of all classes, without NMS.
            rescale: give boxes in the pixels of the original images. Default: False.

        Returns:
            per image, by falling score: ``bboxes`` ``(k, 4)``, ``scores`` ``(k,)``, ``labels`` ``(k,)``.
        """
        counts = [len(of_image) for of_image in rpn_results_list]
        if not self.is_batched or rcnn_test_cfg is None or not any(counts):
            return super().predict_bbox(x, batch_img_metas, rpn_results_list, rcnn_test_cfg, rescale)
        rois = _rois([get_box_tensor(of_image.bboxes) for of_image in rpn_results_list])
        outputs = self._bbox_forward(x, rois)
        scores = outputs['cls_score'].softmax(-1)[:, :-1]
        row, labels = (scores > rcnn_test_cfg['score_thr']).nonzero().unbind(1)
        of_class = torch.zeros_like(labels) if self.bbox_head.reg_class_agnostic else labels
        offsets = outputs['bbox_pred'].unflatten(1, (-1, 4))[row, of_class]
        scores, rois = scores[row, labels], rois[row]
        boxes = self._decode(rois, offsets, batch_img_metas, rescale)
        images = torch.arange(len(counts), device=rois.device)
        counts = (rois[:, 0] == images[:, None]).sum(dim=1).tolist()
        return [
            _detections(*of_image, rcnn_test_cfg)
            for of_image in zip(boxes.split(counts), scores.split(counts), labels.split(counts))
        ]

    def _decode(
        self, rois: Tensor, offsets: Tensor, batch_img_metas: Sequence[Mapping[str, Any]], rescale: bool
    ) -> Tensor:
        """The boxes ``(K, 4)`` at offsets ``(K, 4)`` from RoIs, cut at their image's edges."""
        boxes = self.box_coding.decode(rois[:, 1:], offsets)
        image = rois[:, 0].long()
        if self.bbox_head.bbox_coder.clip_border:
            boxes = torch.minimum(boxes.clamp(min=0), image_limits(batch_img_metas, boxes)[image])
        if rescale:
            boxes = boxes * image_scales(batch_img_metas, boxes)[image]
        return boxes


def _is_batched(head: roi_heads.StandardRoIHead) -> bool:
    """Whether every part of a head is of a kind whose arithmetic is written here. Otherwise MMDetection's own runs."""
    if not head.with_bbox or head.with_shared_head:
        return False
    box_head = head.bbox_head
    kinds = {
        box_head: (ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead),
        box_head.bbox_coder: (DeltaXYWHBBoxCoder,),
        box_head.loss_cls: (CrossEntropyLoss,),
        box_head.loss_bbox: (L1Loss, SmoothL1Loss),
    }
    if head.with_mask:
        kinds[head.mask_head] = (FCNMaskHead,)
    if head.train_cfg:
        kinds[head.bbox_sampler] = (RandomSampler,)
    return (
        all(type(part) in accepted for part, accepted in kinds.items())
        and box_head.with_cls
        and box_head.with_reg
        and not box_head.reg_decoded_bbox
        and not box_head.bbox_coder.add_ctr_clamp
        and not box_head.bbox_coder.use_box_type
        and (not head.train_cfg or can_assign(head.bbox_assigner))
    )


def _gather(chosen: np.ndarray, candidates: Tensor, truth: Sequence[InstanceData], classes: int) -> RoISamples:
    """The chosen candidates.

    Args:
        chosen: ``(B, N)``: the object's number from 1, 0 for background, -1 for what is not sampled.
        candidates: ``(B, N, 4)``.
        truth: per image, ``bboxes`` and ``labels``.
        classes: how many there are.
    """
    images, columns = (np.concatenate(pair) for pair in zip((chosen > 0).nonzero(), (chosen == 0).nonzero()))
    objects = chosen[chosen > 0] - 1
    count = len(objects)
    ends = np.cumsum([len(of_image) for of_image in truth])
    places = (ends - [len(of_image) for of_image in truth])[images[:count]] + objects
    numbers = torch.from_numpy(np.concatenate((images, columns, places))).to(candidates.device, non_blocking=True)
    image, column, place = numbers.split([len(images), len(images), count])
    boxes = candidates[image, column]
    labels = torch.cat([of_image.labels for of_image in truth])[place]
    return RoISamples(
        rois=torch.cat((image[:, None].to(boxes.dtype), boxes), dim=1),
        labels=torch.cat((labels, labels.new_full((len(images) - count,), classes))),
        boxes=torch.cat([get_box_tensor(of_image.bboxes) for of_image in truth])[place],
        images=images[:count],
        objects=objects,
    )


def _rois(boxes: Sequence[Tensor]) -> Tensor:
    """``bbox2roi`` with the same few operators for any number of images: ``(K, 5)``."""
    images = np.repeat(np.arange(len(boxes), dtype=np.float32), [len(of_image) for of_image in boxes])
    boxes = torch.cat(tuple(boxes))
    return torch.cat((torch.from_numpy(images)[:, None].to(boxes, non_blocking=True), boxes), dim=1)


def _detections(boxes: Tensor, scores: Tensor, labels: Tensor, test_cfg: Mapping[str, Any]) -> InstanceData:
    """Of one image, what its NMS within each class leaves."""
    if len(boxes):
        detections, selected = batched_nms(boxes, scores, labels, test_cfg['nms'])
        boxes, scores, labels = detections[:, :4], detections[:, 4], labels[selected]
    limit = test_cfg['max_per_img']
    if limit > 0:
        boxes, scores, labels = boxes[:limit], scores[:limit], labels[:limit]
    return InstanceData(bboxes=boxes, scores=scores, labels=labels)
