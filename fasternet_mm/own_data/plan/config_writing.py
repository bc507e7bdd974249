"""Setting a config to one's own data and a recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from ...datasets.checks import set_class_count
from ...files import write_atomically
from ...visualization.palette import default_palette
from ..layouts.annotated_data import Color, DetectionData, OwnData, SegmentationData
from ..layouts.outlines import rectangle
from ..layouts.pixel_values import UNUSED
from .recipe import JITTER, Recipe


def use_data(cfg: Config, data: OwnData, recipe: Recipe, folder: Path) -> None:
    """Set a config's loaders, heads and metrics to this data, whose annotations are written into ``folder``."""
    if isinstance(data, DetectionData):
        _use_objects(cfg, data, recipe, folder)
    else:
        _use_label_maps(cfg, data, recipe, folder)
    set_class_count(cfg.model, len(data.classes))


def use_schedule(cfg: Config, recipe: Recipe) -> None:
    """Set a config's batch, learning rate (a warm-up, then half a cosine), length and evaluations."""
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
    if recipe.task == 'detection':
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=recipe.epochs, val_interval=recipe.interval)
    else:
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=recipe.steps, val_interval=recipe.interval)
    cfg.default_hooks.checkpoint.update(interval=recipe.interval, max_keep_ckpts=1, rule='greater')


def _use_objects(cfg: Config, data: DetectionData, recipe: Recipe, folder: Path) -> None:
    masks = bool(cfg.model.get('roi_head', {}).get('mask_head'))
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=masks)]
    scale = recipe.size[::-1]
    resize = dict(type='Resize', scale=scale, keep_ratio=True)
    jitter = dict(type='RandomResize', scale=scale, ratio_range=JITTER['detection'], keep_ratio=True)
    meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    pipelines = dict(
        train=[*load, jitter, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')],
        val=[load[0], resize, load[1], dict(type='PackDetInputs', meta_keys=meta)],
    )
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
    if isinstance(settings, dict) and settings.get('type') == 'MaxIoUAssigner':
        settings.update(type='fasternet_mm.IgnoringAssigner', ignore_iof_thr=0.5)
    elif isinstance(settings, dict):
        for part in settings.values():
            _spare_ignored_regions(part)
    elif isinstance(settings, (list, tuple)):  # of Cascade R-CNN, a dict for each stage
        for part in settings:
            _spare_ignored_regions(part)


def _use_label_maps(cfg: Config, data: SegmentationData, recipe: Recipe, folder: Path) -> None:
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    scale, crop = recipe.size[::-1], (recipe.crop, recipe.crop)
    pipelines = dict(
        train=[
            *load,
            dict(type='RandomResize', scale=scale, ratio_range=JITTER['segmentation'], keep_ratio=True),
            dict(type='RandomCrop', crop_size=crop, cat_max_ratio=0.75),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ],
        val=[load[0], dict(type='Resize', scale=scale, keep_ratio=True), load[1], dict(type='PackSegInputs')],
    )
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
