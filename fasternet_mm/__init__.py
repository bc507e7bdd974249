"""FasterNet as a plugin for MMDetection and MMSegmentation.

Importing it loads no PyTorch: the public names bring what they need when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .extras import needs_openmmlab
from .ops import provide_mmcv_ext
from .version import __version__ as __version__

if TYPE_CHECKING:  # the public names once more, for editors and type checkers, which do not run the code
    from .acceleration.optimization import optimize as optimize
    from .deployment.exporter import export as export
    from .engine.hub_model import from_pretrained as from_pretrained
    from .evaluation.coco_evaluation import evaluate as evaluate
    from .evaluation.coco_metric import CocoMetric as CocoMetric
    from .inference.prediction import Prediction as Prediction
    from .inference.predictor import Predictor as Predictor
    from .inference.tracking import Tracker as Tracker
    from .models.backbone import FasterNet as FasterNet
    from .models.classifier import FasterNetClassifier as FasterNetClassifier
    from .weights.loading import load_weights as load_weights

provide_mmcv_ext()

PUBLIC = {
    'CocoMetric': 'evaluation.coco_metric',
    'FasterNet': 'models.backbone',
    'FasterNetClassifier': 'models.classifier',
    'Prediction': 'inference.prediction',
    'Predictor': 'inference.predictor',
    'Tracker': 'inference.tracking',
    'evaluate': 'evaluation.coco_evaluation',
    'export': 'deployment.exporter',
    'from_pretrained': 'engine.hub_model',
    'load_weights': 'weights.loading',
    'optimize': 'acceleration.optimization',
}
"""The public names, and the modules of this package that define them."""

__all__ = ['__version__', *PUBLIC]

if not TYPE_CHECKING:  # with it, every name would exist for a type checker

    def __getattr__(name: str) -> Any:
        if name not in PUBLIC:
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
        with needs_openmmlab():
            return getattr(import_module(f'{__name__}.{PUBLIC[name]}'), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
