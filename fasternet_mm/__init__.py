"""FasterNet as a plugin for MMDetection and MMSegmentation."""

from . import ops
from .models import FasterNet, FasterNetBlock, FasterNetStage, PartialConv
from .version import __version__

ops.provide_mmcv_ext()

__all__ = ['FasterNet', 'FasterNetBlock', 'FasterNetStage', 'PartialConv', '__version__']
