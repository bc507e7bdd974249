"""Data sets."""

from .datasets import ShapesDataset, ShapesSegDataset

__all__ = ['ShapesDataset', 'ShapesSegDataset']
