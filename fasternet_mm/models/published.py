"""What the authors of FasterNet report (arXiv 2303.03667); nothing here was measured by this project."""

from __future__ import annotations

from typing import NamedTuple


class ClassifierFigures(NamedTuple):
    """A variant at 224x224: parameters in M, multiply-adds in G (the paper's FLOPs), ImageNet-1k top-1 in per cent."""

    parameters: float
    gmacs: float
    top1: float


class DetectorFigures(NamedTuple):
    """Mask R-CNN at 800x1280 (H x W): parameters in M, multiply-adds in G (the paper's FLOPs)."""

    parameters: float
    gmacs: float


CLASSIFIERS = {
    't0': ClassifierFigures(3.9, 0.34, 71.9),
    't1': ClassifierFigures(7.6, 0.85, 76.2),
    't2': ClassifierFigures(15.0, 1.90, 78.9),
    's': ClassifierFigures(31.1, 4.55, 81.3),
    'm': ClassifierFigures(53.5, 8.72, 83.0),
    'l': ClassifierFigures(93.4, 15.49, 83.5),
}

MASK_RCNN = {'s': DetectorFigures(49.0, 258)}


class DetectorAccuracy(NamedTuple):
    """AP of boxes and of masks on COCO val2017, in per cent."""

    box: float
    mask: float


MASK_RCNN_AP = {
    's': DetectorAccuracy(39.9, 36.9),
    'm': DetectorAccuracy(43.0, 39.1),
    'l': DetectorAccuracy(44.0, 39.9),
}
