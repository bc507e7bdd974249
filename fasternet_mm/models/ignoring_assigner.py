"""Which candidates of a detector are objects, which are background, and which are neither."""

from __future__ import annotations

from mmdet.models.task_modules import AssignResult, MaxIoUAssigner
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
        as for `mmdet.models.task_modules.MaxIoUAssigner`.
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
