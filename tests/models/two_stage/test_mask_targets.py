"""Mask targets of a batch against MMDetection's, image by image."""

import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks, PolygonMasks, mask_target
from mmengine.config import ConfigDict

from fasternet_mm.models.two_stage import mask_targets as module
from fasternet_mm.models.two_stage.mask_targets import mask_targets


def random_boxes(generator, count, extent):
    corners = generator.uniform(-0.2 * extent, 1.2 * extent, (2, count, 2))
    return torch.from_numpy(np.concatenate((corners.min(0), corners.max(0)), axis=1)).float()


def random_masks(generator, count, height, width):
    masks = np.zeros((count, height, width), np.uint8)
    for mask in masks:
        top, bottom = sorted(generator.integers(0, height, 2))
        left, right = sorted(generator.integers(0, width, 2))
        mask[top : bottom + 1, left : right + 1] = 1
    return BitmapMasks(masks, height, width)


def random_batch(generator, images):
    """Per image: masks, boxes of RoIs, and each RoI's object. Some images have no objects, or no RoIs."""
    batch = []
    height, width = generator.integers(20, 60, 2)
    for _ in range(images):
        if generator.random() < 0.3:
            height, width = generator.integers(20, 60, 2)
        masks = random_masks(generator, generator.integers(0, 6), height, width)
        rois = generator.integers(0, 9) if len(masks) else 0
        batch.append((masks, random_boxes(generator, rois, 60), generator.integers(0, max(1, len(masks)), rois)))
    return zip(*batch)


@pytest.mark.parametrize('largest_group', [module.LARGEST_GROUP, 4000])
@pytest.mark.parametrize('settings', [dict(mask_size=28), dict(mask_size=(7, 14), soft_mask_target=True)])
def test_they_are_mmdetections(largest_group, settings, monkeypatch):
    monkeypatch.setattr(module, 'LARGEST_GROUP', largest_group)
    generator = np.random.default_rng(0)
    for _ in range(100):
        masks, boxes, objects = random_batch(generator, generator.integers(1, 5))
        images = np.repeat(np.arange(len(boxes)), [len(own) for own in boxes])
        targets = mask_targets(masks, torch.cat(boxes), images, np.concatenate(objects), settings)
        of_images = [torch.from_numpy(own) for own in objects]
        expected = mask_target([own.clone() for own in boxes], of_images, masks, ConfigDict(settings))
        assert torch.equal(targets, expected)


def test_each_mask_is_on_the_device_once_and_none_without_roi(monkeypatch):
    masks = [random_masks(np.random.default_rng(0), count, 30, 40) for count in (5, 3)]
    calls = []
    monkeypatch.setattr(module, 'align_rois', lambda x, *args: calls.append(len(x)) or x.new_zeros(8, 1, 2, 2))
    images, objects = np.array([0, 0, 0, 0, 0, 1, 1, 1]), np.array([4, 1, 4, 4, 1, 2, 2, 2])
    mask_targets(masks, random_boxes(np.random.default_rng(1), 8, 40), images, objects, dict(mask_size=2))
    assert calls == [3]


def test_polygons_are_cropped_as_in_mmdetection():
    generator = np.random.default_rng(0)
    boxes = [random_boxes(generator, 6, 40), random_boxes(generator, 3, 40)]
    masks = [PolygonMasks([[generator.uniform(0, 40, 8)] for _ in range(4)], 40, 40) for _ in boxes]
    objects = np.array([0, 3, 2, 2, 1, 0, 1, 1, 3])
    cfg = ConfigDict(mask_size=14)
    targets = mask_targets(masks, torch.cat(boxes), np.array([0] * 6 + [1] * 3), objects, cfg)
    of_images = torch.from_numpy(objects).split([6, 3])
    expected = mask_target([own.clone() for own in boxes], of_images, masks, cfg)
    assert targets.any()
    assert torch.equal(targets, expected)
