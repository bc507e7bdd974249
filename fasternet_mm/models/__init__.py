"""Networks of FasterNet."""

from ..registry import MODELS
from .backbone import FasterNet, FasterNetBlock, FasterNetStage, PartialConv, PatchEmbed, PatchMerging
from .classifier import FasterNetClassifier

# Registered here, not by a decorator, so that backbone.py works outside this package.
MODELS.register_module(module=FasterNet)
MODELS.register_module(module=FasterNetClassifier)

__all__ = [
    'FasterNet',
    'FasterNetBlock',
    'FasterNetClassifier',
    'FasterNetStage',
    'PartialConv',
    'PatchEmbed',
    'PatchMerging',
]
