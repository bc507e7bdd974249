"""Setting a config to one's own data and a recipe."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from ...datasets.checks import learns_masks, set_class_count
from ...files import write_atomically
from ...visualization.palette import default_palette
from ..layouts.annotated_data import Color, DetectionData, OwnData, SegmentationData
from ..layouts.outlines import rectangle
from ..layouts.pixel_values import UNUSED
from .augmentation import detection_pipelines, segmentation_pipelines
from .class_balance import RARE
from .recipe import Recipe

LOSS_IMAGES = 100
"""The most validation images whose loss is computed: their mean shows overfitting, and more would only take time."""

LEAST_REGIONS = dict(sampled=128, classified=300)
"""From scratch, the fewest regions of an image that a box head learns from, and later classifies: twice what Fast R-CNN
samples (arXiv 1504.08083, section 2.3), and what Faster R-CNN classifies (arXiv 1506.01497, section 4.1). MMDetection's
512 and 1,000 are for box heads without convolutions, to which a region is five times as cheap."""

REGIONS_PER_OBJECT = dict(sampled=4, classified=10)
"""The same, for each object of the image with the most. A quarter of those sampled are to be on objects."""

LARGEST_GRADIENT = 35.0
"""The norm that gradients are cut to from scratch, where the config cuts none: MMDetection's usual number, above that
of most steps."""

REPLACED_HOOKS = {'EMAHook', 'PipelineSwitchHook', 'YOLOXModeSwitchHook'}
"""Hooks of a config that are for its own data and schedule: the recipe has its own in their place."""

CENTER_ASSIGNERS = dict(ATSSAssigner=False, TaskAlignedAssigner=False, DynamicSoftLabelAssigner=True)
"""MMDetection's assigners by centers, and whether their candidates are points with strides instead of boxes."""

SPARING_HEADS = frozenset(
    ('RetinaHead', 'ATSSHead', 'GFLHead', 'TOODHead', 'RTMDetHead', 'RTMDetSepBNHead')
    + ('RTMDetInsHead', 'RTMDetInsSepBNHead')
)
"""Heads of single-stage detectors whose losses leave out candidates that the assigner does not sample."""


def use_data(cfg: Config, data: OwnData, recipe: Recipe, folder: Path) -> None:
    """Set a config's loaders, heads and metrics to this data, whose annotations are written into ``folder``."""
    hooks = cfg.get('custom_hooks') or []
    cfg.custom_hooks = [hook for hook in hooks if str(hook['type']).rpartition('.')[2] not in REPLACED_HOOKS]
    if isinstance(data, DetectionData):
        _use_objects(cfg, data, recipe, folder)
    else:
        _use_label_maps(cfg, data, recipe, folder)
    set_class_count(cfg.model, len(data.classes))


def use_schedule(cfg: Config, recipe: Recipe, patience: int | None = None) -> None:
    """Set a config's batch, learning rate (a warm-up, then half a cosine), length, evaluations and averages.

    Args:
        cfg: with the data of the training; it is changed.
        recipe: what was decided.
        patience: the evaluations in a row without a better one after which training ends. Default: it does not.
    """
    cfg.train_dataloader.batch_size = recipe.batch
    cfg.optim_wrapper.optimizer.lr = recipe.lr
    warmup = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=recipe.warmup)
    cosine = dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=recipe.warmup,
        end=recipe.steps,
        T_max=recipe.steps - recipe.warmup,
        eta_min=recipe.lr / 100,
    )
    cfg.param_scheduler = [warmup, cosine] if recipe.warmup else [cosine]
    cfg.auto_scale_lr = dict(enable=False, base_batch_size=recipe.images_per_step)
    if patience:
        stop = dict(type='fasternet_mm.EarlyStoppingHook', monitor=cfg.default_hooks.checkpoint.save_best)
        cfg.custom_hooks = [*cfg.custom_hooks, ConfigDict(stop, rule='greater', min_delta=1e-6, patience=patience)]
    if 'average' in recipe.ingredients:
        average = dict(
            type='EMAHook', ema_type='mmdet.ExpMomentumEMA', momentum=recipe.momentum, gamma=recipe.warmup or 1
        )
        cfg.custom_hooks = [*cfg.custom_hooks, ConfigDict(average, update_buffers=True, priority=49)]
    if recipe.task == 'detection':
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=recipe.epochs, val_interval=recipe.interval)
    else:
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=recipe.steps, val_interval=recipe.interval)
    cfg.default_hooks.checkpoint.update(interval=recipe.interval, max_keep_ckpts=1, rule='greater')


