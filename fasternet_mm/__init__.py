"""FasterNet as a plugin for MMDetection and MMSegmentation."""

from typing import Any

from . import ops
from .evaluation.coco_metric import CocoMetric
from .models import FasterNet, FasterNetBlock, FasterNetClassifier, FasterNetStage, PartialConv
from .version import __version__
from .weights import load_weights

ops.provide_mmcv_ext()

__all__ = [
    'CocoMetric',
    'FasterNet',
    'FasterNetBlock',
    'FasterNetClassifier',
    'FasterNetStage',
    'PartialConv',
    'Predictor',
    '__version__',
    'load_weights',
]


def __getattr__(name: str) -> Any:
    if name == 'Predictor':  # late, since it brings MMDetection's and MMSegmentation's data sets
        from .inference import Predictor

        return Predictor
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
