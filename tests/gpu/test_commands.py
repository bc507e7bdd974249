"""The way from training to figures, by the commands, on a few of the embedded images."""

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from own_layouts import made, write_coco
from printed import printed_rows

from fasternet_mm import Predictor
from fasternet_mm.engine.config import load_config
from fasternet_mm.engine.runner import build_runner

DETECTOR = 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py'
SEGMENTER = 'configs/shapes/upernet_fasternet_t0_shapes.py'
FEW = (
    'train_dataloader.dataset.indices=8',
    'val_dataloader.dataset.indices=4',
    'test_dataloader.dataset.indices=4',
)
EPOCHS = (*FEW, 'train_cfg.val_interval=1')
ITERATIONS = (*FEW, 'train_dataloader.batch_size=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2')

FLOAT16 = ('optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.dtype=float16', 'optim_wrapper.loss_scale=dynamic')
"""``--amp`` takes bfloat16 where the GPU has it."""

PRECISIONS = {'float32': ((), ()), 'amp': (('--amp',), ()), 'float16': ((), FLOAT16)}
"""Options of ``train``, and changes of the config."""

ALL_PRECISIONS = [pytest.param(name, marks=[pytest.mark.cuda] if name != 'float32' else []) for name in PRECISIONS]


def training(config, work, precision, *options, changes=()):
    """The arguments of ``train``."""
    own, own_changes = PRECISIONS[precision]
    return ('train', config, '--work-dir', work, *own, *options, '--cfg-options', *own_changes, *changes)


@pytest.fixture(scope='module')
def trainings(start, tmp_path_factory, device):
    """Work directories after one epoch of two steps, by precision; the trainings run side by side."""
    names = PRECISIONS if device == 'cuda' else ['float32']
    works = {name: tmp_path_factory.mktemp(name) for name in names}

    def train(name):
        changes = (*EPOCHS, 'train_cfg.max_epochs=1')
        start(*training(DETECTOR, works[name], name, '--seed', 3, changes=changes))

    with ThreadPoolExecutor() as threads:
        list(threads.map(train, works))
    return works


@pytest.fixture(params=ALL_PRECISIONS)
def trained(request, trainings, tmp_path):
    """A copy of one of them, and its precision."""
    return shutil.copytree(trainings[request.param], tmp_path / 'work'), request.param


def skipped_steps(checkpoint):
    """Steps that mixed precision left out: each halves the scale of the loss, which begins at 2**16."""
    return 16 - round(math.log2((checkpoint['optimizer'].get('loss_scaler') or dict(scale=2**16))['scale']))


def steps_of(checkpoint):
    """How often the weights have changed, and would have without steps that were left out."""
    (steps,) = {int(state['step']) for state in checkpoint['optimizer']['state'].values()}
    return steps + skipped_steps(checkpoint)


def test_resuming_brings_back_step_rate_and_momentum_onto_the_device(trained, tmp_path, device, root, monkeypatch):
    monkeypatch.chdir(root)
    work, precision = trained
    saved = torch.load(work / 'epoch_1.pth', weights_only=True)
    cfg = load_config(DETECTOR, (*EPOCHS, 'train_cfg.max_epochs=1', *PRECISIONS[precision][1]))
    cfg.work_dir, cfg.load_from, cfg.resume = str(tmp_path / 'other'), str(work / 'epoch_1.pth'), True
    if precision == 'amp':
        cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False))
    runner = build_runner(cfg, ('train', 'val'))
    runner.train()  # nothing is left to do
    assert (runner.epoch, runner.iter) == (1, 2)
    assert runner.optim_wrapper.get_lr()['lr'][0] == saved['optimizer']['param_groups'][0]['lr']
    assert runner.message_hub.get_scalar('train/loss').current() > 0
    assert runner.optim_wrapper.optimizer.defaults['fused']
    states = runner.optim_wrapper.optimizer.state_dict()['state']
    assert states.keys() == saved['optimizer']['state'].keys()
    for number, state in states.items():
        for moment in ('exp_avg', 'exp_avg_sq'):
            assert state[moment].device.type == device
            assert torch.equal(state[moment].cpu(), saved['optimizer']['state'][number][moment])
    for name, value in runner.model.state_dict().items():
        assert value.device.type == device
        assert torch.equal(value.cpu(), saved['state_dict'][name]), name


