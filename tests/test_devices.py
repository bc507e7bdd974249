"""Which device computes, and what is said on a Mac, whose GPU does not."""

import re
import sys
from types import SimpleNamespace

import pytest
import torch

from fasternet_mm.cli import env
from fasternet_mm.devices import device_of_choice, unused_gpu

CONFIG = 'shapes/mask_rcnn_fasternet_t0_shapes'
SENTENCE = "This Mac's GPU (MPS) is not used, since this package was not tested on it: the CPU computes."


@pytest.fixture
def mac(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)


@pytest.mark.parametrize(
    ('cuda', 'mps', 'device', 'sentence'),
    [(True, False, 'cuda', None), (False, False, 'cpu', None), (False, True, 'cpu', SENTENCE)],
)
def test_a_gpu_computes_where_there_is_one_but_not_a_macs(cuda, mps, device, sentence, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: mps)
    assert device_of_choice() == device
    assert unused_gpu() == sentence


def test_the_choice_is_made_in_one_file(root):
    asked = re.compile(r'cuda\.is_available|mmengine\.device|\bget_device\(|is_cuda_available')
    files = (root / 'fasternet_mm').rglob('*.py')
    assert [path.name for path in files if asked.search(path.read_text())] == ['devices.py']


@pytest.mark.usefixtures('mac')
def test_env_says_that_a_macs_gpu_is_not_used():
    facts, _ = env.describe()
    assert facts['GPU'] == SENTENCE
    assert facts['precision'].startswith('cpu computes in float32')


@pytest.mark.usefixtures('mac')
def test_training_and_testing_say_it_before_they_begin(command, monkeypatch, tmp_path):
    runner = SimpleNamespace(rank=0, test=sys.exit, train=sys.exit, register_hook=lambda hook: None)
    monkeypatch.setattr('fasternet_mm.engine.runner.build_runner', lambda *args, **options: runner)
    for args in (('train', CONFIG), ('test', CONFIG, 'net.pth')):
        assert command(*args, '--work-dir', tmp_path / 'work').stdout == f'{SENTENCE}\n', args
    runner.rank = 1
    assert command('test', CONFIG, 'net.pth', '--work-dir', tmp_path / 'work').stdout == ''


@pytest.mark.usefixtures('mac')
@pytest.mark.parametrize(('options', 'device', 'printed'), [((), None, SENTENCE), (('--device', 'mps'), 'mps', '')])
def test_prediction_says_it_unless_the_user_names_the_device(options, device, printed, command, monkeypatch, fixtures):
    devices = []

    def stop(source, checkpoint, device, **settings):
        devices.append(device)
        sys.exit()

    monkeypatch.setattr('fasternet_mm.inference.predictor.Predictor', stop)
    done = command('predict', fixtures, fixtures / '000000000785.jpg', *options)
    assert (done.stdout.strip(), devices) == (printed, [device]), done.stderr
