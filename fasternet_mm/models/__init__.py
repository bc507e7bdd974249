"""Networks of FasterNet."""

from ..registry import MODELS
from .backbone import FasterNet, FasterNetBlock, FasterNetStage, PartialConv, PatchEmbed, PatchMerging

# Registered here, not by a decorator, so that backbone.py works outside this package.
MODELS.register_module(module=FasterNet)

__all__ = ['FasterNet', 'FasterNetBlock', 'FasterNetStage', 'PartialConv', 'PatchEmbed', 'PatchMerging']
