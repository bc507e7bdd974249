"""Which candidates of a detector are objects, which are background, and which are neither."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from mmdet import registry
from mmdet.models.task_modules import AssignResult, BaseAssigner, MaxIoUAssigner
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData

from ..registry import TASK_UTILS


@TASK_UTILS.register_module()
class IgnoringAssigner(MaxIoUAssigner):
    """MMDetection's assigner by IoU, for which ignored regions (crowds, difficult objects) are no background.

    Candidates are assigned to objects as if there were no ignored regions. Of those that became background, the ones
    that lie in an ignored region to more than ``ignore_iof_thr`` of their own area are not sampled at all. Without
    ignored regions, or with a negative ``ignore_iof_thr``, the result is `MaxIoUAssigner`'s.

    `MaxIoUAssigner` with the same ``ignore_iof_thr`` differs twice: an image without objects is all background there,
    whatever is ignored; and an object inside an ignored region is not learned.

    Args:
        kwargs: as for `mmdet.models.task_modules.MaxIoUAssigner`.
    """

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs,
    ) -> AssignResult:
        """Assign each candidate.

        Args:
            pred_instances: with ``priors`` of shape (n, 4): the candidates, x1, y1, x2, y2.
            gt_instances: with ``bboxes`` of shape (k, 4) and ``labels`` of shape (k,).
            gt_instances_ignore: with ``bboxes`` of shape (m, 4): the ignored regions.

        Returns:
            ``gt_inds`` of shape (n,): the object's number from 1, 0 for background, -1 for what is not sampled.
        """
        result = super().assign(pred_instances, gt_instances, None, **kwargs)
        priors = pred_instances.priors
        if self.ignore_iof_thr < 0 or gt_instances_ignore is None or not len(gt_instances_ignore) or not len(priors):
            return result
        overlaps = self.iou_calculator(priors, gt_instances_ignore.bboxes, mode='iof')
        ignored = overlaps.max(dim=1).values > self.ignore_iof_thr
        result.gt_inds[ignored & (result.gt_inds == 0)] = -1
        return result


@TASK_UTILS.register_module()
class CenterIgnoringAssigner(BaseAssigner):
    """An assigner of MMDetection's by centers, for which ignored regions (crowds, difficult objects) are no background.

    ATSS, TOOD and RTMDet give an object only candidates whose center is inside it. In the same way, of the candidates
    that became background, those whose center is inside an ignored region are not sampled at all. Objects are assigned
    as if there were no ignored regions.

    Args:
        assigner: the config of the assigner.
        points: whether candidates are points with strides, x, y, width, height, as RTMDet's, instead of boxes, x1, y1,
            x2, y2. Default: False.
    """

    def __init__(self, assigner: Mapping[str, Any], points: bool = False) -> None:
        self.assigner = registry.TASK_UTILS.build(assigner)
        self.points = points
        self.signature = inspect.signature(self.assigner.assign)

    def assign(self, *args: Any, **kwargs: Any) -> AssignResult:
        """Assign each candidate.

        Args:
            as for the assigner's own method. ``pred_instances`` has ``priors`` of shape (n, 4), and
            ``gt_instances_ignore``, where there are any, ``bboxes`` of shape (m, 4): the ignored regions.

        Returns:
            ``gt_inds`` of shape (n,): the object's number from 1, 0 for background, -1 for what is not sampled.
        """
        call = self.signature.bind(*args, **kwargs)
        regions = call.arguments.get('gt_instances_ignore')
        call.arguments['gt_instances_ignore'] = None
        result = self.assigner.assign(*call.args, **call.kwargs)
        if regions is None or not len(regions):
            return result
        priors = call.arguments['pred_instances'].priors
        centers = priors[:, None, :2] if self.points else (priors[:, None, :2] + priors[:, None, 2:]) / 2
        first, last = get_box_tensor(regions.bboxes).split(2, dim=1)
        inside = torch.cat((centers > first, centers < last), dim=2).all(dim=2).any(dim=1)
        result.gt_inds[inside & (result.gt_inds == 0)] = -1
        return result
