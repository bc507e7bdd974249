"""From an image to what a network takes, as the config's test pipeline prepares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from ..errors import UserError
from .checks import dataset_of_test

READING = {'type', '_scope_', 'backend_args', 'file_client_args'}
"""Arguments of ``LoadImageFromFile`` that do not change the pixels that it reads."""


class ImagePipeline:
    """A config's test pipeline for images that are read already, without annotations.

    Args:
        cfg: an MMDetection or MMSegmentation config.

    Raises:
        UserError: the pipeline reads images in a way of its own.
    """

    def __init__(self, cfg: Config) -> None:
        first, *rest = _steps(dataset_of_test(cfg).pipeline)
        if _kind(first) != 'LoadImageFromFile' or first.keys() - READING:
            raise UserError(
                f'the test pipeline of the config begins with {dict(first)}: predictions need '
                "dict(type='LoadImageFromFile'), which reads 8 bits of color"
            )
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        self.steps = Compose(rest)

    def __call__(self, image: np.ndarray, source: str = '') -> dict[str, Any]:
        """``inputs`` and ``data_samples`` of one image, uint8 ``(H, W, 3)``, BGR, for ``pseudo_collate``."""
        size = image.shape[:2]
        # A copy, since the steps may write into it. The scale is for pipelines without a step that resizes.
        return self.steps(
            dict(img=image.copy(), img_path=source, img_id=0, img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
        )


def resizing(pipeline: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How a test pipeline resizes images, and pads them afterwards.

    Returns:
        In JSON's types: ``scale`` and ``keep_ratio`` as ``Resize`` takes them, and where images are padded ``pad``,
        with the ``size`` (width, height) or the ``size_divisor`` of ``Pad`` and the ``value`` of three channels; {}
        where sizes stay; None where the pipeline does anything else as well.
    """
    steps = _steps(pipeline)
    kinds = [_kind(step) for step in steps]
    if kinds[:1] != ['LoadImageFromFile'] or kinds[-1] not in ('PackDetInputs', 'PackSegInputs'):
        return None
    steps = [{key: value for key, value in step.items() if key not in ('type', '_scope_')} for step in steps[1:-1]]
    if not steps:
        return {}
    resize, *pads = steps
    if kinds[1:-1] not in (['Resize'], ['Resize', 'Pad']) or resize.keys() - {'keep_ratio'} != {'scale'}:
        return None
    scale = resize['scale']
    scale = [scale, scale] if isinstance(scale, int) else list(scale)
    padding = [_padding(pad) for pad in pads]
    if len(scale) != 2 or None in padding:
        return None
    resized = dict(scale=scale, keep_ratio=bool(resize.get('keep_ratio', False)))
    return dict(resized, pad=padding[0]) if padding else resized


def _padding(pad: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `resizing` says of a ``Pad``; None where it pads in another way."""
    extents = pad.keys() - {'pad_val'}
    value = pad.get('pad_val', 0)
    if isinstance(value, Mapping):
        value = value.get('img', 0)
    value = [value] * 3 if isinstance(value, int) else value
    if extents not in ({'size'}, {'size_divisor'}) or not isinstance(value, (list, tuple)) or len(value) != 3:
        return None
    if extents == {'size'}:
        return dict(size=list(pad['size']), value=list(value)) if len(pad['size']) == 2 else None
    return dict(size_divisor=pad['size_divisor'], value=list(value))


def pipeline_that_resizes(resize: Mapping[str, Any], scope: str) -> list[dict[str, Any]]:
    """A test pipeline, for images of any size, that does what `resizing` said."""
    steps = [dict(type='Resize', scale=tuple(resize['scale']), keep_ratio=resize['keep_ratio'])] if resize else []
    if 'pad' in resize:
        pad = dict(resize['pad'])
        steps.append(dict(type='Pad', pad_val=dict(img=tuple(pad.pop('value'))), **pad))
    pack = dict(
        type='PackDetInputs' if scope == 'mmdet' else 'PackSegInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    )
    return [dict(type='LoadImageFromFile'), *steps, pack]


def config_of_model(
    model: Mapping[str, Any], scope: str, classes: Sequence[str], palette: Any, resize: Mapping[str, Any]
) -> Config:
    """A config that is enough for predictions, for a model whose own config is not at hand.

    Args:
        model: its config.
        scope: 'mmdet' or 'mmseg'.
        classes, palette: as in ``metainfo`` of a data set.
        resize: see `resizing`.
    """
    metainfo = dict(classes=tuple(classes))
    if palette:
        metainfo['palette'] = palette
    dataset = dict(
        type='CocoDataset' if scope == 'mmdet' else 'BaseSegDataset',
        metainfo=metainfo,
        pipeline=pipeline_that_resizes(resize, scope),
    )
    return Config(dict(default_scope=scope, model=model, test_dataloader=dict(dataset=dataset)))


def _steps(pipeline: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [step for step in pipeline if _kind(step) != 'LoadAnnotations']


def _kind(step: Mapping[str, Any]) -> str:
    return str(step['type']).rpartition('.')[2]
