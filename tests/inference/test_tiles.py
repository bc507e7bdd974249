"""Images predicted tile by tile, by stand-ins for models that are exact: what is put together must be exact, too."""

import tracemalloc

import cv2
import numpy as np
import pytest
import torch
from exact_models import find_shapes, label_pixels
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from pycocotools import mask as rle

from fasternet_mm.errors import UserError
from fasternet_mm.inference.tiles import Tiling, predict_tiles, spans_of
from fasternet_mm.models.backbone import InvalidArgument

TILING = Tiling((100, 120), 0.3)
"""Tiles whose overlap is 30 rows and 36 columns at least."""


def unchanged(tile):
    return dict(inputs=torch.from_numpy(tile.transpose(2, 0, 1).copy()))


def find_boxes(data):
    return find_shapes(data, with_masks=False)


def found(objects):
    """Boxes, labels and masks, in an order of their own."""
    masks = [rle.decode(mask).tobytes() if isinstance(mask, dict) else None for mask in objects.get('masks', [])]
    rows = zip(objects.bboxes.tolist(), objects.labels.tolist(), masks or [None] * len(objects.labels))
    return sorted(rows, key=lambda row: row[:2])


def expected(image, predict):
    """The same of the whole image, which the stand-in sees at once; its masks as COCO's own tool encodes them."""
    objects = predict(dict(inputs=[torch.from_numpy(image.transpose(2, 0, 1).copy())]))[0].pred_instances
    if 'masks' in objects:
        masks = [rle.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in objects.masks]
        objects = InstanceData(bboxes=objects.bboxes, labels=objects.labels, masks=masks)
    return found(objects)


def with_shapes(size, *shapes):
    """An image with filled ellipses: class, middle row and column, and half of the height and of the width."""
    image = np.zeros((*size, 3), np.uint8)
    for label, row, column, half_height, half_width in shapes:
        channel = np.ascontiguousarray(image[..., label])
        cv2.ellipse(channel, (column, row), (half_width, half_height), 0, 0, 360, 255, -1)
        image[..., label] = channel
    return image


@pytest.mark.parametrize('predict', [find_shapes, find_boxes])
@pytest.mark.parametrize('shift', range(-16, 17, 4))
def test_an_object_at_borders_is_one_and_whole(shift, predict):
    """Small ones in the middle of an overlap, on each border and where four tiles meet."""
    size = (240, 290)
    rows, columns = spans_of(240, 100, 0.3), spans_of(290, 120, 0.3)
    places = [(row.start + shift, column.start + shift) for row in rows[1:] for column in columns[1:]]
    places += [(row.end + shift, column.end - 60 - shift) for row in rows[:-1] for column in columns[:-1]]
    image = with_shapes(size, *((number % 2, *place, 9, 12) for number, place in enumerate(places)))
    merged = predict_tiles(predict, unchanged, image, TILING).pred_instances
    assert len(expected(image, predict)) >= 8
    assert found(merged) == expected(image, predict)
    assert (merged.scores.diff() <= 0).all()


@pytest.mark.parametrize('predict', [find_shapes, find_boxes])
def test_an_object_larger_than_tiles_is_put_together(predict):
    image = with_shapes((400, 500), (0, 200, 250, 60, 240), (1, 200, 60, 190, 40), (2, 190, 240, 180, 230))
    merged = predict_tiles(predict, unchanged, image, TILING, batch_size=3).pred_instances
    assert found(merged) == expected(image, predict)


def test_an_object_in_the_hole_of_a_larger_one_is_kept():
    """By intersection over the smaller of two boxes, the one inside would count as a part of the other."""
    image = with_shapes((240, 290), (0, 120, 145, 60, 60))
    ring = np.ascontiguousarray(image[..., 0])
    cv2.circle(ring, (145, 120), 45, 0, -1)
    cv2.circle(ring, (145, 120), 12, 255, -1)
    image[..., 0] = ring
    merged = predict_tiles(find_shapes, unchanged, image, TILING).pred_instances
    assert len(merged) == 2
    assert found(merged) == expected(image, find_shapes)


