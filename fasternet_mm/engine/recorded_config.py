"""The config in a checkpoint: a stranger's, of which only plain values are taken, and nothing is executed.

MMEngine writes a config as Python, and executes it to read it. Even plain values would be dangerous: a ``type`` may
name any function that can be imported, the type of an NMS is evaluated as an expression, and some strings are names of
files that are unpickled. So only numbers and the words that configs like ours need are taken.

A training's checkpoint has the text of its config; a safetensors file of ours has what predictions need of it, in JSON.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from ..datasets.checks import dataset_of_test
from ..datasets.image_pipeline import config_of_model, resizing
from ..errors import UserError
from ..weights.reading import read_meta
from ..weights.sources import local_file

SCOPES = ('mmdet', 'mmseg', 'mmengine', 'mmcv', 'fasternet_mm')

# fmt: off
TYPES = {
    'FasterNet', 'MaskRCNN', 'FasterRCNN', 'EncoderDecoder', 'DetDataPreprocessor', 'SegDataPreProcessor',
    'FPN', 'RPNHead', 'AnchorGenerator', 'DeltaXYWHBBoxCoder', 'StandardRoIHead', 'SingleRoIExtractor',
    'RoIAlign', 'ConvFCBBoxHead', 'Shared2FCBBoxHead', 'Shared4Conv1FCBBoxHead', 'FCNMaskHead', 'UPerHead',
    'FCNHead', 'FPNHead', 'CrossEntropyLoss', 'L1Loss', 'SmoothL1Loss', 'BN', 'SyncBN', 'BN2d', 'GN', 'LN',
    'ReLU', 'GELU', 'SiLU', 'Swish', 'Conv', 'Conv2d', 'nms', 'deconv', 'RTMDet', 'CSPNeXtPAFPN', 'RTMDetHead',
    'RTMDetSepBNHead', 'RTMDetInsHead', 'RTMDetInsSepBNHead', 'MlvlPointGenerator', 'DistancePointBBoxCoder',
    'QualityFocalLoss', 'GIoULoss', 'DiceLoss',
}
"""What ``type`` may be: models, parts and layers that compute and do nothing else."""

WORDS = {
    't0', 't1', 't2', 's', 'm', 'l', 'whole', 'slide', 'resize_concat', 'multiple_select', 'bilinear',
    'nearest', 'on_input', 'on_lateral', 'on_output', 'avg', 'max', 'pytorch', 'caffe', 'mean', 'sum', 'none',
    'tanh',
}
"""What other strings may be: names of variants and modes, none of which names a file or a module."""
# fmt: on

LEFT_OUT = {'init_cfg', 'train_cfg', 'pretrained', 'backend_args'}
"""Keys that only training needs."""

FORMAT_VERSION = 1
"""Of what `described_model` gives."""

LARGEST_SIDE = 2**15
"""Pixels of the longest side that images may be resized or padded to."""


def described_model(cfg: Config, classes: Sequence[str], palette: Sequence[Sequence[int]]) -> dict[str, Any]:
    """What `recorded_config` needs to know of a config, in JSON's types: no paths, and nothing of its training.

    Args:
        cfg: of a trained model.
        classes: of its test set, by label.
        palette: a color for each.

    Raises:
        UserError: nobody could read it, since the config is not like those in ``configs/``.
    """
    resize = resizing(dataset_of_test(cfg).pipeline)
    try:
        if resize is None:
            raise ValueError('the test pipeline')
        config = dict(
            format_version=FORMAT_VERSION,
            default_scope=cfg.default_scope,
            model=_checked(cfg.model),
            resize=resize,
            tile=_checked(cfg.get('tile')),
        )
    except ValueError as error:
        raise UserError(
            f'the config has {error}, which is not read from files of strangers: only models and test pipelines like '
            'those of the configs that come with the package can be published'
        ) from error
    colors = [list(map(int, color)) for color in palette]
    return dict(config=config, dataset_meta=dict(classes=list(classes), palette=colors))


def recorded_config(source: str) -> Config:
    """A config that is enough for predictions of a checkpoint that MMEngine wrote in training, or that was published.

    Args:
        source: see `local_file`.

    Raises:
        UserError: the checkpoint cannot be read, or its config is missing, or is not like those in ``configs/``.
    """
    with local_file(source) as path:
        meta = read_meta(path, source)
    data = meta['dataset_meta'] if isinstance(meta.get('dataset_meta'), dict) else {}
    classes, palette = data.get('classes'), data.get('palette')
    described = isinstance(meta.get('config'), dict)
    if not (described or isinstance(meta.get('cfg'), str)) or not _are_names(classes):
        raise UserError(f'checkpoint {source} does not say its config and classes: give the config before it')
    if described and meta['config'].get('format_version') != FORMAT_VERSION:
        raise UserError(f'checkpoint {source} has a description of another version: update fasternet-mm')
    try:
        values = meta['config'] if described else values_of(meta['cfg'])
        scope = values['default_scope']
        model = {**_checked(values['model']), 'train_cfg': None}
        resize = values['resize'] if described else resizing(values['test_dataloader']['dataset']['pipeline'])
        if scope not in ('mmdet', 'mmseg') or not _is_resizing(resize):
            raise ValueError('the test pipeline')
        cfg = config_of_model(model, scope, classes, _checked_palette(palette), resize)
        if values.get('tile'):
            cfg.tile = _checked_tile(values['tile'])
        return cfg
    except (SyntaxError, ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        # All of these come from the stranger's text: it does not parse, or is not built as a config is.
        raise UserError(
            f'checkpoint {source} has a config that is not read without executing it ({error}): give the config before '
            'it, if you trust its author'
        ) from error


def _are_names(classes: Any) -> bool:
    return isinstance(classes, (list, tuple)) and bool(classes) and all(isinstance(name, str) for name in classes)


def values_of(text: str) -> dict[str, Any]:
    """The assignments of a config without a single expression in it.

    Raises:
        SyntaxError: it is not Python.
        ValueError: it has an expression, which is not executed.
    """
    values = {}
    for statement in ast.parse(text).body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            raise ValueError(f'line {statement.lineno}')
        values[statement.targets[0].id] = _value(statement.value)
    return values


def _value(node: ast.expr) -> Any:
    """A literal; ``dict(key=value)`` counts as one."""
    if isinstance(node, ast.Call):
        unpacked = any(keyword.arg is None for keyword in node.keywords)
        if not isinstance(node.func, ast.Name) or node.func.id != 'dict' or node.args or unpacked:
            raise ValueError(f'line {node.lineno}')
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(key): _value(value) for key, value in zip(node.keys, node.values)}
    if isinstance(node, ast.List):
        return [_value(part) for part in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(part) for part in node.elts)
    return ast.literal_eval(node)


def _is_resizing(resize: Any) -> bool:
    """Whether it is what `resizing` gives, with sizes that images have."""
    pad = resize.get('pad', {})
    sides = [*resize.get('scale', [1, 1]), *pad.get('size', [1, 1]), pad.get('size_divisor', 1)]
    values = pad.get('value', [0] * 3)
    return (
        resize.keys() <= {'scale', 'keep_ratio', 'pad'}
        and pad.keys() <= {'size', 'size_divisor', 'value'}
        and ('pad' not in resize or 'value' in pad)
        and ('keep_ratio' in resize) == ('scale' in resize)
        and len(sides) == 5
        and len(values) == 3
        and all(type(side) is int and 0 < side <= LARGEST_SIDE for side in sides)
        and all(type(value) in (int, float) for value in values)
    )


def _checked_palette(palette: Any) -> list[tuple[int, ...]] | None:
    if isinstance(palette, str) or not palette:
        return None
    colors = [tuple(color) for color in palette]
    if not all(len(color) == 3 and all(type(part) is int and 0 <= part < 256 for part in color) for color in colors):
        raise ValueError('the palette')
    return colors


def _checked_tile(tile: Any) -> dict[str, Any]:
    (height, width), overlap = tile['tile'], tile['overlap']
    if (
        not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in (height, width))
        or not 0.05 <= overlap <= 0.75
    ):
        raise ValueError('the tiles')
    return dict(tile=(height, width), overlap=overlap)


def _checked(value: Any, key: str = '') -> Any:
    """A value without the keys of `LEFT_OUT`, after checking that only numbers and known words are in it."""
    if isinstance(value, Mapping):
        return {name: _checked(part, name) for name, part in value.items() if name not in LEFT_OUT}
    if isinstance(value, (list, tuple)):
        return type(value)(_checked(part, key) for part in value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if key == '_scope_':
        known = value in SCOPES
    elif key == 'type':
        scope, _, name = str(value).rpartition('.')
        known = name in TYPES and scope in ('', *SCOPES)
    else:
        known = value in WORDS | TYPES
    if not isinstance(value, str) or not known:
        raise ValueError(f'{key}={value!r}')
    return value
