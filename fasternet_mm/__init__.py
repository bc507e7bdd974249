"""FasterNet as a plugin for MMDetection and MMSegmentation."""

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
    '__version__',
    'load_weights',
]
