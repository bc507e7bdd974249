"""Models that are published and read again, and what is refused of strangers' files."""

import copy
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.config import Config

import fasternet_mm
from fasternet_mm.datasets.shapes import CLASSES
from fasternet_mm.engine.recorded_config import described_model, recorded_config
from fasternet_mm.engine.start_checkpoint import start_from
from fasternet_mm.engine.trained_model import find_trained_model
from fasternet_mm.errors import UserError
from fasternet_mm.hub.published_files import read_run, write_model
from fasternet_mm.inference import Predictor


@pytest.mark.parametrize('kind', ['work_dir', 'segmenter_dir'])
def test_a_published_model_predicts_bit_for_bit_as_the_training_left_it(kind, hub, root, tmp_path, request):
    folder = request.getfixturevalue(kind)
    images = sorted((root / 'data/shapes/images/val').glob('*.png'))[:2]
    expected = Predictor(str(folder), device='cpu')(images)
    write_model(read_run(str(folder)), tmp_path / 'model.safetensors')
    hub.publish('alice/model.onnx', (tmp_path / 'model.safetensors').read_bytes())
    actual = Predictor('hf://alice/model.onnx', device='cpu')(images)
    assert sum(map(len, expected)) > 5 or kind == 'segmenter_dir'
    for prediction, other in zip(actual, expected):
        assert (prediction.classes, prediction.palette) == (other.classes, other.palette)
        for name in ('boxes', 'scores', 'labels', 'label_map'):
            assert np.array_equal(getattr(prediction, name), getattr(other, name))
        assert prediction.encoded_masks == other.encoded_masks


def test_from_pretrained_gives_the_network_as_mmdetection_has_it(hub, published, detector):
    commit = hub.publish('alice/model', published)
    model = fasternet_mm.from_pretrained('alice/model', revision=commit)
    assert type(model) is type(detector)
    assert not model.training
    assert model.dataset_meta['classes'] == CLASSES
    for name, value in detector.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_a_training_starts_from_a_published_model(hub, published, detector_cfg):
    commit = hub.publish('alice/model', published)
    cfg = copy.deepcopy(detector_cfg)
    assert start_from(cfg, 'hf://alice/model') == f'hf://alice/model@{commit}, epoch 1: 164 of 164 tensors'
    assert cfg.load_from == f'hf://alice/model@{commit}'


def test_a_test_takes_a_published_model_in_the_place_of_a_checkpoint(hub, published, work_dir, command):
    hub.publish('alice/model', published)
    options = ('test_dataloader.dataset.indices=1', 'test_dataloader.num_workers=0')
    options += ('test_dataloader.persistent_workers=False',)
    done = command('test', work_dir, 'hf://alice/model', '--cfg-options', *options)
    assert done.returncode == 0, done.stderr
    assert '| bbox |' in done.stdout
    done = command('test', 'hf://alice/model')
    assert done.returncode == 2
    assert 'hf://alice/model brings no data to test on: name what does before it' in done.stderr


def test_tiles_of_the_training_are_those_of_the_published_model(work_dir, tmp_path):
    run = read_run(str(work_dir))
    run.description['config']['tile'] = dict(tile=[640, 320], overlap=0.3)
    write_model(run, tmp_path / 'a.safetensors')
    cfg, _ = find_trained_model(str(tmp_path / 'a.safetensors'))
    assert cfg.tile == dict(tile=(640, 320), overlap=0.3)


@pytest.mark.parametrize(
    'name', ['mask_rcnn_fasternet_s', 'faster_rcnn_fasternet_t0', 'rtmdet_ins_fasternet_s', 'fpn_fasternet_t0']
)
def test_models_of_all_kinds_can_be_published(name, root):
    cfg = Config.fromfile(root / f'configs/{name}.py')
    description = json.loads(json.dumps(described_model(cfg, ('a', 'b'), [(1, 2, 3), (4, 5, 6)])))
    assert 'init_cfg' not in str(description)
    assert description['config']['model']['type'] == cfg.model.type


def test_a_model_that_nobody_could_read_is_not_published(detector_cfg):
    cfg = copy.deepcopy(detector_cfg)
    cfg.model.backbone.type = 'my_package.Backbone'
    with pytest.raises(UserError, match=r"the config has type='my_package\.Backbone', which is not read from files of"):
        described_model(cfg, CLASSES, [])


# A published file is a stranger's

EVIL = "__import__('pathlib').Path('executed').touch()"

