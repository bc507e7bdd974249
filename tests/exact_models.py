"""Stand-ins for models that are exact, in the place of `test_step`: what is put together of their parts must be."""

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample


def find_shapes(data, with_masks=True):
    """A detector that is exact: each connected bright region of a channel is an object of the class with its number.

    The smaller it is the higher its score, so that halves of objects have higher scores than whole ones.
    """
    samples = []
    for image in data['inputs']:
        boxes, labels, masks = [], [], []
        for label, channel in enumerate(image.numpy()):
            count, regions, stats, _ = cv2.connectedComponentsWithStats((channel > 128).astype(np.uint8))
            for number in range(1, count):
                left, top, width, height, _ = stats[number]
                boxes.append((left, top, left + width, top + height))
                labels.append(label)
                masks.append(regions == number)
        areas = torch.tensor([mask.sum() for mask in masks], dtype=torch.float32)
        objects = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            scores=1 / (1 + areas),
            labels=torch.tensor(labels, dtype=torch.int64),
        )
        if with_masks:
            objects.masks = torch.from_numpy(np.array(masks, bool).reshape(-1, *image.shape[1:]))
        samples.append(DetDataSample(pred_instances=objects))
    return samples


def label_pixels(data):
    return [SegDataSample(pred_sem_seg=PixelData(data=image[:1].long())) for image in data['inputs']]
