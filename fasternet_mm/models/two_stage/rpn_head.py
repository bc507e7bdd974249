"""The first stage of Faster R-CNN (https://arxiv.org/abs/1506.01497, section 3.1), for a whole batch at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmdet.models import CrossEntropyLoss, L1Loss, SmoothL1Loss, dense_heads
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder, PseudoSampler, RandomSampler
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from ...ops.boxes import nms
from ...registry import MODELS
from .batched_assignment import Drawn, PaddedBoxes, assign, can_assign, draw_samples, pad_boxes, pad_regions
from .box_coding import BoxCoding, image_limits, image_scales, to_device

KEPT_SIZES = 8
"""Sizes of batches whose anchors are kept; those of an 800x1344 batch take 6 MB."""

MMCVS_SPLIT = 10000
"""Candidates of an image from which on MMCV suppresses level by level, unless ``split_thr`` says otherwise."""


class Anchors(NamedTuple):
    """The anchors of all levels of one size of maps, in the order of the maps' outputs.

    Attributes:
        boxes: ``(A, 4)``, xyxy in pixels.
        corners: ``(A, 2)``, x and y of the upper left corner of the map's cell that an anchor belongs to, in pixels.
        counts: the number of anchors of each level.
        reach: the largest of ``corners``, on the host.
    """

    boxes: Tensor
    corners: Tensor
    counts: list[int]
    reach: tuple[int, int]


class Outputs(NamedTuple):
    """What the head says of each anchor: ``logits`` ``(B, A)`` of being an object, and ``offsets`` ``(B, A, 4)``."""

    logits: Tensor
    offsets: Tensor


@MODELS.register_module()
class RPNHead(dense_heads.RPNHead):
    """MMDetection's head, with targets, losses and proposals of all images of a batch computed together.

    MMDetection's goes from image to image and from level to level, and makes the anchors anew each time. Parameters,
    losses and proposals are the same, but for two things: which anchors are sampled is drawn by other random numbers,
    and under mixed precision proposals are computed in float32, where MMDetection's are rounded to the dtype of the
    maps. With parts that are not written here (see `is_batched`) it does what MMDetection's does.

    Args:
        kwargs: as for `mmdet.models.RPNHead`.

    Attributes:
        is_batched: whether every part is of a kind whose arithmetic is written here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_batched = _is_batched(self)
        self._anchors: dict[Any, Anchors] = {}
        if self.is_batched:
            self.box_coding = BoxCoding(self.bbox_coder)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_anchors': {}}  # copies make their own

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[Mapping[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> dict[str, Any]:
        """Losses of the sampled anchors.

        Args:
            cls_scores: logits ``(B, A, H, W)`` per level.
            bbox_preds: offsets ``(B, 4 A, H, W)`` per level.
            batch_gt_instances: per image, ``bboxes`` ``(n, 4)``.
            batch_img_metas: per image, ``pad_shape`` and ``img_shape``.
            batch_gt_instances_ignore: per image, ``bboxes`` of ignored regions, or None. Default: there are none.

        Returns:
            ``loss_rpn_cls`` and ``loss_rpn_bbox``: the sums of what MMDetection has per level.

        Raises:
            ValueError: ``allowed_border`` leaves an image without anchors.
        """
        arguments = batch_gt_instances, batch_img_metas, batch_gt_instances_ignore
        if not self.is_batched:
            return super().loss_by_feat(cls_scores, bbox_preds, *arguments)
        outputs = _flatten(cls_scores, bbox_preds)
        anchors = self._anchors_of(cls_scores)
        priors = PaddedBoxes(anchors.boxes.expand(len(outputs.logits), -1, -1), self._inside(anchors, batch_img_metas))
        objects = pad_boxes([get_box_tensor(of_image.bboxes) for of_image in batch_gt_instances])
        assigned = assign(self.assigner, priors, objects, pad_regions(batch_gt_instances_ignore))
        positive, negative = draw_samples(self.sampler, assigned)
        average_factor = positive.counts.clamp(min=1).sum()
        if type(self.sampler) is RandomSampler:
            average_factor = average_factor + negative.counts.clamp(min=1).sum()
        return dict(
            loss_rpn_cls=self._objectness_loss(outputs.logits, positive, negative, average_factor),
            loss_rpn_bbox=self._offset_loss(outputs.offsets, anchors, objects, assigned, positive, average_factor),
        )

    def _objectness_loss(self, logits: Tensor, positive: Drawn, negative: Drawn, average_factor: Tensor) -> Tensor:
        logits = logits.gather(1, torch.cat((positive.places, negative.places), dim=1))
        of_objects = positive.valid.to(torch.float32)
        weight = self.train_cfg['pos_weight'] if self.train_cfg['pos_weight'] > 0 else 1.0
        weights = torch.cat((of_objects * weight, negative.valid.to(torch.float32)), dim=1)
        targets = torch.cat((of_objects, torch.zeros_like(negative.valid, dtype=torch.float32)), dim=1)
        return self.loss_cls(logits, targets, weights, avg_factor=average_factor)

    def _offset_loss(
        self,
        offsets: Tensor,
        anchors: Anchors,
        objects: PaddedBoxes,
        assigned: Tensor,
        positive: Drawn,
        average_factor: Tensor,
    ) -> Tensor:
        places = positive.places[..., None].expand(-1, -1, 4)
        numbers = (assigned.gather(1, positive.places) - 1).clamp(min=0)[..., None].expand(-1, -1, 4)
        targets = self.box_coding.encode(anchors.boxes[positive.places], objects.boxes.gather(1, numbers))
        valid = positive.valid[..., None]
        targets = targets.where(valid, 0.0)  # padding gives infinities
        weights = valid.to(targets.dtype).expand_as(targets)
        return self.loss_bbox(offsets.gather(1, places), targets, weights, avg_factor=average_factor)

    def predict_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        score_factors: Sequence[Tensor] | None = None,
        batch_img_metas: Sequence[Mapping[str, Any]] | None = None,
        cfg: Mapping[str, Any] | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Proposals.

        Args:
            cls_scores: logits ``(B, A, H, W)`` per level.
            bbox_preds: offsets ``(B, 4 A, H, W)`` per level.
            score_factors: of other heads.
            batch_img_metas: per image, ``img_shape``, and ``scale_factor`` where boxes are rescaled.
            cfg: ``nms_pre``, ``nms``, ``max_per_img``, ``min_bbox_size``. Default: the head's ``test_cfg``.
            rescale: give boxes in the pixels of the original images. Default: False.
            with_nms: must be True.

        Returns:
            per image, by falling score: ``bboxes`` ``(k, 4)``, ``scores`` ``(k,)``, ``labels`` ``(k,)``, all 0.
        """
        cfg = self.test_cfg if cfg is None else cfg
        if not (self.is_batched and with_nms and score_factors is None and self._suppresses(cfg, cls_scores)):
            return super().predict_by_feat(
                cls_scores, bbox_preds, score_factors, batch_img_metas, cfg, rescale, with_nms
            )
        outputs = _flatten([x.detach() for x in cls_scores], [x.detach() for x in bbox_preds])
        anchors = self._anchors_of(cls_scores)
        scores, places, levels = _best_of_each_level(outputs.logits.float().sigmoid(), anchors.counts, cfg['nms_pre'])
        offsets = outputs.offsets.gather(1, places[..., None].expand(-1, -1, 4)).float()
        boxes = self.box_coding.decode(anchors.boxes[places], offsets)
        boxes = torch.minimum(boxes.clamp(min=0), image_limits(batch_img_metas, boxes)[:, None])
        if rescale:
            boxes = boxes * image_scales(batch_img_metas, boxes)[:, None]
        return _suppress(boxes, scores, levels, cfg)

    def _anchors_of(self, maps: Sequence[Tensor]) -> Anchors:
        sizes, device = [tuple(x.shape[-2:]) for x in maps], maps[0].device
        key = *sizes, device
        kept = self._anchors.pop(key, None)  # threads may call one head together
        if kept is not None:
            self._anchors[key] = kept
            return kept
        generator = self.prior_generator
        boxes = generator.grid_priors(sizes, device=device)
        corners, reach = [], (0, 0)
        for size, strides, count in zip(sizes, generator.strides, generator.num_base_anchors):
            rows, columns = (torch.arange(n, device=device) * s for n, s in zip(size, reversed(strides)))
            y, x = torch.meshgrid(rows, columns, indexing='ij')
            corners.append(torch.stack((x, y), dim=2).flatten(0, 1).repeat_interleave(count, dim=0))
            reach = tuple(max(r, (n - 1) * s) for r, n, s in zip(reach, reversed(size), strides))
        result = Anchors(torch.cat(boxes), torch.cat(corners), [len(of_level) for of_level in boxes], reach)
        self._anchors[key] = result
        if len(self._anchors) > KEPT_SIZES:
            self._anchors.pop(next(iter(self._anchors)), None)
        return result

    def _inside(self, anchors: Anchors, batch_img_metas: Sequence[Mapping[str, Any]]) -> Tensor:
        """Which anchors an image has, bool ``(B, A)``: not those in padding for larger images of the batch."""
        sizes = [(meta['pad_shape'][1], meta['pad_shape'][0]) for meta in batch_img_metas]
        if all(width > anchors.reach[0] and height > anchors.reach[1] for width, height in sizes):
            inside = anchors.corners.new_ones(1, 1, dtype=torch.bool).expand(len(sizes), len(anchors.corners))
        else:
            inside = (anchors.corners < to_device(sizes, anchors.corners)[:, None]).all(dim=2)
        border = self.train_cfg['allowed_border']
        if border < 0:
            return inside
        sizes = [(meta['img_shape'][1] + border, meta['img_shape'][0] + border) for meta in batch_img_metas]
        ends = (anchors.boxes[:, 2:] < to_device(sizes, anchors.boxes)[:, None]).all(dim=2)
        inside = inside & ends & (anchors.boxes[:, :2] >= -border).all(dim=1)
        if not inside.any(dim=1).all():
            raise ValueError(f'allowed_border={border} leaves no anchor inside an image: use -1, which allows all')
        return inside

    def _suppresses(self, cfg: Mapping[str, Any], maps: Sequence[Tensor]) -> bool:
        """Whether NMS is the one that is written here."""
        limit, settings = cfg.get('nms_pre', -1), cfg.get('nms')
        counts = [x.shape[1:].numel() for x in maps]
        candidates = sum(min(limit, count) for count in counts)
        return (
            limit > 0
            and settings is not None
            and settings.keys() <= {'type', 'iou_threshold', 'split_thr'}
            and settings.get('type', 'nms') == 'nms'
            and candidates < settings.get('split_thr', MMCVS_SPLIT)
        )


def _is_batched(head: dense_heads.RPNHead) -> bool:
    """Whether every part of a head is of a kind whose arithmetic is written here. Otherwise MMDetection's own runs."""
    kinds = {
        head.prior_generator: (AnchorGenerator,),
        head.bbox_coder: (DeltaXYWHBBoxCoder,),
        head.loss_cls: (CrossEntropyLoss,),
        head.loss_bbox: (L1Loss, SmoothL1Loss),
    }
    if head.train_cfg:
        kinds[head.sampler] = (RandomSampler, PseudoSampler)
    return (
        all(type(part) in accepted for part, accepted in kinds.items())
        and not head.prior_generator.use_box_type
        and head.cls_out_channels == 1
        and head.use_sigmoid_cls
        and not head.reg_decoded_bbox
        and head.bbox_coder.clip_border
        and not head.bbox_coder.add_ctr_clamp
        and not head.bbox_coder.use_box_type
        and (not head.train_cfg or can_assign(head.assigner))
        and not getattr(getattr(head, 'sampler', None), 'add_gt_as_proposals', False)
    )


def _flatten(cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor]) -> Outputs:
    logits = [x.permute(0, 2, 3, 1).flatten(1) for x in cls_scores]
    offsets = [x.permute(0, 2, 3, 1).flatten(1) for x in bbox_preds]
    return Outputs(torch.cat(logits, dim=1), torch.cat(offsets, dim=1).unflatten(1, (-1, 4)))


def _best_of_each_level(scores: Tensor, counts: Sequence[int], limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each level up to ``limit`` anchors of each image, by falling score where there are more.

    Returns:
        Scores ``(B, K)``, places among all anchors ``(B, K)``, and levels ``(K,)`` as floating point numbers.
    """
    best, places, first = [], [], 0
    for count, of_level in zip(counts, scores.split(list(counts), dim=1)):
        if count > limit:
            of_level, order = of_level.topk(limit, dim=1)
            order = order + first
        else:
            order = torch.arange(first, first + count, device=scores.device).expand(len(scores), -1)
        best.append(of_level)
        places.append(order)
        first += count
    sizes = torch.tensor([x.shape[1] for x in best])
    levels = torch.arange(len(best), dtype=torch.float32).repeat_interleave(sizes)
    return torch.cat(best, dim=1), torch.cat(places, dim=1), levels.to(scores.device, non_blocking=True)


def _suppress(boxes: Tensor, scores: Tensor, levels: Tensor, cfg: Mapping[str, Any]) -> list[InstanceData]:
    """NMS within each level of each image.

    It runs image by image: the time and the memory of one for all images would grow with the square of their number.
    Its arithmetic is that of MMCV's ``batched_nms`` to the bit: boxes of different levels are moved apart.
    """
    smallest = cfg.get('min_bbox_size', -1)
    too_small = None
    if smallest >= 0:
        too_small = ~(boxes[..., 2:] - boxes[..., :2] > smallest).all(dim=2)
        if too_small.any():
            # They suppress nothing, and come last.
            boxes = boxes.masked_fill(too_small[..., None], 0)
            scores = scores.masked_fill(too_small, -1)
        else:
            too_small = None
    step = boxes.amax(dim=(1, 2)) + 1
    apart = boxes + (levels * step[:, None])[..., None]
    selected = []
    for number, (of_image, scores_of_image) in enumerate(zip(apart, scores)):
        best = nms(of_image, scores_of_image, cfg['nms']['iou_threshold'], offset=0)
        if too_small is not None:
            best = best[scores_of_image[best] >= 0]
        selected.append(best[: cfg['max_per_img']] + number * boxes.shape[1])
    counts = [len(best) for best in selected]
    selected = torch.cat(selected)
    boxes, scores = boxes.flatten(0, 1)[selected].split(counts), scores.flatten()[selected].split(counts)
    labels = torch.zeros_like(selected).split(counts)
    return [InstanceData(bboxes=b, scores=s, labels=c) for b, s, c in zip(boxes, scores, labels)]