CHANGES = {
    'a scope': ('config.default_scope', 'subprocess'),
    'a scope that is no text': ('config.default_scope', ['mmdet']),
    'a function': ('config.model.type', 'pathlib.Path.touch'),
    'a module': ('config.model.type', 'os.system'),
    'another scope': ('config.model._scope_', 'antigravity'),
    'a custom import': ('config.model.custom_imports', dict(imports=['antigravity'])),
    'a base': ('config.model._base_', 'http://127.0.0.1/config.py'),
    'an evaluated expression': ('config.model.test_cfg.rcnn.nms.type', EVIL),
    'a file that is unpickled': ('config.model.roi_head.bbox_head.loss_cls.class_weight', 'weights.pkl'),
    'an architecture': ('config.model.backbone.arch', EVIL),
    'no model': ('config.model', 3),
    'nested too deep': ('config.model.neck', None),
    'no resizing': ('config.resize', None),
    'a scale of words': ('config.resize.scale', ['nearest', 'mean']),
    'a scale of no size': ('config.resize.scale', [0, 160]),
    'a scale of more pixels than memory holds': ('config.resize.scale', [10**9, 10**9]),
    'another step': ('config.resize.type', 'Albu'),
    'an argument of a step': ('config.resize.pad', dict(size=[9, 9], value=[0, 0, 0], type='Albu')),
    'a palette of paths': ('dataset_meta.palette', ['/etc/passwd'] * 6),
    'tiles of words': ('config.tile', dict(tile=['a', 'b'], overlap=0.2)),
    'tiles without an overlap': ('config.tile', dict(tile=[9, 9])),
}


def changed(published, place, value):
    """A published file with another value in its description, written as any program could."""
    tensors, description = parts_of(published)
    *parents, last = place.split('.')
    node = description
    for part in parents:
        node = node[part]
    node[last] = value
    return safetensors.torch.save(tensors, dict(fasternet_mm=json.dumps(description)))


def parts_of(published):
    length = int.from_bytes(published[:8], 'little')
    header = json.loads(published[8 : 8 + length])
    return safetensors.torch.load(published), json.loads(header['__metadata__']['fasternet_mm'])


@pytest.mark.parametrize('kind', CHANGES)
def test_nothing_of_a_description_is_executed_or_looked_up(kind, published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place, value = CHANGES[kind]
    if kind == 'nested too deep':
        for _ in range(500):
            value = [value]
    (tmp_path / 'a.safetensors').write_bytes(changed(published, place, value))
    with pytest.raises(UserError, match=r'a\.safetensors has a config that is not read without executing it'):
        recorded_config('a.safetensors')
    assert [path.name for path in tmp_path.iterdir()] == ['a.safetensors']


@pytest.mark.parametrize(
    ('description', 'sentence'),
    [
        ('{', 'has a damaged description: get it again'),
        ('[' * 100_000, 'has a damaged description: get it again'),
        ('3', 'does not say its config and classes'),
        ('{"config": {}}', 'does not say its config and classes'),
        ('{"config": {}, "dataset_meta": {"classes": ["a"]}}', 'has a description of another version: update'),
        ('{"config": {"format_version": 2}, "dataset_meta": {"classes": ["a"]}}', 'of another version: update'),
        ('{"config": {"format_version": 1}, "dataset_meta": {"classes": ["a"]}}', 'has a config that is not read'),
        ('{"config": {"format_version": 1}, "dataset_meta": {"classes": [3]}}', 'does not say its config'),
    ],
)
def test_a_broken_description_is_told_in_a_sentence(description, sentence, tmp_path):
    file = tmp_path / 'a.safetensors'
    file.write_bytes(safetensors.torch.save(dict(weight=torch.zeros(1)), dict(fasternet_mm=description)))
    with pytest.raises(UserError, match=sentence):
        Predictor(str(file), device='cpu')


@pytest.mark.parametrize(
    ('place', 'value', 'sentence'),
    [
        ('config.model.neck.out_channels', 10**6, r'describes a model of [\d,]+ numbers, but holds [\d,]+'),
        ('config.model.neck.out_channels', -5, 'describes a model that cannot be built|model cannot be built'),
        ('config.model.neck.out_channels', 'mean', 'cannot be built'),
        ('config.model.neck.unknown', 3, 'cannot be built'),
        ('config.model.backbone.arch.depths', [1, 1, 1], 'cannot be built'),
    ],
)
def test_a_description_that_is_of_no_model_takes_no_memory(place, value, sentence, published, tmp_path):
    file = tmp_path / 'a.safetensors'
    file.write_bytes(changed(published, place, value))
    with pytest.raises(UserError, match=sentence):
        Predictor(str(file), device='cpu')


def test_weights_that_are_missing_are_not_passed_over(published, tmp_path):
    tensors, description = parts_of(published)
    tensors['other.weight'] = tensors.pop('rpn_head.rpn_cls.weight')
    file = tmp_path / 'a.safetensors'
    safetensors.torch.save_file(tensors, file, dict(fasternet_mm=json.dumps(description)))
    with pytest.raises(UserError, match=r'1 missing \(rpn_head.rpn_cls.weight\); 1 unknown \(other.weight\)'):
        Predictor(str(file), device='cpu')
