"""Data sets."""

from .datasets import ShapesDataset

__all__ = ['ShapesDataset']
