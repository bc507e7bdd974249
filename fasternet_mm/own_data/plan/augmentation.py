"""How images are read and, in training, varied: the steps of MMDetection's and MMSegmentation's pipelines."""

from __future__ import annotations

import math
from typing import Any

from .recipe import JITTER, MOSAIC_JITTER, Recipe

Step = dict[str, Any]

META = 'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'
"""What a detector has to know of an image in testing."""

CACHED_IMAGES = 40
"""Images that each worker keeps for mosaics, so that each one is read once an epoch; RTMDet's number."""


def detection_pipelines(recipe: Recipe, masks: bool) -> dict[str, list[Step]]:
    """Steps for a detector: 'train', 'last' at the end of training, 'val', and 'loss' for that of validation images.

    Args:
        recipe: what was decided.
        masks: whether masks are read too.
    """
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=masks)]
    scale = recipe.size[::-1]
    color = [dict(type='YOLOXHSVRandomAug')] if 'color' in recipe.ingredients else []
    flip = dict(type='RandomFlip', prob=0.5)
    resize = dict(type='Resize', scale=scale, keep_ratio=True)
    jitter = dict(type='RandomResize', scale=scale, ratio_range=JITTER['detection'], keep_ratio=True)
    return dict(
        train=[*load, *(_mosaic(recipe, masks) or [jitter]), *color, flip, dict(type='PackDetInputs')],
        last=[*load, jitter, flip, dict(type='PackDetInputs')],
        val=[load[0], resize, load[1], dict(type='PackDetInputs', meta_keys=META)],
        loss=[*load, resize, dict(type='PackDetInputs')],  # annotations are resized too
    )


def _mosaic(recipe: Recipe, masks: bool) -> list[Step]:
    """Four images around a random point, of which a random part of an image's size is seen (arXiv 2004.10934)."""
    if 'mosaic' not in recipe.ingredients:
        return []
    # The part has whole strides of the coarsest map, so that nothing has to be padded.
    height, width = (32 * math.ceil(side / 32) for side in recipe.size)
    # MMDetection takes the width for the height where it puts masks together: with masks both are the same.
    quarter = (width, width) if masks else (width, height)
    whole = tuple(2 * side for side in quarter)
    steps = [
        dict(type='CachedMosaic', img_scale=quarter, pad_val=114.0, max_cached_images=CACHED_IMAGES),
        dict(type='RandomResize', scale=whole, ratio_range=MOSAIC_JITTER, keep_ratio=True),
        dict(type='RandomCrop', crop_size=(width, height), recompute_bbox=masks, allow_negative_crop=True),
    ]
    # Of a mask at the edge of the part, nothing may be left.
    return [*steps, dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False)]


def segmentation_pipelines(recipe: Recipe) -> dict[str, list[Step]]:
    """Steps for a segmenter: 'train', 'val', and 'loss' for that of validation images."""
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    scale = recipe.size[::-1]
    resize = dict(type='Resize', scale=scale, keep_ratio=True)
    color = [dict(type='PhotoMetricDistortion')] if 'color' in recipe.ingredients else []
    return dict(
        train=[
            *load,
            dict(type='RandomResize', scale=scale, ratio_range=JITTER['segmentation'], keep_ratio=True),
            dict(type='RandomCrop', crop_size=(recipe.crop, recipe.crop), cat_max_ratio=0.75),
            dict(type='RandomFlip', prob=0.5),
            *color,
            dict(type='PackSegInputs'),
        ],
        val=[load[0], resize, load[1], dict(type='PackSegInputs')],
        loss=[*load, resize, dict(type='PackSegInputs')],  # label maps are resized too
    )
