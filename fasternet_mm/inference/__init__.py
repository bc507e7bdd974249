"""Predictions of trained models."""

from .drawing import DrawPredictionsHook
from .predictor import Predictor

__all__ = ['DrawPredictionsHook', 'Predictor']
