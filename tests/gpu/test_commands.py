"""The way from training to figures, by the commands, on a few of the embedded images."""

import json
import math
import os
import re
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
EPOCHS = (*FEW, 'train_cfg.val_interval=1', 'default_hooks.checkpoint.max_keep_ckpts=2')
ITERATIONS = (*FEW, 'train_dataloader.batch_size=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2')

FLOAT16 = ('optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.dtype=float16', 'optim_wrapper.loss_scale=dynamic')
"""``--amp`` takes bfloat16 where the GPU has it."""

PRECISIONS = {'float32': ((), ()), 'amp': (('--amp',), ()), 'float16': ((), FLOAT16)}
"""Options of ``train``, and changes of the config."""

MIXED = [pytest.param(name, marks=pytest.mark.cuda) for name in ('amp', 'float16')]

SMALL_BACKBONE = """
_base_ = {base!r}
small = dict(_delete_=True, embed_dim=16, depths=(1, 1, 1, 1), act='GELU')
model = dict(backbone=dict(arch=small, norm_cfg=dict(type={norm!r})), neck=dict(in_channels=[16, 32, 64, 128]))
"""


def small_config(folder, root, norm='BN', more=''):
    """A config file of the detector with a small backbone."""
    path = folder / 'small.py'
    path.write_text(SMALL_BACKBONE.format(base=str(root / DETECTOR), norm=norm) + more)
    return path


def train(config, work, precision, *options, changes=()):
    """The arguments of a training."""
    own, own_changes = PRECISIONS[precision]
    return ('train', config, '--work-dir', work, *own, *options, '--cfg-options', *own_changes, *changes)


def detector_runs(work, precision):
    """One epoch of two steps, then another."""
    changes = [(*EPOCHS, f'train_cfg.max_epochs={epochs}') for epochs in (1, 2)]
    first = train(DETECTOR, work, precision, '--seed', 3, changes=changes[0])
    return [first, train(DETECTOR, work, precision, '--resume', changes=changes[1])]


def segmenter_runs(work, precision):
    """Two steps, then two more."""
    changes = [(*ITERATIONS, f'train_cfg.max_iters={steps}') for steps in (2, 4)]
    return [train(SEGMENTER, work, precision, '--resume', changes=of_run) for of_run in changes]


def compiled_run(work, precision, root, device):
    # Inductor compiles for minutes on a CPU.
    more = '' if device == 'cuda' else "compile = dict(backend='aot_eager')\n"
    config = small_config(work, root, more=more)
    return train(config, work / 'run', precision, '--compile', changes=(*EPOCHS, 'train_cfg.max_epochs=1'))


def own_data_run(work):
    write_coco(work / 'data', made(train=20, val=2))
    return ('train', DETECTOR, '--data', work / 'data', '--work-dir', work / 'run', '--epochs', 1, '--size', 64, 96)


def script_run(work, root):
    """Of tools/dist_train.sh, with norms that processes share."""
    config = small_config(work, root, norm='SyncBN')
    options = ('--work-dir', work / 'run', '--cfg-options', *EPOCHS, 'train_cfg.max_epochs=1')
    return ('bash', 'tools/dist_train.sh', config, 1, *options)


def environment(folder):
    """In which scripts find this Python, a free port, and no images of earlier runs."""
    python = folder / 'bin/python'
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with socket.socket() as endpoint:
        endpoint.bind(('127.0.0.1', 0))
        port = endpoint.getsockname()[1]
    paths = dict(PATH=f'{python.parent}:{os.environ["PATH"]}', XDG_CACHE_HOME=str(folder / 'cache'))
    return {**os.environ, **paths, 'PORT': str(port)}


