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


def write(folder, **values):
    """An annotation file of two objects, of which the second one has these values."""
    sound = dict(id=11, image_id=5, category_id=3, bbox=[1, 2, 30, 4.5], segmentation=[[1, 2, 30, 2, 30, 6.5]])
    images = [dict(id=5, file_name='a.jpg', height=20, width=40)]
    content = dict(images=images, annotations=[sound, {**sound, 'id': 12, **values}], categories=CATEGORIES)
    (folder / 'train.json').write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('values', 'problem'),
    [
        (dict(bbox=[1, float('nan'), 3, 4]), r'has the bbox \[1, nan, 3, 4\]: four numbers below 16,777,216'),
        (dict(bbox=[1, 2, 1e30, 4]), 'has the bbox'),
        (dict(bbox=[1, 2, float('inf'), 4]), 'has the bbox'),
        (dict(bbox=[1, 2, 3]), 'has the bbox'),
        (dict(bbox=['1', 2, 3, 4]), 'has the bbox'),
        (dict(segmentation=[[1, 2, 3, 4, 5, float('nan')]]), 'has an outline with what is no number'),
        (dict(segmentation=[[1, 2, 3, 4, 5, -1e30]]), 'has an outline'),
        (dict(segmentation=[[1, 2, 3, 4, 5, 6], [1, 2, '3', 4, 5, 6]]), 'has an outline'),
        (dict(segmentation=dict(size=[40, 20], counts=[800])), r'has a mask of size \[40, 20\], its image \[20, 40\]'),
        (dict(segmentation=dict(size=[20, 40], counts=[10, 20])), 'has a mask whose counts end before the image does'),
    ],
)
def test_objects_that_would_spoil_a_training_are_named(cfg, tmp_path, values, problem):
    write(tmp_path, **values)
    with pytest.raises(UserError, match=rf'train.json: annotation 1 \(id 12\) {problem}.*\(1 of 2 are bad'):
        check_data(cfg, ['train'])


@pytest.mark.parametrize(
    'values',
    [
        dict(bbox=[1, 2, 0, 0]),
        dict(bbox=[-5, 2, 100, 4]),
        dict(segmentation=[[1, 2, 3, 4]]),
        dict(segmentation=[]),
        dict(segmentation=dict(size=[20, 40], counts=[10, 20, 770])),
        dict(image_id=6),
    ],
)
def test_objects_that_mmdetection_leaves_out_or_mends_may_stand(cfg, tmp_path, values):
    write(tmp_path, **values)
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