def test_training_resumes_where_it_stopped(trained, run):
    work, precision = trained
    printed = run(*training(DETECTOR, work, precision, '--resume', changes=(*EPOCHS, 'train_cfg.max_epochs=2')))
    assert 'Epoch(train) [1]' not in printed
    checkpoint = torch.load(work / 'epoch_2.pth', weights_only=True)
    assert (checkpoint['meta']['epoch'], checkpoint['meta']['iter']) == (2, 4)
    assert steps_of(checkpoint) == 4
    assert checkpoint['param_schedulers'][0]['last_step'] == 4


@pytest.mark.cuda
def test_training_goes_on_in_another_precision(trainings, tmp_path, run):
    work = shutil.copytree(trainings['amp'], tmp_path / 'work')
    run(*training(DETECTOR, work, 'float16', '--resume', changes=(*EPOCHS, 'train_cfg.max_epochs=2')))
    assert steps_of(torch.load(work / 'epoch_2.pth', weights_only=True)) == 4


def test_a_trained_detector_is_tested_and_predicts(trained, run, shapes, tmp_path):
    work, _ = trained
    drawn = ('--show-dir', tmp_path / 'drawings', '--report', tmp_path / 'report.html')
    printed = run('test', work, '--work-dir', tmp_path, *drawn, '--cfg-options', *FEW)
    assert printed_rows(printed).keys() == {'bbox', 'segm'}
    assert (tmp_path / 'drawings/sheet.png').is_file()
    images = sorted((shapes / 'images/test').iterdir())[:2]
    run('predict', work, *images, '--out-dir', tmp_path / 'out')
    records = json.loads((tmp_path / 'out/results.json').read_text())
    assert len({record['image_id'] for record in records}) == 2


@pytest.mark.parametrize('engine', ['--no-optimize', pytest.param('--bf16', marks=pytest.mark.cuda)])
def test_engines_of_a_trained_detector(engine, trainings, run, shapes, tmp_path):
    work = trainings['float32']
    printed = run('test', work, '--work-dir', tmp_path, engine, '--cfg-options', *FEW)
    assert printed_rows(printed).keys() == {'bbox', 'segm'}
    run('predict', work, min((shapes / 'images/test').iterdir()), '--out-dir', tmp_path / 'out', engine)
    assert json.loads((tmp_path / 'out/results.json').read_text())


@pytest.mark.parametrize('optimize', [False, True], ids=['as trained', 'optimized'])
def test_a_predictor_answers_in_numpy_as_on_the_cpu(optimize, trainings, shapes, root, monkeypatch, device):
    monkeypatch.chdir(root)
    images = sorted((shapes / 'images/test').iterdir())[:4]
    on_cpu = Predictor(trainings['float32'], device='cpu', optimize=False)
    predictor = Predictor(trainings['float32'], device=device, optimize=optimize, batch_size=2)
    assert next(predictor.model.parameters()).device.type == device
    for prediction, expected in zip(predictor(images), on_cpu(images), strict=True):
        assert isinstance(prediction.boxes, np.ndarray)
        assert isinstance(prediction.scores, np.ndarray)
        assert len(expected.scores) > 0
        # So early, thousands of boxes have nearly the same score: which are suppressed differs, their scores do not.
        np.testing.assert_allclose(prediction.scores[:10], expected.scores[:10], atol=0.01)


def test_a_model_that_was_trained_on_the_device_is_exported(trainings, run, shapes, tmp_path, device):
    exported = tmp_path / 'model.torchscript'
    run('export', trainings['float32'], '--out', exported)
    image = min((shapes / 'images/test').iterdir())
    expected = Predictor(trainings['float32'], device=device)(image)
    prediction = Predictor(exported, trust_program=True)(image)
    np.testing.assert_allclose(prediction.scores[:10], expected.scores[:10], atol=0.01)
    printed = run('test', exported, '--work-dir', tmp_path, '--trust-program', '--cfg-options', *FEW)
    assert printed_rows(printed).keys() == {'bbox', 'segm'}


@pytest.mark.parametrize('precision', ALL_PRECISIONS[:2])
def test_a_segmenter_trains_resumes_is_tested_and_predicts(precision, run, shapes, tmp_path):
    for steps in (2, 4):
        changes = (*ITERATIONS, f'train_cfg.max_iters={steps}')
        run(*training(SEGMENTER, tmp_path, precision, '--resume', changes=changes))
    assert steps_of(torch.load(tmp_path / 'iter_4.pth', weights_only=True)) == 4
    printed = run('test', tmp_path, '--show-dir', tmp_path / 'drawings', '--cfg-options', *FEW)
    assert 0 < printed_rows(printed)['mIoU'][0] <= 100
    run('predict', tmp_path, min((shapes / 'images/test').iterdir()), '--out-dir', tmp_path / 'out')
    assert list((tmp_path / 'out/labels').glob('*.png'))