def test_random_shapes_are_those_of_the_whole_image():
    random = np.random.default_rng(0)
    for _ in range(20):
        size = random.integers(90, 420, 2).tolist()
        shapes = [
            (
                int(random.integers(3)),
                *(int(random.integers(side)) for side in size),
                *random.integers(3, 40, 2).tolist(),
            )
            for _ in range(12)
        ]
        image = with_shapes(size, *shapes)
        merged = predict_tiles(find_shapes, unchanged, image, TILING).pred_instances
        assert found(merged) == expected(image, find_shapes)


def one_object(*box, score=0.5, label=0):
    return InstanceData(
        bboxes=torch.tensor([box], dtype=torch.float32), scores=torch.tensor([score]), labels=torch.tensor([label])
    )


def predicted_in(*parts):
    """The objects of an image of 100 x 180 in two tiles, of the columns 0 to 100 and 80 to 180."""
    samples = iter([DetDataSample(pred_instances=InstanceData.cat(objects)) for objects in parts])
    tiling = Tiling((100, 100), 0.2)
    assert [tile.columns[:2] for tile in tiling.tiles((100, 180))] == [(0, 100), (80, 180)]
    image = np.zeros((100, 180, 3), np.uint8)
    return predict_tiles(lambda data: [next(samples)], unchanged, image, tiling).pred_instances


def test_of_an_object_that_two_tiles_see_whole_the_better_detection_counts():
    merged = predicted_in([one_object(82, 10, 98, 30, score=0.6)], [one_object(3, 11, 18, 30, score=0.9)])
    assert merged.bboxes.tolist() == [[83, 11, 98, 30]]
    assert merged.scores.tolist() == pytest.approx([0.9])


def test_detections_of_one_tile_are_not_suppressed():
    near = [one_object(20, 10, 60, 50, score=0.6), one_object(24, 10, 64, 50, score=0.9)]
    assert len(predicted_in(near, near)) == 4


def test_detections_of_different_classes_are_not_suppressed():
    merged = predicted_in([one_object(82, 10, 98, 30, label=1)], [one_object(2, 10, 18, 30)])
    assert sorted(merged.labels.tolist()) == [0, 1]


def test_boxes_of_what_a_border_cuts_off_may_be_a_little_off():
    """A detector's box of a half object ends before the border, or at it; both tiles' boxes are not quite the same."""
    halves = [one_object(40, 10, 99.5, 50, score=0.7)], [one_object(0.4, 12, 70, 52, score=0.8)]
    merged = predicted_in(*halves)
    np.testing.assert_allclose(merged.bboxes, [[40, 10, 150, 52]])
    assert merged.scores.tolist() == pytest.approx([0.8])


def test_a_detection_that_is_not_finite_spoils_no_other():
    merged = predicted_in(
        [one_object(82, 10, 98, 30), one_object(float('nan'), 10, 98, 30)], [one_object(2, 10, 18, 30)]
    )
    assert merged.bboxes.isfinite().all(dim=1).sum() == 1


def test_the_whole_image_finds_what_tiles_do_not_know():
    """A detector that knows no object of which it sees a part, as of one much larger than a tile."""

    def find_whole_shapes(data):
        samples = find_shapes(data)
        for image, sample in zip(data['inputs'], samples):
            boxes, (height, width) = sample.pred_instances.bboxes, image.shape[1:]
            inside = (boxes[:, :2] > 0).all(dim=1) & (boxes[:, 2] < width) & (boxes[:, 3] < height)
            sample.pred_instances = sample.pred_instances[inside]
        return samples

    image = with_shapes((240, 290), (0, 80, 120, 70, 110), (0, 200, 200, 8, 8))
    tiles = predict_tiles(find_whole_shapes, unchanged, image, TILING).pred_instances
    assert len(tiles) == 1
    merged = predict_tiles(find_whole_shapes, unchanged, image, Tiling((100, 120), 0.3, whole=True)).pred_instances
    assert found(merged) == expected(image, find_shapes)
    merged = predict_tiles(find_shapes, unchanged, image, Tiling((100, 120), 0.3, whole=True)).pred_instances
    assert found(merged) == expected(image, find_shapes)


