"""Networks of FasterNet."""

from ..registry import MODELS
from .backbone import FasterNet, FasterNetBlock, FasterNetModule, FasterNetStage, PartialConv, PatchEmbed, PatchMerging
from .classifier import FasterNetClassifier

# Here, not in backbone.py, so that it works outside this package.
MODELS.register_module(module=FasterNet)
MODELS.register_module(module=FasterNetClassifier)
FasterNetModule.pretrained_scope = MODELS.scope  # its `Pretrained` loads strictly and safely

__all__ = [
    'FasterNet',
    'FasterNetBlock',
    'FasterNetClassifier',
    'FasterNetStage',
    'PartialConv',
    'PatchEmbed',
    'PatchMerging',
]
