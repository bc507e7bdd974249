"""A predictor whose predictions are known by hand, and images for it."""

import threading
import time

import cv2
import numpy as np
from pycocotools import mask as coco_masks

from fasternet_mm.inference.prediction import Prediction
from fasternet_mm.models.backbone import InvalidArgument

CLASSES = 'dark', 'bright, or so'
PALETTE = (230, 60, 60), (60, 120, 230)


class StandIn:
    """Finds two objects in an image of one color.

    The first has the color of the image, red, green and blue, as the first numbers of its box, and the image's width as
    the fourth one. A blue of 255 makes it fail, a blue of 254 is refused.

    Attributes:
        batches: how many images there were in each call.
        gate: an event; while it is not set, predicting waits.
    """

    classes, palette, is_segmenter, batch_size = CLASSES, PALETTE, False, 4

    def __init__(self, *_, batch_size=4, seconds=0.0, **__):
        self.batch_size, self.seconds = batch_size, seconds
        self.batches, self.gate = [], threading.Event()
        self.gate.set()

    def stream(self, images):
        images = list(images)
        self.batches.append(len(images))
        assert self.gate.wait(30)
        time.sleep(self.seconds * len(images))
        assert len(images) <= self.batch_size
        return iter([self.predict(image) for image in images])

    def predict(self, image):
        height, width = image.shape[:2]
        blue, green, red = image[0, 0].tolist()
        if blue == 255:
            raise RuntimeError('too blue\nfor a sentence')
        if blue == 254:
            raise InvalidArgument('an image of this blue is not accepted')
        mask = np.zeros((height, width), np.uint8, order='F')
        mask[: height // 2] = 1
        return Prediction(
            image=image[..., ::-1],
            source='',
            classes=CLASSES,
            palette=PALETTE,
            category_ids=[1, 7],
            boxes=np.array([[red, green, blue, width], [0.12345, 1, 2, 3]], np.float32),
            scores=np.array([0.75, 0.25], np.float32),
            labels=np.array([1, 0]),
            encoded_masks=[coco_masks.encode(mask), coco_masks.encode(1 - mask)],
        )


class StandInSegmenter(StandIn):
    """The upper half is dark, the rest bright but for the last column, which is of no class."""

    is_segmenter = True

    def predict(self, image):
        height, width = image.shape[:2]
        label_map = np.zeros((height, width), np.uint8)
        label_map[height // 2 :] = 1
        label_map[:, -1] = 255
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
        return Prediction(image[..., ::-1], '', CLASSES, PALETTE, [], *nothing, label_map=label_map)


def color_png(red, green, blue, size=(20, 30)):
    return cv2.imencode('.png', np.full((*size, 3), (blue, green, red), np.uint8))[1].tobytes()
