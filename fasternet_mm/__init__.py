"""FasterNet as a plugin for MMDetection and MMSegmentation.

Importing it loads no PyTorch: the public names bring what they need when they are first used.
"""

from importlib import import_module
from typing import Any

from .extras import needs_openmmlab
from .ops import provide_mmcv_ext
from .version import __version__

provide_mmcv_ext()

PUBLIC = {
    'CocoMetric': 'evaluation.coco_metric',
    'FasterNet': 'models.backbone',
    'FasterNetClassifier': 'models.classifier',
    'Predictor': 'inference.predictor',
    'Tracker': 'inference.tracking',
    'evaluate': 'evaluation.coco_evaluation',
    'export': 'deployment.exporter',
    'load_weights': 'weights.loading',
    'optimize': 'acceleration.optimization',
}
"""The public names, and the modules of this package that define them."""

__all__ = ['__version__', *PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    with needs_openmmlab():
        return getattr(import_module(f'{__name__}.{PUBLIC[name]}'), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
