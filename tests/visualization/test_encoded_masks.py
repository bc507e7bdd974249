"""Masks that are decoded when they are drawn, against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco_masks

from fasternet_mm.visualization import encoded_masks
from fasternet_mm.visualization.encoded_masks import EncodedMasks


@pytest.fixture
def mask():
    mask = np.zeros((300, 500), np.uint8, order='F')
    mask[40:90, 110:160] = np.random.default_rng(0).integers(0, 2, (50, 50))
    return mask


@pytest.mark.parametrize('size', [(300, 500), (100, 125), (77, 203), (1, 1)])
def test_a_mask_has_the_pixels_in_the_middle_of_those_of_the_drawing(mask, size):
    rows, columns = (((np.arange(side) + 0.5) * length / side).astype(int) for side, length in zip(size, mask.shape))
    decoded = EncodedMasks([coco_masks.encode(mask)], size)[0]
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, mask[np.ix_(rows, columns)])


def test_an_empty_mask_has_none():
    nothing = coco_masks.encode(np.zeros((300, 500), np.uint8, order='F'))
    assert not EncodedMasks([nothing], (30, 50))[0].any()


def test_only_the_box_around_a_mask_is_looked_up(mask, monkeypatch):
    """Of thousands of objects in a map, each look at all pixels takes minutes."""
    sizes = []
    monkeypatch.setattr(
        encoded_masks.np,
        'searchsorted',
        lambda ends, places, side: sizes.append(places.shape) or np.zeros(places.shape, int),
    )
    EncodedMasks([coco_masks.encode(mask)], (30, 50))[0]
    assert sizes == [(5, 5)]
