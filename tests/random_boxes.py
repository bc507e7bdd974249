"""Boxes for tests that compare with somebody else's arithmetic."""

import numpy as np
import torch


def random_boxes(generator, count, height, width):
    """``(count, 4)``, xyxy, small and large ones, inside an image."""
    start = generator.uniform(0, 0.8, (count, 2))
    boxes = np.concatenate((start, (start + generator.uniform(0.05, 0.6, (count, 2))).clip(max=1)), axis=1)
    return torch.from_numpy(boxes * (width, height, width, height)).float()