@pytest.fixture(scope='module')
def trainings(root, shapes, tmp_path_factory, device):
    """Trainings in processes of their own, side by side: a function from a name to the work directory and the output.

    Each is one command after the other, up to the first that fails.
    """
    works = {}

    def work(name):
        works[name] = tmp_path_factory.mktemp(name)
        return works[name]

    precisions = PRECISIONS if device == 'cuda' else ['float32']
    runs = {f'detector {name}': detector_runs(work(f'detector {name}'), name) for name in precisions}
    for name in [name for name in precisions if name != 'float16']:
        runs[f'segmenter {name}'] = segmenter_runs(work(f'segmenter {name}'), name)
        runs[f'compiled {name}'] = [compiled_run(work(f'compiled {name}'), name, root, device)]
    runs['own data'] = [own_data_run(work('own data'))]
    runs['script'] = [script_run(work('script'), root)]
    settings = dict(capture_output=True, text=True, cwd=root, env=environment(tmp_path_factory.mktemp('environment')))

    def run_all(commands):
        done = []
        for command in commands:
            program = [] if command[0] == 'bash' else [sys.executable, '-m', 'fasternet_mm']
            done.append(subprocess.run([*program, *map(str, command)], **settings))
            if done[-1].returncode:
                break
        return done

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = dict(zip(runs, threads.map(run_all, runs.values())))

    def finished(name):
        last = results[name][-1]
        assert last.returncode == 0, last.stdout + last.stderr
        return works[name], last.stdout

    return finished


def skipped_steps(checkpoint):
    """Steps that mixed precision left out: each halves the scale of the loss, which begins at 2**16."""
    return 16 - round(math.log2((checkpoint['optimizer'].get('loss_scaler') or dict(scale=2**16))['scale']))


def steps_of(checkpoint):
    """How often the weights have changed, and would have without steps that were left out."""
    (steps,) = {int(state['step']) for state in checkpoint['optimizer']['state'].values()}
    return steps + skipped_steps(checkpoint)


@pytest.mark.parametrize('precision', ['float32', MIXED[1]])
def test_resuming_brings_back_step_rate_and_momentum_onto_the_device(precision, trainings, tmp_path, device, run):
    checkpoint = trainings(f'detector {precision}')[0] / 'epoch_1.pth'
    saved = torch.load(checkpoint, weights_only=True)
    cfg = load_config(DETECTOR, (*EPOCHS, 'train_cfg.max_epochs=1', *PRECISIONS[precision][1]))
    cfg.work_dir, cfg.load_from, cfg.resume = str(tmp_path), str(checkpoint), True
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


@pytest.mark.parametrize('precision', ['float32', *MIXED])
def test_training_resumes_where_it_stopped(precision, trainings):
    work, printed = trainings(f'detector {precision}')
    assert 'Epoch(train) [2]' in printed
    assert 'Epoch(train) [1]' not in printed
    checkpoint = torch.load(work / 'epoch_2.pth', weights_only=True)
    assert (checkpoint['meta']['epoch'], checkpoint['meta']['iter']) == (2, 4)
    assert steps_of(checkpoint) == 4
    assert checkpoint['param_schedulers'][0]['last_step'] == 4


@pytest.mark.cuda
def test_training_goes_on_in_another_precision(trainings, tmp_path, run):
    earlier = trainings('detector amp')[0] / 'epoch_1.pth'
    changes = (*EPOCHS, 'train_cfg.max_epochs=2')
    run(*train(DETECTOR, tmp_path, 'float16', '--resume', earlier, changes=changes))
    assert steps_of(torch.load(tmp_path / 'epoch_2.pth', weights_only=True)) == 4


def test_a_trained_detector_is_tested_and_predicts(trainings, run, shapes, tmp_path):
    work, _ = trainings('detector float32')
    drawn = ('--show-dir', tmp_path / 'drawings', '--report', tmp_path / 'report.html')
    printed = run('test', work, '--work-dir', tmp_path, *drawn, '--cfg-options', *FEW)
    assert printed_rows(printed).keys() == {'bbox', 'segm'}
    assert (tmp_path / 'drawings/sheet.png').is_file()
    images = sorted((shapes / 'images/test').iterdir())[:2]
    run('predict', work, *images, '--out-dir', tmp_path / 'out')
    records = json.loads((tmp_path / 'out/results.json').read_text())
    assert len({record['image_id'] for record in records}) == 2


HALF = [pytest.param(option, marks=pytest.mark.cuda) for option in ('--fp16', '--bf16')]


@pytest.mark.parametrize('engine', ['--no-optimize', *HALF])
def test_a_trained_detector_is_tested_on_other_engines(engine, trainings, run, tmp_path):
    work, _ = trainings('detector float32')
    printed = run('test', work, '--work-dir', tmp_path, engine, '--cfg-options', *FEW)
    assert printed_rows(printed).keys() == {'bbox', 'segm'}


