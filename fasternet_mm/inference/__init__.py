"""Predictions of trained models."""

from .drawing import DrawPredictionsHook
from .label_map_files import WriteLabelMapsHook
from .optimization import OptimizeHook, optimize
from .prediction import Prediction
from .predictor import Predictor

__all__ = ['DrawPredictionsHook', 'OptimizeHook', 'Prediction', 'Predictor', 'WriteLabelMapsHook', 'optimize']