def begin_from_scratch(cfg: Config, data: OwnData) -> None:
    """Change a config's model so that it learns from random weights: norms in the neck and heads that have none.

    Without trained weights, gradients through many layers without a norm vanish or explode (He et al., arXiv
    1811.08883). A box head of fully connected layers alone, which can have no norm, gets convolutions before them, and
    fewer regions, since each costs it more.
    """
    cfg.from_scratch = True
    cfg.optim_wrapper.setdefault('clip_grad', dict(max_norm=LARGEST_GRADIENT))
    norm = dict(type='SyncBN')
    neck, heads = cfg.model.get('neck') or {}, cfg.model.get('roi_head') or {}
    if str(neck.get('type')).endswith('FPN') and not neck.get('norm_cfg'):
        neck.norm_cfg = norm
    box_head, mask_head = heads.get('bbox_head') or {}, heads.get('mask_head') or {}
    if str(box_head.get('type')).endswith('Shared2FCBBoxHead'):
        width = box_head.in_channels
        box_head.update(
            type='ConvFCBBoxHead', num_shared_convs=2, num_shared_fcs=1, conv_out_channels=width, norm_cfg=norm
        )
        sampler, proposals = cfg.model.train_cfg.rcnn.sampler, cfg.model.test_cfg.rpn
        sampler.num = min(sampler.num, _regions(data, 'sampled'))
        proposals.max_per_img = min(proposals.max_per_img, _regions(data, 'classified'))
    if mask_head and not mask_head.get('norm_cfg'):
        mask_head.norm_cfg = norm


def _regions(data: DetectionData, kind: str) -> int:
    contents = data.splits.items()
    objects = Counter((split, obj['image_id']) for split, content in contents for obj in content['annotations'])
    return max(LEAST_REGIONS[kind], REGIONS_PER_OBJECT[kind] * max(objects.values(), default=0))


def _use_objects(cfg: Config, data: DetectionData, recipe: Recipe, folder: Path) -> None:
    masks = learns_masks(cfg)
    pipelines = detection_pipelines(recipe, masks)
    for split, content in data.splits.items():
        if masks:
            content = {**content, 'annotations': [_with_outline(obj) for obj in content['annotations']]}
        write_atomically(folder / f'{split}.json', json.dumps(content).encode())
    settings = dict(
        type='CocoDataset',
        data_prefix=dict(img=str(data.root.absolute()) + os.sep),
        filter_cfg=dict(filter_empty_gt=False, min_size=1),  # images without objects teach what background is
    )
    _set_datasets(cfg, data, folder, pipelines, default_palette(len(data.classes)), settings)
    if 'balance' in recipe.ingredients:
        balanced = dict(type='ClassBalancedDataset', oversample_thr=RARE, dataset=cfg.train_dataloader.dataset)
        cfg.train_dataloader.dataset = ConfigDict(balanced)
    if 'mosaic' in recipe.ingredients or 'color' in recipe.ingredients:
        switch = dict(type='fasternet_mm.PipelineSwitchHook', switch_pipeline=pipelines['last'])
        cfg.custom_hooks = [*cfg.custom_hooks, ConfigDict(switch, switch_epoch=recipe.plain_from)]
    # Necks that bring maps together need sides that all strides divide.
    cfg.model.data_preprocessor.update(pad_size_divisor=32, pad_mask=masks)
    _spare_ignored_regions(cfg.model.get('train_cfg'))
    if data.ignored_regions['train']:
        # A process that gets only images which a crowd covers has nothing for its classifier to learn in that step.
        cfg.find_unused_parameters = True
    metric = ['bbox', 'segm'] if masks else ['bbox']
    evaluator = dict(type='fasternet_mm.CocoMetric', metric=metric)
    cfg.val_evaluator = ConfigDict(evaluator, ann_file=cfg.val_dataloader.dataset.ann_file)
    cfg.test_evaluator = ConfigDict(evaluator, ann_file=cfg.test_dataloader.dataset.ann_file)
    cfg.default_hooks.checkpoint.save_best = f'coco/{metric[-1]}_mAP'


def _with_outline(annotation: dict[str, Any]) -> dict[str, Any]:
    """An annotation as loaders of masks need it: ignored regions may be boxes alone, which are their outlines then."""
    x, y, width, height = annotation['bbox']
    return {'segmentation': [rectangle(x, y, x + width, y + height)], **annotation}


