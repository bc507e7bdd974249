"""Predictions of trained models."""

from .drawing import DrawPredictionsHook
from .optimization import OptimizeHook, optimize
from .predictor import Predictor

__all__ = ['DrawPredictionsHook', 'OptimizeHook', 'Predictor', 'optimize']
