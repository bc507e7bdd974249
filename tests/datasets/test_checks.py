import json

import pytest
from mmengine.config import Config

from fasternet_mm.datasets.checks import check_data, learns_masks, meta_of_test_set
from fasternet_mm.errors import UserError

CATEGORIES = [dict(id=3, name='cat'), dict(id=7, name='dog'), dict(id=9, name='cow')]


@pytest.fixture
def cfg(tmp_path):
    (tmp_path / 'images').mkdir()
    content = dict(images=[], annotations=[], categories=CATEGORIES)
    (tmp_path / 'train.json').write_text(json.dumps(content))
    dataset = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='train.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('cat', 'dog')),
    )
    heads = dict(bbox_head=dict(num_classes=2), mask_head=dict(num_classes=2))
    wrapped = dict(type='RepeatDataset', times=2, dataset=dataset)
    return Config(dict(default_scope='mmdet', model=dict(roi_head=heads), train_dataloader=dict(dataset=wrapped)))


def test_data_that_fits_passes(cfg):
    check_data(cfg, ['train'])


@pytest.mark.parametrize('missing', ['data_root', 'ann_file', 'data_prefix'])
def test_a_missing_path_is_named_with_the_option_that_moves_it(cfg, missing):
    dataset = cfg.train_dataloader.dataset.dataset
    dataset[missing] = dict(img='nowhere/') if missing == 'data_prefix' else 'nowhere'
    with pytest.raises(UserError, match=r'nowhere.* does not exist.*train_dataloader.dataset.dataset.data_root=FOLDER'):
        check_data(cfg, ['train'])


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        ('{"images": [', 'is not JSON'),
        ('[1, 2]', 'no list images, annotations, categories'),
        ('{"images": [], "annotations": {}, "categories": []}', 'no list annotations'),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', 'id and a name'),
    ],
)
def test_a_file_that_is_not_coco_is_named_with_what_it_lacks(cfg, tmp_path, content, named):
    (tmp_path / 'train.json').write_text(content)
    with pytest.raises(UserError, match=f'train.json.*{named}'):
        check_data(cfg, ['train'])


@pytest.fixture
def write(tmp_path):
    """Write an annotation file of an image and two objects, of which the second one has these values."""

    def write(image=None, without=(), **values):
        sound = dict(
            id=11, image_id=5, category_id=3, bbox=[1, 2, 30, 4.5], area=99, segmentation=[[1, 2, 30, 2, 30, 6]]
        )
        second = {key: value for key, value in {**sound, 'id': 12, **values}.items() if key not in without}
        images = [dict(id=5, file_name='a.jpg', height=20, width=40) | (image or {})]
        content = dict(images=images, annotations=[sound, second], categories=CATEGORIES)
        (tmp_path / 'train.json').write_text(json.dumps(content))

    return write


NAN, INFINITE = float('nan'), float('inf')


@pytest.mark.parametrize(
    ('values', 'problem'),
    [
        (
            dict(bbox=[1, NAN, 3, 4]),
            r'has the bbox \[1, nan, 3, 4\]: x, y, width, height are needed, numbers up to 1,000',
        ),
        (dict(bbox=[1, 2, 1e30, 4]), 'has the bbox'),
        (dict(bbox=[1, 2, INFINITE, 4]), 'has the bbox'),
        (dict(bbox=[9, 9, -3, 4]), r'has the bbox \[9, 9, -3, 4\]: .*, no side below 0'),
        (dict(bbox=[1, 2, 3]), 'has the bbox'),
        (dict(bbox=['1', 2, 3, 4]), 'has the bbox'),
        (dict(area=NAN), 'has the area nan: a number is needed'),
        (dict(area='12'), "has the area '12'"),
        (
            dict(segmentation=[[1, 2, 3, 4, 5, NAN]]),
            r'has the polygon \[1, 2, 3, 4, 5, nan\] in its segmentation: numbers',
        ),
        (dict(segmentation=[[1, 2, 3, 4, 5, -1e30]]), 'has the polygon'),
        (dict(segmentation=[[1, 2, 3, 4, 5, 6], [1, 2, '3', 4, 5, 6]]), r"has the polygon \[1, 2, '3'"),
        (dict(segmentation='1 2 3'), "has the segmentation '1 2 3': a list of polygons or an RLE mask is needed"),
        (dict(segmentation=dict(size=[40, 20], counts=[800])), r'has a mask of size \[40, 20\], its image \[20, 40\]'),
        (dict(segmentation=dict(size=[20, 40], counts=[10, 20])), 'has a mask whose counts end before the image does'),
        (dict(image_id=[5]), r'has the image_id \[5\]: a number or text is needed'),
        (dict(without=['area', 'bbox']), 'lacks area, bbox'),
    ],
)
def test_objects_that_would_end_a_training_or_spoil_it_are_named(cfg, write, values, problem):
    write(**values)
    with pytest.raises(UserError, match=rf'train.json: annotation 1 \(id 12\) {problem}.*\(1 of 2 are bad'):
        check_data(cfg, ['train'])


def test_an_id_of_two_objects_is_named(cfg, write):
    write(id=11)
    with pytest.raises(UserError, match=r'annotation 1 \(id 11\) has the id of one before: number them anew \(1 of 2'):
        check_data(cfg, ['train'])


