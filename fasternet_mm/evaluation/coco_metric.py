"""COCO's metric for training and testing, in MMDetection's place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger

from ..datasets.coco_json import whole_number
from ..errors import UserError
from ..files import write_atomically
from ..models.backbone import InvalidArgument
from ..registry import METRICS
from .coco_evaluation import AREAS, check_tasks, evaluate_task
from .coco_results import CocoResults, check_results, concatenate, to_coco_results
from .coco_truth import CocoTruth, read_truth, to_truth
from .table import class_table

AP_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """COCO's average precision and recall: MMDetection's ``CocoMetric``, with the same options, keys and figures.

    It differs where MMDetection's fails: detections whose box or score is NaN or infinite count nowhere, and the log
    says so; a test run without any detection has AP 0 instead of no figures; 'mAP' without 100 among ``proposal_nums``
    is at the most of them instead of -1; figures per class belong to the class also where the file's ids do not ascend;
    'proposal_fast', which fails on NumPy from 1.24, is not offered.

    Args:
        ann_file: COCO annotations. Default: made from the data set's, which must then come with the samples.
        metric: one or several of 'bbox', 'segm', 'proposal'. Default: 'bbox'.
        classwise: also log and return the AP of each class. Default: False.
        proposal_nums: numbers of detections per image to evaluate at. Default: (100, 300, 1000).
        iou_thrs: one or several IoUs. Default: 0.5, 0.55, …, 0.95.
        metric_items: the figures to return. Default: six APs, or for proposals six ARs.
        format_only: write ``outfile_prefix`` and evaluate nothing. Default: False.
        outfile_prefix: write ``PREFIX.bbox.json``, ``PREFIX.segm.json`` and, without ``ann_file``, ``PREFIX.gt.json``.
            Default: nothing is written.
        results_file: write all detections, boxes and masks, to this one COCO results file. Default: none.
        backend_args: of the file backend that reads ``ann_file``. Default: None.
        collect_device: 'cpu' or 'gpu', what gathers results of several processes. Default: 'cpu'.
        prefix: of the figures' names. Default: 'coco'.
        sort_categories: labels number the file's classes by their ids, not by their place. Default: False.

    Raises:
        InvalidArgument: a metric or item is not known, or ``format_only`` comes without ``outfile_prefix``.
        UserError: ``ann_file`` is missing, not COCO annotations, or without masks for 'segm'.
    """

    default_prefix = 'coco'

    def __init__(
        self,
        ann_file: str | None = None,
        metric: str | Sequence[str] = 'bbox',
        classwise: bool = False,
        proposal_nums: Sequence[int] = (100, 300, 1000),
        iou_thrs: float | Sequence[float] | None = None,
        metric_items: Sequence[str] | None = None,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        results_file: str | PathLike | None = None,
        backend_args: dict[str, Any] | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        sort_categories: bool = False,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.metrics = [metric] if isinstance(metric, str) else list(metric)
        self.classwise = classwise
        self.proposal_nums = sorted(proposal_nums)
        self.iou_thrs = [iou_thrs] if isinstance(iou_thrs, float) else iou_thrs
        self.metric_items = metric_items
        self.format_only = format_only
        self.outfile_prefix = outfile_prefix
        self.results_file = results_file
        self.sort_categories = sort_categories
        self._check_options()
        self.truth: CocoTruth | None = None
        if ann_file is not None:
            with get_local_path(ann_file, backend_args=backend_args) as path:
                self.truth = replace(read_truth(path), source=ann_file)
            if 'segm' in self.metrics:
                self.truth.check_masks()
        self._category_ids: list[int] | None = None

    def _check_options(self) -> None:
        check_tasks(self.metrics)
        most = self.proposal_nums[-1]
        items = [*AP_ITEMS, *(f'AR@{n}' for n in self.proposal_nums), *(f'AR_{a[0]}@{most}' for a in AREAS[1:])]
        unknown = [item for item in self.metric_items or () if item not in items]
        if unknown:
            raise InvalidArgument(f'metric_items has {unknown[0]!r}, which is unknown: use {", ".join(items)}')
        if self.format_only and self.outfile_prefix is None:
            raise InvalidArgument(
                'format_only=True needs outfile_prefix: set it to where the results should be written'
            )

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the detections of each image, masks as RLE, and without ``ann_file`` its annotations."""
        for sample in data_samples:  # one entry an image: MMEngine cuts what it collects to the data set's length
            instances = sample['pred_instances']
            image_id = whole_number(sample['img_id'])
            if image_id is None:
                raise UserError(f'an image has the id {sample["img_id"]!r}: COCO needs whole numbers, of 64 bits')
            detections = to_coco_results(instances, image_id, self.category_ids)
            mask_scores = detections.scores
            if 'mask_scores' in instances:
                mask_scores = instances['mask_scores'].cpu().double().numpy()
            truth = None
            if self.truth is None:
                if 'instances' not in sample:
                    raise UserError(
                        'CocoMetric has no ann_file, and the samples have no annotations: set ann_file, or add '
                        "LoadAnnotations to the test pipeline and 'instances' to PackDetInputs' meta_keys"
                    )
                truth = (*sample['ori_shape'], sample['instances'])
            self.results.append((image_id, detections, mask_scores, truth))

    @property
    def category_ids(self) -> list[int]:
        """The id of each label: the annotations', or the label itself."""
        if self._category_ids is None:
            classes = self.dataset_meta['classes']
            ids = self.truth.ids_of(classes) if self.truth else list(range(len(classes)))
            self._category_ids = sorted(ids) if self.sort_categories else ids
        return self._category_ids

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """The figures, rounded to three digits as MMDetection's are."""
        image_ids, parts, mask_scores, truths = zip(*results)
        detections = concatenate(parts)
        with_masks = replace(detections, scores=np.concatenate(mask_scores))
        truth = self.truth or self._convert_truth(image_ids, truths)
        check_results(detections, truth, 'the detections')
        finite = detections.finite & with_masks.finite
        if not finite.all():
            _warn_of_not_finite(detections, finite)
            detections, with_masks = detections.subset(finite), with_masks.subset(finite)
        if self.outfile_prefix is not None:
            replace(detections, masks=None).write(f'{self.outfile_prefix}.bbox.json')
            if detections.masks is not None:
                with_masks.write(f'{self.outfile_prefix}.segm.json')
        if self.results_file is not None:
            detections.write(self.results_file)
        metrics: dict[str, float] = {}
        for task in [] if self.format_only else self.metrics:
            if task == 'segm' and detections.masks is None:
                raise UserError("the model gives no masks: take 'segm' out of the metric of the config's evaluators")
            metrics |= self._evaluate(task, with_masks if task == 'segm' else detections, truth)
        return metrics

    def _convert_truth(self, image_ids: Sequence[int], truths: Sequence[tuple]) -> CocoTruth:
        """Annotations that came with the samples, as COCO's; an object's area is its box's, as in MMDetection."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id, (height, width, instances) in zip(image_ids, truths):
            images.append(dict(id=image_id, height=height, width=width, file_name=''))
            for instance in instances:
                x1, y1, x2, y2 = (float(value) for value in instance['bbox'])
                annotation = dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=int(instance['bbox_label']),
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=int(instance.get('ignore_flag', 0)),
                )
                if instance.get('mask'):
                    annotation['segmentation'] = instance['mask']
                annotations.append(annotation)
        categories = [dict(id=label, name=name) for label, name in enumerate(self.dataset_meta['classes'])]
        content = dict(images=images, annotations=annotations, categories=categories)
        if self.outfile_prefix is not None:
            write_atomically(f'{self.outfile_prefix}.gt.json', json.dumps(content).encode())
        return to_truth(content, "the data set's annotations")

    def _evaluate(self, task: str, detections: CocoResults, truth: CocoTruth) -> dict[str, float]:
        proposals = task == 'proposal'
        evaluation = evaluate_task(
            truth,
            detections,
            'bbox' if proposals else task,
            category_ids=self.category_ids,
            max_dets=self.proposal_nums,
            iou_thrs=self.iou_thrs,
            class_agnostic=proposals,
        )
        logger = MMLogger.get_current_instance()
        figures = evaluation.summary()
        line = f'{task}: ' + ', '.join(f'{name} {value:.3f}' for name, value in figures.items())
        logger.info(line, extra=dict(for_file=True))  # the terminal gets what is returned
        ap, ar = AP_ITEMS, [name for name in figures if name not in AP_ITEMS]
        items = self.metric_items or (ar if proposals else ap)
        if proposals:  # MMDetection formats these, and rounds those of boxes and masks as NumPy does
            return {name: round(figures[name], 3) for name in items}
        metrics = {}
        if self.classwise:
            classes = evaluation.classes(truth)
            metrics = {
                f'{name}_precision': _rounded(ap) if ap > -1 else float('nan') for name, (ap, *_) in classes.items()
            }
            logger.info(f'\n{class_table(task, classes)}')
        return metrics | {f'{task}_{name}': _rounded(figures[name]) for name in items}


def _warn_of_not_finite(detections: CocoResults, finite: np.ndarray) -> None:
    first = detections.image_ids[~finite][0]
    MMLogger.get_current_instance().warning(
        f'{(~finite).sum()} of {len(finite)} detections have a box or score that is not finite, and count nowhere; '
        f'the first is of image {first}; if the loss is NaN too, train with a lower learning rate'
    )


def _rounded(value: float) -> float:
    return float(np.round(value, 3))
