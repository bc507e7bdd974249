"""Metrics and reports."""

from .coco_results import CocoResultsFile, to_coco_results

__all__ = ['CocoResultsFile', 'to_coco_results']