@pytest.mark.parametrize('optimize', [False, True], ids=['as trained', 'optimized'])
def test_a_predictor_answers_in_numpy_as_on_the_cpu(optimize, trainings, shapes, run, device):
    work, _ = trainings('detector float32')
    images = sorted((shapes / 'images/test').iterdir())[:4]
    on_cpu = Predictor(work, device='cpu', optimize=False)
    predictor = Predictor(work, device=device, optimize=optimize, batch_size=2)
    assert next(predictor.model.parameters()).device.type == device
    for prediction, expected in zip(predictor(images), on_cpu(images), strict=True):
        assert isinstance(prediction.boxes, np.ndarray)
        assert isinstance(prediction.scores, np.ndarray)
        assert len(expected.scores) > 0
        # So early, many boxes have nearly the same score: which of them are suppressed differs, their scores do not.
        np.testing.assert_allclose(prediction.scores[:10], expected.scores[:10], atol=0.01)


def test_a_model_that_was_trained_on_the_device_is_exported(trainings, run, shapes, tmp_path, device):
    work, _ = trainings('detector float32')
    exported = tmp_path / 'model.torchscript'
    run('export', work, '--out', exported)
    image = min((shapes / 'images/test').iterdir())
    prediction = Predictor(exported, trust_program=True)(image)
    expected = Predictor(work, device=device)(image)
    np.testing.assert_allclose(prediction.scores[:10], expected.scores[:10], atol=0.01)
    printed = run('test', DETECTOR, exported, '--work-dir', tmp_path, '--trust-program', '--cfg-options', *FEW)
    assert printed_rows(printed).keys() == {'bbox', 'segm'}


@pytest.mark.parametrize('precision', ['float32', MIXED[0]])
def test_a_segmenter_resumes_is_tested_and_predicts(precision, trainings, run, shapes, tmp_path):
    work, _ = trainings(f'segmenter {precision}')
    assert steps_of(torch.load(work / 'iter_4.pth', weights_only=True)) == 4
    drawn = ('--show-dir', tmp_path / 'drawings')
    printed = run('test', work, '--work-dir', tmp_path, *drawn, '--cfg-options', *FEW)
    assert 0 < printed_rows(printed)['mIoU'][0] <= 100
    run('predict', work, min((shapes / 'images/test').iterdir()), '--out-dir', tmp_path / 'out')
    assert list((tmp_path / 'out/labels').glob('*.png'))


@pytest.mark.parametrize('precision', ['float32', MIXED[0]])
def test_a_compiled_backbone_trains(precision, trainings):
    work, _ = trainings(f'compiled {precision}')
    checkpoint = torch.load(work / 'run/epoch_1.pth', weights_only=True)
    assert steps_of(checkpoint) == 2
    assert all(value.isfinite().all() for value in checkpoint['state_dict'].values())
    assert not any('_orig_mod' in name for name in checkpoint['state_dict'])


def test_one_process_trains_through_the_script_with_synchronized_norms(trainings):
    work, printed = trainings('script')
    assert printed_rows(printed).keys() == {'bbox', 'segm'}
    assert steps_of(torch.load(work / 'run/epoch_1.pth', weights_only=True)) == 2


def test_own_data_trains_a_model_that_is_tested_and_predicts(trainings, run, tmp_path, device):
    work, printed = trainings('own data')
    if device == 'cuda':
        assert 'mixed with float32' in printed
        assert re.search(r'a step with \d+ at once takes \d+\.\d GiB of \d+\.\d GiB that are free', printed)
    assert '| segm |' in run('test', work / 'run', '--work-dir', tmp_path)
    run('predict', work / 'run', work / 'data/images/val', '--out-dir', tmp_path / 'out')
    assert len([*(tmp_path / 'out').rglob('*.png')]) == 2


@pytest.mark.cuda
def test_own_data_trains_in_steps_that_the_memory_holds(run, tmp_path, little_memory, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    write_coco(tmp_path / 'data', made(train=20, val=2))
    little_memory(700 * 2**20)
    options = ('--work-dir', tmp_path / 'work', '--epochs', 1, '--size', 512, 512, '--batch', 16)
    printed = run('train', DETECTOR, '--data', tmp_path / 'data', *options)
    at_once = re.search(r'(\d+) images at once, and the gradients of the 16 are added up: \d+ would take', printed)
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
