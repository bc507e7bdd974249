"""Checkpoint files."""

from .training_state import PlainCheckpointHook

__all__ = ['PlainCheckpointHook']