SMALL_BACKBONE = """
_base_ = {base!r}
model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dim=16, depths=(1, 1, 1, 1), act='GELU'), norm_cfg=dict(type={norm!r})),
    neck=dict(in_channels=[16, 32, 64, 128]),
)
"""


def small_config(root, folder, norm='BN'):
    path = folder / 'small.py'
    path.write_text(SMALL_BACKBONE.format(base=str(root / DETECTOR), norm=norm))
    return path


@pytest.mark.parametrize('precision', ALL_PRECISIONS[:2])
def test_a_compiled_backbone_trains(precision, run, root, tmp_path, device):
    # Inductor compiles for minutes on a CPU.
    compiler = () if device == 'cuda' else ('compile.backend=aot_eager',)
    changes = (*EPOCHS, 'train_cfg.max_epochs=1', *compiler)
    run(*training(small_config(root, tmp_path), tmp_path / 'work', precision, '--compile', changes=changes))
    checkpoint = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=True)
    assert steps_of(checkpoint) == 2
    assert all(value.isfinite().all() for value in checkpoint['state_dict'].values())
    assert not any('_orig_mod' in name for name in checkpoint['state_dict'])


def free_port():
    with socket.socket() as endpoint:
        endpoint.bind(('127.0.0.1', 0))
        return endpoint.getsockname()[1]


def test_one_process_trains_through_the_script_with_synchronized_norms(root, shapes, tmp_path):
    python = tmp_path / 'bin/python'
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    environment = {**os.environ, 'PATH': f'{python.parent}:{os.environ["PATH"]}', 'PORT': str(free_port())}
    config, work = small_config(root, tmp_path, norm='SyncBN'), tmp_path / 'work'
    options = ('--work-dir', work, '--cfg-options', *EPOCHS, 'train_cfg.max_epochs=1')
    command = ['bash', 'tools/dist_train.sh', config, '1', *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert printed_rows(done.stdout).keys() == {'bbox', 'segm'}
    assert steps_of(torch.load(work / 'epoch_1.pth', weights_only=True)) == 2


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    write_coco(tmp_path / 'data', made(train=20, val=2))
    return tmp_path / 'data'


def test_own_data_trains_a_model_that_is_tested_and_predicts(own_data, run, tmp_path, device):
    work = tmp_path / 'work'
    printed = run('train', DETECTOR, '--data', own_data, '--work-dir', work, '--epochs', 1, '--size', 64, 96)
    if device == 'cuda':
        assert re.search(r'float(16|32)? ?mixed with float32|mixed with float32', printed)
        assert re.search(r'a step with \d+ at once takes \d+\.\d GiB of', printed)
    assert '| segm |' in run('test', work)
    run('predict', work, own_data / 'images/val', '--out-dir', tmp_path / 'out')
    assert len(list((tmp_path / 'out').rglob('*.png'))) == 2


@pytest.mark.cuda
def test_own_data_trains_in_steps_that_the_memory_holds(own_data, run, tmp_path, little_memory):
    little_memory(700 * 2**20)
    options = ('--work-dir', tmp_path / 'work', '--epochs', 1, '--size', 512, 512, '--batch', 16)
    printed = run('train', DETECTOR, '--data', own_data, *options)
    at_once = re.search(r'(\d+) images at once, and the gradients of the 16 are added up: 16 would take', printed)
    assert int(at_once[1]) < 16
    assert torch.load(tmp_path / 'work/epoch_1.pth', weights_only=True)['meta']['iter'] == 2


@pytest.mark.cuda
def test_a_step_that_the_memory_does_not_hold_ends_with_a_sentence(
    command, shapes, root, tmp_path, little_memory, monkeypatch
):
    monkeypatch.chdir(root)
    little_memory(150 * 2**20)
    changes = ('train_dataloader.dataset.indices=32',)
    done = command('train', DETECTOR, '--work-dir', tmp_path, '--batch', 32, '--cfg-options', *changes)
    assert done.returncode == 2
    assert 'does not hold a training step with 32 images at once in float32: add --amp, give a' in done.stderr
