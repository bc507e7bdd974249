import dataclasses

import numpy as np
import pytest
from mmengine.config import Config

from fasternet_mm.datasets.image_pipeline import ImagePipeline, pipeline_that_resizes, resizing
from fasternet_mm.deployment import exported_models as exported
from fasternet_mm.deployment.description import Description
from fasternet_mm.deployment.exported_models import exported_config
from fasternet_mm.errors import UserError

LOAD, LABELS, PACK = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='mmdet.PackDetInputs')
FLIP = dict(type='RandomFlip', prob=0.5)


def resize(**options):
    return dict(type='Resize', **options)


def pad(**options):
    return dict(type='Pad', **options)


def padded(**padding):
    return dict(scale=[64, 64], keep_ratio=False, pad=padding)


COLORED = padded(size=[64, 64], value=[1, 2, 3])


@pytest.mark.parametrize(
    ('steps', 'expected'),
    [
        ([LOAD, LABELS, PACK], {}),
        ([LOAD, resize(scale=(1333, 800), keep_ratio=True), LABELS, PACK], dict(scale=[1333, 800], keep_ratio=True)),
        ([LOAD, resize(scale=(64, 32), _scope_='mmdet'), PACK], dict(scale=[64, 32], keep_ratio=False)),
        ([LOAD, resize(scale=64), PACK], dict(scale=[64, 64], keep_ratio=False)),
        ([LOAD, resize(scale=64), pad(size=(64, 32)), PACK], padded(size=[64, 32], value=[0, 0, 0])),
        ([LOAD, resize(scale=64), pad(size_divisor=32, pad_val=114), PACK], padded(size_divisor=32, value=[114] * 3)),
        ([LOAD, resize(scale=64), pad(size=(64, 64), pad_val=dict(img=(1, 2, 3))), LABELS, PACK], COLORED),
        ([LOAD, resize(scale=64), pad(size=(64, 64), pad_val=dict(img=(1, 2))), PACK], None),
        ([LOAD, resize(scale=64), pad(pad_to_square=True), PACK], None),
        ([LOAD, resize(scale=64), pad(size=(64, 64), padding_mode='edge'), PACK], None),
        ([LOAD, pad(size_divisor=32), PACK], None),
        ([LOAD, pad(size_divisor=32), resize(scale=64), PACK], None),
        ([LOAD, resize(scale_factor=0.5), PACK], None),
        ([LOAD, resize(scale=(64, 32), interpolation='area'), PACK], None),
        ([LOAD, resize(scale=(64, 32)), FLIP, PACK], None),
        ([LOAD, FLIP, PACK], None),
        ([FLIP, PACK], None),
        ([LOAD, FLIP], None),
        ([LOAD], None),
        ([], None),
    ],
)
def test_what_a_pipeline_does_to_sizes_is_told_if_it_does_nothing_else(steps, expected):
    assert resizing(steps) == expected


def config(*steps):
    return Config(dict(default_scope='mmdet', test_dataloader=dict(dataset=dict(pipeline=list(steps)))))


@pytest.mark.parametrize('first', [FLIP, dict(LOAD, to_float32=True), dict(LOAD, color_type='grayscale')])
def test_images_that_would_be_read_in_another_way_are_refused(first):
    with pytest.raises(UserError, match='the test pipeline of the config begins with'):
        ImagePipeline(config(first, PACK))


def test_a_pipeline_without_resizing_keeps_pixels_and_says_the_scale():
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    packed = ImagePipeline(config(dict(LOAD, backend_args=None, _scope_='mmdet'), LABELS, PACK))(image, 'a.jpg')
    assert np.array_equal(packed['inputs'].permute(1, 2, 0), image)
    meta = packed['data_samples'].metainfo
    assert (meta['ori_shape'], meta['scale_factor'], meta['img_path']) == ((4, 5), (1, 1), 'a.jpg')


@pytest.mark.parametrize('padding', [pad(size=(80, 96), pad_val=dict(img=(1, 2, 3))), pad(size_divisor=32, pad_val=9)])
def test_a_pipeline_made_of_what_was_told_gives_the_same_pixels(padding):
    steps = [LOAD, resize(scale=(70, 60), keep_ratio=True), padding, dict(PACK, meta_keys=('img_shape', 'ori_shape'))]
    image = np.random.randint(0, 255, (40, 50, 3), dtype=np.uint8)
    again = pipeline_that_resizes(resizing(steps), 'mmdet')
    expected, actual = (ImagePipeline(config(*pipeline))(image) for pipeline in (steps, again))
    assert expected['inputs'].shape[1:] in ((96, 80), (64, 96))
    assert np.array_equal(actual['inputs'], expected['inputs'])
    assert actual['data_samples'].img_shape == expected['data_samples'].img_shape == expected['inputs'].shape[1:]


def test_an_exported_file_that_does_not_say_how_to_resize_needs_its_config(monkeypatch):
    values = dict.fromkeys((field.name for field in dataclasses.fields(Description)), None)
    description = Description(**{**values, 'task': 'detection', 'classes': ['cat']})
    monkeypatch.setattr(exported, '_description_and_model', lambda *args: (description, {}))
    with pytest.raises(UserError, match=r'net.onnx does not say how images are resized for it: give the config'):
        exported_config('net.onnx')


def test_the_pipeline_is_that_of_the_data_set_in_its_wrappers():
    dataset = dict(type='mmdet.CocoDataset', pipeline=[LOAD, resize(scale=(64, 32)), PACK])
    wrapped = dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[dataset]))
    cfg = Config(dict(default_scope='mmdet', test_dataloader=dict(dataset=wrapped)))
    data = ImagePipeline(cfg)(np.zeros((20, 40, 3), np.uint8))
    assert data['inputs'].shape == (3, 32, 64)
