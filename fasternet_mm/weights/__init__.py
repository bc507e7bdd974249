"""Checkpoints: what was published, where it comes from, how it is read, matched and loaded."""

from .loading import Fit, fit_weights, load_weights
from .pretrained import StrictPretrainedInit
from .sources import read_checkpoint
from .training_state import PlainCheckpointHook

__all__ = ['Fit', 'PlainCheckpointHook', 'StrictPretrainedInit', 'fit_weights', 'load_weights', 'read_checkpoint']
