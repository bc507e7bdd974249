"""Checkpoints through every command that takes one: what is refused, and what is said of what is taken."""

import io
import re
import zipfile
from pathlib import Path

import pytest
import torch
from malicious import evil_pickles
from mmengine.config import Config

from fasternet_mm import FasterNetClassifier
from fasternet_mm.datasets.shapes import ensure_shapes
from fasternet_mm.engine.runner import build_model

CONFIG = 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py'
FEW = (
    'train_dataloader.dataset.indices=8',
    'val_dataloader.dataset.indices=4',
    'test_dataloader.dataset.indices=4',
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=5',
)
TENSOR = 'backbone.stages.2.blocks.0.mlp.0.weight'


@pytest.fixture(scope='module', autouse=True)
def shapes(root):
    return ensure_shapes(root / 'data' / 'shapes')


@pytest.fixture(autouse=True)
def _in_the_project(root, monkeypatch):
    monkeypatch.chdir(root)


def training_checkpoint(*changes):
    """What a training writes, of the demo's network with changes to its config."""
    cfg = Config.fromfile(CONFIG)
    for change in changes:
        cfg.merge_from_dict(change)
    state = dict(build_model(cfg).state_dict())
    return dict(meta=dict(epoch=1, iter=2), message_hub={}, optimizer={}, state_dict=state)


@pytest.fixture(scope='module')
def whole(root):
    return training_checkpoint()


def write(path, content):
    torch.save(content, path)
    return path.read_bytes()


def cut(content, path):
    return write(path, content)[:-2000]


