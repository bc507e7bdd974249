import json

import pytest
from mmdet.datasets import CocoDataset
from mmengine.dataset import ClassBalancedDataset
from own_layouts import CLASSES, made, write_coco

from fasternet_mm.own_data.layouts.recognition import read_own_data
from fasternet_mm.own_data.plan.class_balance import RARE, balance_classes

COUNT = 100


@pytest.fixture
def data(tmp_path):
    """Of 100 images, 1 has the first class, 6 the second, of which one is a crowd, and 80 the third."""
    write_coco(tmp_path, made(train=COUNT, val=2))
    path = tmp_path / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    ids = [image['id'] for image in content['images']]
    categories = [category['id'] for category in content['categories']]
    box = dict(bbox=[2, 2, 20, 20], area=400, iscrowd=0, segmentation=[[2, 2, 22, 2, 22, 22, 2, 22]])
    of_classes = [ids[:1], ids[1:7], ids[:80]]
    content['annotations'] = [
        dict(box, image_id=image, category_id=category)
        for category, images in zip(categories, of_classes)
        for image in images
    ]
    content['annotations'][3]['iscrowd'] = 1
    for number, annotation in enumerate(content['annotations'], start=1):
        annotation['id'] = number
    path.write_text(json.dumps(content))
    return read_own_data(str(tmp_path))


def test_images_of_rare_classes_are_seen_as_often_as_the_formula_of_lvis_says(data):
    balance = balance_classes(data)
    # sqrt(0.1 / 0.01) = 3.2 and sqrt(0.1 / 0.06) = 1.3, rounded up
    assert balance.times == {CLASSES[0]: 4, CLASSES[1]: 2}
    assert balance.repeated == 3 + 6
    assert str(balance) == f'images with {CLASSES[0]} are seen 4 times, images with {CLASSES[1]} are seen 2 times'


def test_an_epoch_is_as_long_as_the_data_set_that_trains(data, tmp_path):
    (tmp_path / 'train.json').write_text(json.dumps(data.splits['train']))
    dataset = CocoDataset(
        ann_file=str(tmp_path / 'train.json'),
        metainfo=dict(classes=tuple(data.classes)),
        filter_cfg=dict(filter_empty_gt=False, min_size=1),
        data_prefix=dict(img=str(tmp_path)),
    )
    assert len(ClassBalancedDataset(dataset, RARE)) == COUNT + balance_classes(data).repeated


def test_nothing_is_repeated_where_no_class_is_rare(tmp_path):
    write_coco(tmp_path, made(train=8, val=2))
    balance = balance_classes(read_own_data(str(tmp_path)))
    assert (balance.times, balance.repeated, str(balance)) == ({}, 0, '')