def _spare_ignored_regions(settings: Any) -> None:
    """Replace the assigners of a detector's training settings, which take crowds and difficult objects for background.

    This is done for all data, so that configs are alike: without such objects, both assigners give the same.
    """
    for assigner in _assigners(settings):
        if assigner.type == 'MaxIoUAssigner':
            assigner.update(type='fasternet_mm.IgnoringAssigner', ignore_iof_thr=0.5)
        elif assigner.type in CENTER_ASSIGNERS:
            original = dict(assigner)
            assigner.clear()
            points = CENTER_ASSIGNERS[original['type']]
            assigner.update(type='fasternet_mm.CenterIgnoringAssigner', assigner=original, points=points)


def spares_ignored_regions(model: Any) -> bool:
    """Whether training by a model's config, after `use_data`, takes crowds and difficult objects for no background.

    Heads that leave out what their assigner does not sample are known by name; those of YOLOX, FCOS and other methods
    learn whatever is no object as background.
    """
    head = str((model.get('bbox_head') or {}).get('type')).split('.')[-1]
    ours = all(assigner.type.startswith('fasternet_mm.') for assigner in _assigners(model.get('train_cfg')))
    return ours and ('roi_head' in model or head in SPARING_HEADS)


def _assigners(settings: Any) -> Iterator[ConfigDict]:
    """The configs of assigners in a detector's training settings: of Cascade R-CNN, these are lists of dicts."""
    if isinstance(settings, dict) and str(settings.get('type')).endswith('Assigner'):
        yield settings
        return
    parts = settings.values() if isinstance(settings, dict) else settings
    for part in parts if isinstance(settings, (dict, list, tuple)) else ():
        yield from _assigners(part)


def _use_label_maps(cfg: Config, data: SegmentationData, recipe: Recipe, folder: Path) -> None:
    pipelines, crop = segmentation_pipelines(recipe), (recipe.crop, recipe.crop)
    for split, pairs in data.splits.items():
        records = [dict(img_path=str(image.absolute()), seg_map_path=str(labels.absolute())) for image, labels in pairs]
        write_atomically(folder / f'{split}.json', json.dumps(records).encode())
    settings = dict(type='fasternet_mm.LabelMapDataset', reduce_zero_label=False)
    _set_datasets(cfg, data, folder, pipelines, data.palette, settings)
    for evaluator in ('val_evaluator', 'test_evaluator'):
        cfg[evaluator] = ConfigDict(type='IoUMetric', iou_metrics=['mIoU'], ignore_index=UNUSED)
    cfg.default_hooks.checkpoint.save_best = 'mIoU'
    cfg.model.data_preprocessor.size = crop
    cfg.model.test_cfg.update(crop_size=crop, stride=(recipe.crop * 2 // 3,) * 2)
    cfg.model.data_preprocessor.seg_pad_val = UNUSED
    for key in ('decode_head', 'auxiliary_head'):
        heads = cfg.model.get(key) or []
        for head in heads if isinstance(heads, (list, tuple)) else [heads]:
            head.ignore_index = UNUSED


def _set_datasets(
    cfg: Config,
    data: OwnData,
    folder: Path,
    pipelines: dict[str, list[dict[str, Any]]],
    palette: Sequence[Color],
    settings: dict[str, Any],
) -> None:
    """Let each dataloader read a part of the data, with its classes, by the pipeline of train or of val."""
    for name in ('train', 'val', 'test'):
        split = 'val' if name == 'test' and 'test' not in data.splits else name
        dataset = dict(
            ann_file=str(folder / f'{split}.json'),
            metainfo=dict(classes=tuple(data.classes), palette=[tuple(color) for color in palette]),
            pipeline=pipelines['train' if name == 'train' else 'val'],
            **settings,
        )
        if name != 'train':
            dataset['test_mode'] = True
        cfg[f'{name}_dataloader'].dataset = ConfigDict(dataset)
    count = len(data.image_paths['val'])
    spread = list(range(0, count, math.ceil(count / LOSS_IMAGES)))
    dataset = dict(cfg.val_dataloader.dataset, pipeline=pipelines['loss'], indices=spread)
    loader = dict(cfg.val_dataloader, batch_size=1, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.custom_hooks = [*cfg.custom_hooks, ConfigDict(type='fasternet_mm.ValidationLossHook', dataloader=loader)]