def bomb(content, path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('net/data.pkl', bytes(50_000_000))
    return buffer.getvalue()


def changed(**tensors):
    def change(content, path):
        state = {**content['state_dict'], **tensors.get('given', {})}
        if 'gone' in tensors:
            del state[tensors['gone']]
        return write(path, {**content, 'state_dict': state})

    return change


def malicious(where):
    return lambda content, path: write(path, {**content, **evil_pickles()[where]})


def another_variant(content, path):
    change = dict(model=dict(backbone=dict(arch='t1'), neck=dict(in_channels=[64, 128, 256, 512])))
    return write(path, training_checkpoint(change))


UNREADABLE = {
    'evil_weights': (malicious('in_the_weights'), 'is refused: it asks to run'),
    'evil_optimizer': (malicious('in_the_optimizer'), 'is refused: it asks to run'),
    'evil_metadata': (malicious('in_the_metadata'), 'is refused: it asks to run'),
    'cut': (cut, 'is cut short or damaged'),
    'empty': (lambda content, path: b'', 'is empty (0 bytes)'),
    'web_page': (lambda content, path: b'<!doctype html><p>Not found', 'is a web page'),
    'bomb': (bomb, 'would unpack to 50,000,000'),
}
MISFITS = {
    'variant': (another_variant, 'is of FasterNet-T1, the model is FasterNet-T0'),
    'missing': (changed(gone=TENSOR), '1 missing ('),
    'unknown': (changed(given={'backbone.stages.2.extra': torch.zeros(1)}), '1 unknown ('),
    'shape': (changed(given={TENSOR: torch.zeros(3, 80, 1, 1)}), '(3, 80, 1, 1) instead of (160, 80, 1, 1)'),
}
WAYS = {
    'load_from': ('train', CONFIG, '--load-from', '{file}', '--work-dir', '{out}'),
    'resume': ('train', CONFIG, '--resume', '{file}', '--work-dir', '{out}'),
    'pretrained': ('train', '{config}', '--work-dir', '{out}'),
    'test': ('test', CONFIG, '{file}', '--work-dir', '{out}'),
    'predict': ('predict', CONFIG, '{file}', 'data/shapes/images/test/0000.png', '--out-dir', '{out}'),
    'inspect': ('weights', 'inspect', '{file}', '--config', CONFIG),
    'convert': ('weights', 'convert', '{file}', '{out}.safetensors'),
}


def pretrained_config(path, checkpoint):
    path.write_text(
        f"_base_ = '{Path(CONFIG).absolute()}'\n"
        f"model = dict(backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='{checkpoint}')))\n"
    )
    return path


@pytest.mark.parametrize(
    ('way', 'kind'),
    [
        *((way, kind) for way in WAYS for kind in UNREADABLE),
        *((way, kind) for way in WAYS if way not in ('inspect', 'convert') for kind in MISFITS),
    ],
)
def test_a_bad_checkpoint_ends_every_command_with_one_line_and_nothing_written(whole, tmp_path, command, kind, way):
    make, message = {**UNREADABLE, **MISFITS}[kind]
    file, config = tmp_path / 'net.pth', tmp_path / 'config.py'
    file.write_bytes(make(whole, file))
    pretrained_config(config, file)
    places = dict(file=file, out=tmp_path / 'out', config=config)
    name, *args = (part.format(**places) for part in WAYS[way])
    done = command(name, *args)
    assert done.returncode == 2
    [error] = done.stderr.strip().splitlines()
    assert error.startswith(f'fasternet-mm {name}: error: checkpoint {file} ')
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ['config.py', 'net.pth']
    assert not Path('executed').exists()


def test_inspection_says_why_a_checkpoint_does_not_fit(whole, tmp_path, command):
    (tmp_path / 'net.pth').write_bytes(changed(gone=TENSOR)(whole, tmp_path / 'net.pth'))
    done = command('weights', 'inspect', tmp_path / 'net.pth', '--config', CONFIG)
    assert f"misfit    {CONFIG}: it (detector or segmenter, in 'state_dict') is not of this model" in done.stdout


def test_inspection_describes_a_training_checkpoint(whole, tmp_path, command):
    torch.save(whole, tmp_path / 'net.pth')
    done = command('weights', 'inspect', tmp_path / 'net.pth', '--config', CONFIG)
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows['layout'] == "detector or segmenter, in 'state_dict'"
    assert rows['network'] == 'FasterNet-T0'
    assert rows['type'] == 'float32'
    assert rows['finite'] == 'all'
    assert rows['training'] == 'after epoch 1, iteration 2; --resume goes on'
    assert rows['fits'] == CONFIG
    assert 'misfit' not in rows


def test_inspection_of_a_classifier_finds_the_configs_of_its_variant(tmp_path, command):
    state = FasterNetClassifier('t0', num_classes=7).state_dict()
    state['head.bias'][0] = torch.nan
    torch.save(state, tmp_path / 'net.pth')
    shown = command('weights', 'inspect', tmp_path / 'net.pth').stdout
    for expected in ('layout    classifier', 'classes   7', 'finite    no: head.bias', 'training  weights alone'):
        assert expected in shown
    assert 'fits      no config here\n' in shown
    assert re.search('^backbone  fits .*mask_rcnn_fasternet_t0', shown, re.MULTILINE)
    assert 'fasternet_t1' not in shown
    headings = [line.split()[0] for line in shown.splitlines()]
    assert len(headings) == len(set(headings)) == 10


def test_weights_that_are_listed_have_their_figures_and_configs(command):
    shown = command('weights', 'list').stdout
    assert 'mask_rcnn_fasternet_s_coco' in shown
    assert 'not reproduced' in shown
    assert len(re.findall(r'\| mask_rcnn_fasternet_(?:t\d|[sml]) ', shown)) == 9


def test_conversion_says_what_it_wrote(whole, tmp_path, command):
    torch.save(whole, tmp_path / 'net.pth')
    done = command('weights', 'convert', tmp_path / 'net.pth', tmp_path / 'net.safetensors')
    assert f'{len(whole["state_dict"])} tensors' in done.stdout
    assert (tmp_path / 'net.safetensors').is_file()


def test_resuming_from_weights_alone_is_refused(whole, tmp_path, command):
    torch.save(whole['state_dict'], tmp_path / 'net.pth')
    done = command('train', CONFIG, '--resume', tmp_path / 'net.pth', '--work-dir', tmp_path / 'out')
    assert done.returncode == 2
    assert 'holds weights but no training to resume' in done.stderr
    assert not (tmp_path / 'out').exists()


def test_options_of_loading_without_anything_to_load_are_refused(command):
    assert 'add --start SOURCE' in command('train', CONFIG, '--allow-mismatch').stderr


def test_training_starts_from_a_pretrained_backbone(tmp_path, command):
    net = FasterNetClassifier('t0')
    torch.save(net.state_dict(), tmp_path / 'net.pth')
    config = pretrained_config(tmp_path / 'config.py', tmp_path / 'net.pth')
    frozen = 'model.backbone.frozen_stages=4'
    done = command('train', config, '--work-dir', tmp_path / 'out', '--cfg-options', *FEW, frozen)
    assert done.returncode == 0, done.stderr
    assert '(classifier, FasterNet-T0): 128 tensors loaded, 20 initialized (norm0, norm2, norm4, norm6)' in done.stdout
    trained = torch.load(tmp_path / 'out' / 'epoch_1.pth', weights_only=True)['state_dict']
    for name, value in net.state_dict().items():
        if 'head' not in name:
            assert torch.equal(trained[f'backbone.{name}'], value), name


def test_training_starts_from_a_model_of_other_classes_and_fetches_nothing_else(tmp_path, command):
    three = dict(model=dict(roi_head=dict(bbox_head=dict(num_classes=3), mask_head=dict(num_classes=3))))
    torch.save(training_checkpoint(three), tmp_path / 'net.pth')
    config = pretrained_config(tmp_path / 'config.py', 'nowhere.pth')
    options = ('--load-from', tmp_path / 'net.pth', '--work-dir', tmp_path / 'out', '--cfg-options', *FEW)
    done = command('train', config, *options)
    assert done.returncode == 0, done.stderr
    assert re.search(r'^start: .*net.pth, epoch 1: \d+ of \d+ tensors, all but 6 of its classes$', done.stdout, re.M)
    assert 'not taken: roi_head.bbox_head.fc_cls., roi_head.bbox_head.fc_reg., roi_head.mask_head' in done.stdout


def test_a_mismatch_is_accepted_and_listed_when_asked_for_and_nan_is_warned_of(whole, tmp_path, command):
    state = dict(whole['state_dict'])
    state['roi_head.mask_head.conv_logits.bias'] = torch.full((6,), torch.nan)
    del state[TENSOR]
    torch.save(state, tmp_path / 'net.pth')
    done = command(
        'test', CONFIG, tmp_path / 'net.pth', '--allow-mismatch', '--work-dir', tmp_path / 'out', '--cfg-options', *FEW
    )
    assert done.returncode == 0, done.stderr
    assert f'accepted though missing: {TENSOR}' in done.stdout
    assert 'NaN or infinite numbers in 1 tensors (roi_head.mask_head.conv_logits)' in done.stdout
