import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_masks

from fasternet_mm.annotation_formats.labeled_images import LabeledObject
from fasternet_mm.annotation_formats.mask_outlines import (
    box_differs,
    encode_region,
    has_cuts,
    one_polygon,
    without_holes,
)

SIZE = (40, 60)


def region(*boxes):
    """Bool ``(H, W)``: what is in these boxes left, top, right, bottom."""
    pixels = np.zeros(SIZE, bool)
    for left, top, right, bottom in boxes:
        pixels[top:bottom, left:right] = True
    return pixels


def ring():
    return region((10, 5, 30, 25)) & ~region((15, 10, 25, 20))


def blob(seed):
    """Smooth noise: several parts, some with holes."""
    noise = np.random.default_rng(seed).random(SIZE).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 3) > 0.5


def iou_by_pycocotools(polygons, pixels):
    encoded = coco_masks.merge(coco_masks.frPyObjects(polygons, *pixels.shape))
    return coco_masks.iou([encoded], [coco_masks.encode(np.asfortranarray(pixels, np.uint8))], [0])[0][0]


def filled_by_opencv(polygon, scale=16):
    """The pixels whose middle is enclosed an odd number of times."""
    large = np.zeros((SIZE[0] * scale, SIZE[1] * scale), np.uint8)
    cv2.fillPoly(large, [np.round(np.reshape(polygon, (-1, 2)) * scale).astype(np.int32)], 1)
    return large[scale // 2 :: scale, scale // 2 :: scale] > 0


def test_a_box_has_the_corners_of_its_pixels_and_not_their_middles():
    (polygon,) = without_holes(encode_region(region((10, 5, 30, 25))))
    assert {(x, y) for x, y in zip(polygon[::2], polygon[1::2])} == {(10, 5), (30, 5), (30, 25), (10, 25)}


def test_each_part_is_a_polygon():
    polygons = without_holes(encode_region(region((2, 2, 12, 12), (30, 20, 50, 36))))
    assert sorted(min(polygon[::2]) for polygon in polygons) == [2, 30]


def test_a_mask_with_a_hole_stays_a_mask_and_polygons_stay_as_they_are():
    mask = encode_region(ring())
    assert without_holes(mask) is mask
    polygons = [[0.25, 0.5, 9, 0, 9, 9]]
    assert without_holes(polygons) is polygons


def test_a_hole_is_cut_into_one_polygon():
    polygon = one_polygon(encode_region(ring()), SIZE)
    assert np.array_equal(filled_by_opencv(polygon), ring())
    assert iou_by_pycocotools([polygon], ring()) == 1
    assert len(polygon) == 2 * (4 + 4 + 2)  # two rings, each left and entered at one corner


def test_parts_are_one_polygon_and_where_they_overlap_it_is_filled():
    apart = [[0, 0, 10, 0, 10, 10, 0, 10], [20, 0, 30, 0, 30, 10, 20, 10]]
    assert iou_by_pycocotools([one_polygon(apart, SIZE)], region((0, 0, 10, 10), (20, 0, 30, 10))) == 1
    overlapping = [[0, 0, 20, 0, 20, 20, 0, 20], [10, 10, 30, 10, 30, 30, 10, 30]]
    pixels = region((0, 0, 20, 20), (10, 10, 30, 30))
    assert iou_by_pycocotools([one_polygon(overlapping, SIZE)], pixels) >= 0.98


@pytest.mark.parametrize('seed', range(8))
def test_any_mask_is_close_to_its_polygon_and_has_its_box(seed):
    pixels = blob(seed)
    polygon = one_polygon(encode_region(pixels), SIZE)
    assert iou_by_pycocotools([polygon], pixels) >= 0.98
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    corners = [min(polygon[::2]), min(polygon[1::2]), max(polygon[::2]), max(polygon[1::2])]
    assert corners == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_a_slanted_edge_has_few_corners():
    pixels = np.zeros((200, 200), np.uint8)
    cv2.fillPoly(pixels, [np.array([[20, 100], [100, 20], [180, 100], [100, 180]])], 1)
    (polygon,) = without_holes(encode_region(pixels > 0))
    assert len(polygon) <= 2 * 5
    assert iou_by_pycocotools([polygon], pixels) >= 0.98


def test_a_pixel_is_a_square():
    (polygon,) = without_holes(encode_region(region((7, 5, 8, 6))))
    assert {*zip(polygon[::2], polygon[1::2])} == {(7, 5), (8, 5), (8, 6), (7, 6)}


def test_single_pixels_and_lines_are_not_lost():
    for pixels in (region((7, 5, 8, 6)), region((3, 5, 40, 6)), region((3, 5, 4, 30), (3, 29, 40, 30))):
        assert iou_by_pycocotools(without_holes(encode_region(pixels)), pixels) >= 0.98


def test_cuts_and_other_boxes_are_told():
    assert has_cuts(encode_region(ring()))
    assert not has_cuts(encode_region(region((10, 5, 30, 25))))
    assert has_cuts([[0, 0, 9, 0, 9, 9], [20, 0, 30, 0, 30, 9]])
    for segmentation in (encode_region(ring()), [[10, 5, 30, 5, 30, 25, 10, 25]]):
        assert not box_differs(LabeledObject(0, [10, 5, 20, 20.01], 300, segmentation))
        assert box_differs(LabeledObject(0, [10, 5, 20, 21], 300, segmentation))
