import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycocotools_mask

from fasternet_mm.errors import UserError
from fasternet_mm.evaluation.coco_results import encode_masks
from fasternet_mm.inference import Prediction

CLASSES = ('person', 'dog', 'cat')


def objects(masks=None, boxes=None, **changes):
    boxes = [[2, 3, 8, 9], [10, 4, 16.5, 12], [0, 0, 4, 4]] if boxes is None else boxes
    fields = dict(
        image=np.arange(20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8),
        source='a.jpg',
        classes=CLASSES,
        palette=[(255, 0, 0), (0, 255, 0), (0, 0, 255)],
        category_ids=[1, 18, 17],
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([0.98, 0.91, 0.55], np.float32)[: len(boxes)],
        labels=np.array([0, 0, 1])[: len(boxes)],
        encoded_masks=None if masks is None else encode_masks(masks),
    )
    return Prediction(**{**fields, **changes})


def labeled(label_map):
    return objects(boxes=[], label_map=label_map)


@pytest.fixture
def masks():
    return np.random.default_rng(0).random((3, 20, 30)) > 0.5


def test_it_says_what_was_found():
    assert repr(objects()) == '3 objects: 2 person 0.98, 0.91; 1 dog 0.55'
    assert repr(objects(boxes=[[0, 0, 1, 1]])) == '1 object: 1 person 0.98'
    assert repr(objects(boxes=[])) == '0 objects'
    many = objects(labels=np.zeros(4, int), scores=np.array([0.9, 0.8, 0.7, 0.6]), boxes=np.zeros((4, 4)))
    assert repr(many) == '4 objects: 4 person 0.90, 0.80, 0.70, …'
    label_map = np.full((10, 20), 2, np.uint8)
    label_map[:3], label_map[9] = 1, 255
    assert repr(labeled(label_map)) == '10x20 (H x W) labels: 60% cat, 30% dog'


def test_names_and_masks(masks):
    prediction = objects(masks)
    assert prediction.names == ['person', 'person', 'dog']
    assert np.array_equal(prediction.masks, masks)
    assert prediction.masks.dtype == bool
    assert objects().masks is None
    assert objects(np.zeros((0, 20, 30), bool), boxes=[]).masks.shape == (0, 20, 30)


def test_objects_are_filtered_by_score_and_class(masks):
    prediction = objects(masks)
    assert len(prediction.above(0.95)) == 1
    assert len(prediction.above(float(prediction.scores[1]))) == 2
    dog = prediction.only('dog')
    assert (dog.names, dog.boxes.tolist()) == (['dog'], [[0, 0, 4, 4]])
    assert np.array_equal(dog.masks, masks[2:])
    assert len(prediction.only('cat', 'dog', 'person')) == 3
    assert len(prediction.only('cat')) == 0
    assert len(prediction) == 3
    with pytest.raises(UserError, match=r"no class 'dogg'; did you mean 'dog'\?"):
        prediction.only('dogg')


def test_labels_are_filtered_by_class():
    label_map = np.array([[0, 1], [2, 255]], np.uint8)
    assert labeled(label_map).only('cat', 'person').label_map.tolist() == [[0, 255], [2, 255]]


def test_crops_are_what_is_in_the_boxes_and_never_empty():
    prediction = objects(boxes=[[2.2, 3.9, 8, 9.1], [-5, -5, 3, 3], [30, 20, 30, 20]])
    crops = prediction.crops()
    assert np.array_equal(crops[0], prediction.image[3:10, 2:8])
    assert np.array_equal(crops[1], prediction.image[:3, :3])
    assert np.array_equal(crops[2], prediction.image[19:, 29:])


def test_cocos_records_are_those_that_pycocotools_reads(masks):
    prediction = objects(masks)
    records = prediction.to_coco(image_id=7)
    assert [record['category_id'] for record in records] == [1, 1, 18]
    assert {record['image_id'] for record in records} == {7}
    assert records[1]['bbox'] == [10, 4, 6.5, 8]
    assert [record['score'] for record in records] == pytest.approx([0.98, 0.91, 0.55])
    for record, mask in zip(records, masks):
        assert np.array_equal(pycocotools_mask.decode(record['segmentation']), mask)
    assert 'segmentation' not in objects().to_coco()[0]


def test_a_drawing_is_returned_and_written(masks, tmp_path):
    prediction = objects(masks)
    drawing = prediction.draw(tmp_path / 'new' / 'a.png')
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'new' / 'a.png')), drawing)
    assert drawing.shape == prediction.image.shape
    assert np.array_equal(objects(masks).draw(score_thr=0.99), prediction.image)
    assert not np.array_equal(drawing, prediction.image)


def test_a_label_maps_drawing_has_a_legend_unless_told_otherwise():
    prediction = labeled(np.zeros((20, 30), np.uint8))
    assert prediction.draw(legend=False).shape == (20, 30, 3)
    assert prediction.draw().shape[0] > 20