@pytest.mark.parametrize('labels', [200, 256])
@pytest.mark.parametrize('size', [(240, 290), (100, 121), (333, 60)])
def test_label_maps_are_those_of_the_whole_image(size, labels):
    image = np.random.default_rng(0).integers(0, labels, (*size, 3)).astype(np.uint8)
    label_map = predict_tiles(label_pixels, unchanged, image, TILING, batch_size=4).pred_sem_seg.data
    assert np.array_equal(label_map[0], image[..., 0])


def test_a_segmenter_has_no_objects_to_look_for_in_the_whole_image():
    image = np.zeros((240, 290, 3), np.uint8)
    with pytest.raises(UserError, match='is for objects, but this model labels pixels: leave it out'):
        predict_tiles(label_pixels, unchanged, image, Tiling((100, 120), 0.3, whole=True))


def test_labels_above_255_stay_whole():
    def label_pixels_high(data):
        return [SegDataSample(pred_sem_seg=PixelData(data=image[:1].long() * 2)) for image in data['inputs']]

    image = np.random.default_rng(0).integers(0, 200, (240, 290, 3)).astype(np.uint8)
    image[:100, :120] = 0
    label_map = predict_tiles(label_pixels_high, unchanged, image, TILING).pred_sem_seg.data
    assert np.array_equal(label_map[0], image[..., 0] * np.int64(2))


def test_a_pixel_is_labeled_by_the_tile_that_sees_most_around_it():
    """A stand-in that labels each pixel with its distance from the border of the tile."""

    def label_distance(data):
        samples = []
        for image in data['inputs']:
            distances = [torch.minimum(torch.arange(side), torch.arange(side).flip(0)) for side in image.shape[1:]]
            samples.append(SegDataSample(pred_sem_seg=PixelData(data=distances[1].expand(1, *image.shape[1:]))))
        return samples

    image = np.zeros((50, 180, 3), np.uint8)
    label_map = predict_tiles(label_distance, unchanged, image, Tiling((100, 100), 0.2)).pred_sem_seg.data[0, 0]
    assert label_map[80:100].tolist() == [*range(19, 9, -1), *range(10, 20)]


@pytest.mark.parametrize(
    ('length', 'spans'),
    [
        (640, [(0, 640, 0, 640)]),
        (500, [(0, 500, 0, 500)]),
        (1000, [(0, 640, 0, 500), (360, 1000, 500, 1000)]),
        (1152, [(0, 640, 0, 576), (512, 1152, 576, 1152)]),
        (1153, [(0, 640, 0, 448), (256, 896, 448, 704), (513, 1153, 704, 1153)]),
    ],
)
def test_tiles_are_spread_evenly_with_the_overlap_at_least(length, spans):
    assert spans_of(length, 640, 0.2) == spans


def test_masks_take_no_array_of_the_image_each():
    image = np.zeros((600, 6000, 3), np.uint8)
    image[50:550:100, 50:5950:100, 0] = 255
    tracemalloc.start()
    merged = predict_tiles(find_shapes, unchanged, image, Tiling((300, 300))).pred_instances
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(merged) == 5 * 59  # whose masks as arrays would be 1 GB
    assert peak < 50e6


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(size=(0, 640)), 'height and width in pixels'),
        (dict(size=(640,)), 'height and width in pixels'),
        (dict(size=(640, 640), overlap=0), 'from 0.05 to 0.75'),
        (dict(size=(640, 640), overlap=float('nan')), 'from 0.05 to 0.75'),
    ],
)
def test_a_tiling_that_cannot_be_is_refused(options, message):
    with pytest.raises(InvalidArgument, match=message):
        Tiling(**options)