@pytest.mark.parametrize('values', [dict(height=0), dict(height=NAN), dict(height='20'), dict(height=None)])
def test_an_image_without_a_size_is_named(cfg, write, values):
    write(image=values)
    with pytest.raises(
        UserError, match=r'train.json: image 0 \(id 5\) has the height .*: a number of pixels is needed'
    ):
        check_data(cfg, ['train'])


@pytest.mark.parametrize(
    'values',
    [
        dict(bbox=[1, 2, 0, 0]),
        dict(bbox=[-5, 2, 100, 4]),
        dict(segmentation=[[1, 2, 3, 4]]),
        dict(segmentation=[]),
        dict(without=['segmentation']),
        dict(segmentation=dict(size=[20, 40], counts=[10, 20, 770])),
    ],
)
def test_objects_that_mmdetection_leaves_out_or_mends_may_stand(cfg, write, values):
    write(**values)
    check_data(cfg, ['train'])


@pytest.fixture
def warnings(monkeypatch):
    """What is warned of."""
    messages = []
    monkeypatch.setattr('fasternet_mm.datasets.coco_checks.print_log', lambda message, **_: messages.append(message))
    return messages


@pytest.mark.parametrize('key', ['image_id', 'category_id'])
def test_objects_of_unknown_images_and_categories_are_warned_of(cfg, write, warnings, tmp_path, key):
    write(**{key: 6})
    check_data(cfg, ['train'])
    assert warnings == [
        f'{tmp_path}/train.json: 1 of 2 annotations have an image_id or category_id that the file does not have, the '
        f'first (id 12) the {key} 6: they are left out'
    ]


def test_ids_of_another_type_than_those_of_all_images_are_refused(cfg, write):
    write(image=dict(id='5'))
    with pytest.raises(UserError, match=r'2 of 2 annotations .* \(id 11\) the image_id 5: nothing is left to train'):
        check_data(cfg, ['train'])


def test_classes_that_the_file_lacks_are_named(cfg):
    cfg.train_dataloader.dataset.dataset.metainfo = dict(classes=('cat', 'horse'))
    with pytest.raises(UserError, match=r'cat, dog, cow, but .* lacks: horse'):
        check_data(cfg, ['train'])


def test_classes_in_another_order_are_refused_since_mmdet_would_mix_them_up(cfg):
    cfg.train_dataloader.dataset.dataset.metainfo = dict(classes=('dog', 'cat'))
    with pytest.raises(UserError, match=r'another order \(cat, dog\).*\(dog, cat\)'):
        check_data(cfg, ['train'])


def test_without_metainfo_the_data_set_types_own_classes_count(cfg):
    del cfg.train_dataloader.dataset.dataset['metainfo']
    with pytest.raises(UserError, match='expects 77 that it lacks: person'):
        check_data(cfg, ['train'])


def test_a_head_with_another_number_of_classes_is_named_with_the_option(cfg):
    cfg.model.roi_head.mask_head.num_classes = 80
    with pytest.raises(UserError, match=r'--cfg-options model.roi_head.mask_head.num_classes=2'):
        check_data(cfg, ['train'])


def test_the_test_sets_classes_are_found_in_wrappers_and_in_a_file_of_names(tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text('cat\nhot dog\n')
    dataset = dict(type='CocoDataset', metainfo=dict(classes=str(names)))
    for wrapped in (dataset, dict(type='ConcatDataset', datasets=[dataset, dataset])):
        cfg = Config(dict(default_scope='mmdet', test_dataloader=dict(dataset=wrapped)))
        assert meta_of_test_set(cfg)['classes'] == ['cat', 'hot dog']


def test_text_for_classes_is_not_taken_letter_by_letter():
    dataset = dict(type='CocoDataset', metainfo=dict(classes='cat'))
    cfg = Config(dict(default_scope='mmdet', test_dataloader=dict(dataset=dataset)))
    with pytest.raises(UserError, match=r"classes='cat', which MMEngine takes for a file of names.*give a tuple"):
        meta_of_test_set(cfg)


@pytest.mark.parametrize('content', [{}, dict(test_dataloader=None), dict(test_dataloader=dict(dataset=None))])
def test_a_config_without_a_test_set_is_said_in_one_sentence(content):
    with pytest.raises(UserError, match='the config has no test data set with classes: set metainfo='):
        meta_of_test_set(Config(content))


@pytest.mark.parametrize('masked', [True, False])
@pytest.mark.parametrize('wrapper', ['none', 'repeated', 'mixed', 'concatenated'])
def test_masks_are_learned_where_a_step_of_the_train_pipeline_loads_them(masked, wrapper):
    load = dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=masked)
    dataset = dict(type='CocoDataset', pipeline=[dict(type='LoadImageFromFile'), load])
    mixed = dict(type='MultiImageMixDataset', dataset=dataset, pipeline=[dict(type='CachedMosaic')])
    dataset = dict(
        none=dataset,
        repeated=dict(type='RepeatDataset', times=2, dataset=dataset),
        mixed=mixed,
        concatenated=dict(type='ConcatDataset', datasets=[dict(type='CocoDataset', pipeline=[]), mixed]),
    )[wrapper]
    assert learns_masks(Config(dict(train_dataloader=dict(dataset=dataset)))) is masked
    assert not learns_masks(Config(dict(test_dataloader=dict(dataset=dataset))))
