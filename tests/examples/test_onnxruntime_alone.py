"""The program that needs neither PyTorch nor this package, beside `Predictor` on the same files."""

import re
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from small_models import SMALL, image, spread_model

import fasternet_mm
from fasternet_mm.datasets.image_pipeline import ImagePipeline, config_of_model
from fasternet_mm.inference.predictor import Predictor

pytest.importorskip('onnxruntime')

FILES = {}

ALONE = """
import runpy, sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('torch', 'torchvision', 'fasternet_mm', 'mmengine', 'mmcv', 'mmdet', 'mmseg'):
            raise ImportError(f'{name} is forbidden')

sys.meta_path.insert(0, Forbidden())
program, file, photo, out = sys.argv[1:]
run = runpy.run_path(program)
import cv2, numpy
numpy.savez(out, **run['ExportedModel'](file)(cv2.imread(photo)))
assert 'torch' not in sys.modules
"""


@pytest.fixture(scope='module')
def program(root):
    return str(root / 'examples/onnxruntime_alone.py')


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    """An image that is resized by another factor in height than in width, and then padded."""
    path = tmp_path_factory.mktemp('images') / 'wide.png'
    cv2.imwrite(str(path), image(90, 131).permute(1, 2, 0).numpy())
    return str(path)


@pytest.fixture(scope='module')
def rtmdet_ins_cfg(root):
    cfg = Config.fromfile(root / 'configs/shapes/rtmdet_ins_fasternet_t0_shapes.py')
    cfg.model.backbone.update(arch=SMALL, init_cfg=None)
    cfg.model.neck.update(in_channels=[32, 64, 128], out_channels=16, norm_cfg=dict(type='BN'))
    cfg.model.bbox_head.update(in_channels=16, feat_channels=16, norm_cfg=dict(type='BN'))
    cfg.model.test_cfg.score_thr = 0.9
    return cfg


@pytest.fixture(scope='module')
def rtmdet_ins(rtmdet_ins_cfg):
    scales = {
        f'bbox_head.rtm_{kind}.{level}.weight': scale
        for kind, scale in dict(cls=60, reg=4).items()
        for level in range(3)
    }
    return spread_model(rtmdet_ins_cfg, scales)


@pytest.fixture
def exported(request, tmp_path_factory):
    """Export one of the small models, by its fixture's name, once for all tests."""

    def exported(kind):
        if kind not in FILES:
            folder = tmp_path_factory.mktemp(kind)
            torch.save(dict(state_dict=request.getfixturevalue(kind).state_dict()), folder / 'net.pth')
            FILES[kind] = str(folder / 'model.onnx')
            fasternet_mm.export(request.getfixturevalue(f'{kind}_cfg'), folder / 'net.pth', out=FILES[kind])
        return FILES[kind]

    return exported


def found_alone(program, file, photo, folder):
    out = str(folder / 'found.npz')
    subprocess.run([sys.executable, '-c', ALONE, program, file, photo, out], check=True)
    return np.load(out)


@pytest.mark.parametrize('kind', ['rtmdet_ins', 'detector'])
def test_boxes_and_masks_are_those_of_predict(kind, exported, program, photo, tmp_path):
    actual, expected = found_alone(program, exported(kind), photo, tmp_path), Predictor(exported(kind))(photo)
    assert len(expected) > 3
    np.testing.assert_allclose(actual['boxes'], expected.boxes, rtol=0, atol=1e-3)
    np.testing.assert_allclose(actual['scores'], expected.scores, rtol=0, atol=1e-6)
    assert actual['labels'].tolist() == expected.labels.tolist()
    assert actual['masks'].shape == (len(expected), 90, 131)
    assert 0.01 < expected.masks.mean() < 0.99
    assert (actual['masks'] != expected.masks).mean() < 1e-4


def test_the_label_map_is_that_of_predict(exported, program, photo, tmp_path):
    actual = found_alone(program, exported('segmenter'), photo, tmp_path)['label_map']
    expected = Predictor(exported('segmenter'))(photo).label_map
    assert len(np.unique(expected)) > 3
    assert (actual != expected).mean() < 1e-3


def test_the_program_prints_what_it_finds_and_draws_it(exported, program, photo, tmp_path):
    drawing = tmp_path / 'found.png'
    command = [sys.executable, program, exported('rtmdet_ins'), photo, '--score-thr', '0.95']
    printed = subprocess.check_output([*command, '--drawing', str(drawing)], text=True).splitlines()
    expected = Predictor(exported('rtmdet_ins'))(photo).above(0.95)
    assert [line.partition(' at ')[0] for line in printed] == [
        f'{name} {score:.3f}' for name, score in zip(expected.names, expected.scores)
    ]
    assert (cv2.imread(str(drawing)) != cv2.imread(photo)).any()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nowhere.onnx', '{photo}'], 'nowhere.onnx is not a file'),
        (['{photo}', '{photo}'], 'wide.png is no model that ONNX Runtime can run'),
        (['{model}', '{model}'], 'model.onnx is not an image'),
        (['{model}', '{photo}', '--drawing', 'found.doc'], 'found.doc cannot be written'),
        (['{model}', '{photo}', '--drawing', 'nowhere/found.png'], 'nowhere/found.png cannot be written'),
    ],
)
def test_a_mistake_gets_a_sentence(arguments, message, exported, program, photo):
    arguments = [argument.format(photo=photo, model=exported('rtmdet_ins')) for argument in arguments]
    done = subprocess.run([sys.executable, program, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert re.search(f'error: .*{message}', done.stderr)
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    ('resize', 'size'),
    [
        ({}, None),
        (dict(scale=[160, 120], keep_ratio=False), None),
        (dict(scale=[200, 100], keep_ratio=True, pad=dict(size=[224, 192], value=[114, 114, 114])), None),
        (dict(scale=[61, 45], keep_ratio=True, pad=dict(size_divisor=32, value=[1, 2, 3])), None),
        (dict(scale=[200, 100], keep_ratio=True), [96, 64]),
        (dict(scale=[64, 64], keep_ratio=True, pad=dict(size=[64, 96], value=[0, 0, 0])), [96, 64]),
    ],
)
@pytest.mark.parametrize('shape', [(90, 131), (131, 90)])
def test_images_are_resized_and_padded_as_mmdetection_does(resize, size, shape, program):
    model = object.__new__(runpy.run_path(program)['ExportedModel'])
    model.description = dict(resize=resize, size=size, size_divisor=1)
    pixels = image(*shape).permute(1, 2, 0).numpy()
    resized, padded = model._prepare(pixels)
    if size and 'pad' not in resize:
        resize = dict(scale=size[::-1], keep_ratio=False)
    expected = ImagePipeline(config_of_model({}, 'mmdet', ['thing'], [], resize))(pixels)
    np.testing.assert_array_equal(padded, expected['inputs'].permute(1, 2, 0).numpy())
    assert (resized[1] / shape[1], resized[0] / shape[0]) == pytest.approx(expected['data_samples'].scale_factor)


def test_the_page_shows_the_programs_own_lines(program, root):
    page = (root / 'docs/deployment.md').read_text()
    (block,) = re.findall(r'^```python\n(resized, .*?)^```', page, re.MULTILINE | re.DOTALL)
    assert textwrap.indent(block, ' ' * 8) in Path(program).read_text()
