"""The config in a training checkpoint: a stranger's text, which is parsed and never executed.

MMEngine writes a config as Python, and executes it to read it. Even plain values would be dangerous: a ``type`` may
name any function that can be imported, the type of an NMS is evaluated as an expression, and some strings are names of
files that are unpickled. So only numbers and the words that configs like ours need are taken.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

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


def recorded_config(source: str) -> Config:
    """A config that is enough for predictions of a checkpoint that MMEngine wrote in training.

    Args:
        source: see `local_file`.

    Raises:
        UserError: the checkpoint cannot be read, or its config is missing, or is not like those in ``configs/``.
    """
    with local_file(source) as path:
        meta = read_meta(path, source)
    data = meta['dataset_meta'] if isinstance(meta.get('dataset_meta'), dict) else {}
    classes, palette = data.get('classes'), data.get('palette')
    if not isinstance(meta.get('cfg'), str) or not _are_names(classes):
        raise UserError(f'checkpoint {source} does not say its config and classes: give the config before it')
    try:
        values = values_of(meta['cfg'])
        scope = values['default_scope']
        model = {**_checked(values['model']), 'train_cfg': None}
        resize = resizing(values['test_dataloader']['dataset']['pipeline'])
        if scope not in ('mmdet', 'mmseg') or resize is None:
            raise ValueError('the test pipeline')
        return config_of_model(model, scope, classes, _checked(palette), _checked(resize))
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
