"""`Predictor` and the commands with tiles, by small random models."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from exact_models import find_shapes, label_pixels
from PIL import Image

from fasternet_mm.datasets import large_images
from fasternet_mm.datasets.shapes import ensure_shapes
from fasternet_mm.errors import UserError
from fasternet_mm.inference import Predictor
from fasternet_mm.inference.tiles import Tiling


@pytest.fixture(scope='module')
def shapes(root):
    return ensure_shapes(root / 'data' / 'shapes')


@pytest.fixture(scope='module')
def exact(detector_dir):
    """A predictor of tiles whose model is a stand-in: what is bright is an object, of the class of its channel."""
    predictor = Predictor(detector_dir, device='cpu', tile=(160, 160), overlap=0.25, batch_size=2)
    predictor.model = SimpleNamespace(test_step=find_shapes)
    return predictor


SQUARES = np.array([[10, 20, 60, 90], [100, 30, 140, 70], [150, 100, 175, 150], [230, 5, 450, 315]], np.float32)
"""In an image of 320 x 480: in a tile, in two, in four, and larger than a tile."""


@pytest.fixture(scope='module')
def squares():
    image = np.zeros((320, 480, 3), np.uint8)
    for left, top, right, bottom in SQUARES.astype(int):
        image[top:bottom, left:right, 0] = 255
    return image


def test_an_image_that_is_no_larger_than_a_tile_is_predicted_as_without(detector_dir, shapes):
    image = shapes / 'images/val/0001.png'
    predictor = Predictor(detector_dir)
    whole = predictor(image)
    predictor.tiling = Tiling((160, 160))
    assert len(whole) > 0
    assert predictor(image).to_coco() == whole.to_coco()


def test_objects_in_tiles_are_those_of_the_image(exact, squares):
    prediction = exact(squares)
    order = np.argsort(prediction.boxes[:, 0])
    assert np.array_equal(prediction.boxes[order], SQUARES)
    assert np.array_equal(prediction.masks.any(axis=0), squares[..., 0] > 0)
    assert prediction.masks.sum() == (squares[..., 0] > 0).sum()
    drawing = prediction.draw(score_thr=0)
    assert (drawing[300, 250:440] != prediction.image[300, 250:440]).any(axis=1).all()


def test_label_maps_in_tiles_are_those_of_the_image(segmenter_dir):
    predictor = Predictor(segmenter_dir, device='cpu', tile=(160, 160), overlap=0.25)
    predictor.model = SimpleNamespace(test_step=label_pixels)
    image = np.random.default_rng(0).integers(0, 7, (320, 480, 3)).astype(np.uint8)
    prediction = predictor(image)
    assert prediction.label_map.dtype == np.uint8
    assert np.array_equal(prediction.label_map, image[..., 0])


def test_a_segmenter_refuses_the_whole_image_before_it_predicts(segmenter_dir):
    with pytest.raises(UserError, match='--tile-whole'):
        Predictor(segmenter_dir, device='cpu', tile=(160, 160), tile_whole=True)


def test_an_image_in_tiles_stands_among_others_in_their_order(exact, squares):
    sizes = [(160, 160), (320, 480), (160, 100), (160, 160)]
    predictions = exact([squares[:height, :width] for height, width in sizes])
    assert [prediction.size for prediction in predictions] == sizes


def test_an_image_that_fails_in_tiles_is_named_and_left_out(exact, squares, monkeypatch):
    def fail(data):
        raise RuntimeError('no memory')

    errors = []
    monkeypatch.setattr(exact.model, 'test_step', fail)
    assert list(exact.stream([squares], errors)) == []
    assert str(errors[0]) == 'image 1 failed (RuntimeError: no memory)'


def test_the_command_predicts_tiles_in_pixels_of_the_image(command, detector_dir, shapes, tmp_path):
    images = [cv2.imread(str(shapes / f'images/val/000{number}.png')) for number in range(3)]
    cv2.imwrite(str(tmp_path / 'wide.png'), np.hstack(images))
    options = '--tile', '160', '160', '--overlap', '0.25', '--out-dir', tmp_path / 'out', '--device', 'cpu'
    done = command('predict', detector_dir, tmp_path / 'wide.png', *options)
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / 'out' / 'results.json').read_text())
    assert max(record['bbox'][0] for record in records) > 320
    assert {tuple(record['segmentation']['size']) for record in records} == {(160, 480)}
    assert cv2.imread(str(tmp_path / 'out' / 'wide.png')).shape == (160, 480, 3)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--overlap', '0.3'), '--overlap and --tile-whole say how to use tiles: add their size'),
        (('--tile', '16', '640'), 'whole numbers of pixels, each at least 32'),
        (('--tile', '640', '640', '--overlap', '0.9'), '0.9: give a share of the tile, from 0.05 to 0.75'),
        (('--tile', '640', '640', '--overlap', 'x'), 'x: give a share of the tile, from 0.05 to 0.75'),
    ],
)
def test_options_of_tiles_that_cannot_be_are_refused(command, detector_dir, shapes, options, message, tmp_path):
    image = shapes / 'images/val/0000.png'
    done = command('predict', detector_dir, image, '--out-dir', tmp_path, *options)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_large_file_that_is_no_larger_than_a_tile_is_predicted_in_one_piece(
    detector_dir, shapes, tmp_path, monkeypatch
):
    pytest.importorskip('pyvips')
    pixels = cv2.imread(str(shapes / 'images/test/0000.png'))
    cv2.imwrite(str(tmp_path / 'image.tif'), pixels)
    predictor = Predictor(detector_dir, tile=(640, 640))
    whole = predictor(pixels)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 20_000)
    by_parts = predictor(tmp_path / 'image.tif')
    assert len(whole) > 0
    assert np.array_equal(by_parts.boxes, whole.boxes)
    assert by_parts.image.shape == pixels.shape


def test_a_file_too_large_for_the_memory_is_predicted_by_parts(exact, tmp_path, monkeypatch):
    """Boxes, masks and crops are in pixels of the file, the drawing is reduced."""
    pytest.importorskip('pyvips')
    monkeypatch.setattr(large_images, 'REDUCED_SIDE', 240)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100_000)
    monkeypatch.setattr('fasternet_mm.inference.predictor.read_image', None)
    image = np.zeros((320, 480, 3), np.uint8)
    for left, top, right, bottom in SQUARES.astype(int):
        image[top:bottom, left:right, 0] = 255
    cv2.imwrite(str(tmp_path / 'image.tif'), image)
    prediction = exact(tmp_path / 'image.tif')
    assert prediction.size == (320, 480)
    assert prediction.image.shape == (160, 240, 3)
    order = np.argsort(prediction.boxes[:, 0])
    assert np.array_equal(prediction.boxes[order], SQUARES)
    assert np.array_equal(prediction.masks.any(axis=0), image[..., 0] > 0)
    crops = [prediction.crops()[number] for number in order]
    assert [crop.shape[:2] for crop in crops] == [(70, 50), (40, 40), (50, 25), (310, 220)]
    assert all((crop == (0, 0, 255)).all() for crop in crops)  # RGB
    drawing = prediction.draw(score_thr=0)
    bare = prediction.image
    assert drawing.shape == (160, 240, 3)
    assert (drawing[100, 120:220] != bare[100, 120:220]).any(axis=1).all()
    assert (drawing[100, 20:70] == bare[100, 20:70]).all()
