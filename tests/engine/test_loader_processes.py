"""Processes that load images and die, or find no memory."""

import multiprocessing
import os
import queue
import signal
import time

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import nn
from torch.utils.data import get_worker_info
from torch.utils.data._utils import signal_handling

from fasternet_mm.engine.loader_processes import explaining_dead_loaders, move_to_shared_memory
from fasternet_mm.engine.runner import StrictRunner
from fasternet_mm.errors import RunError

KILLED = 'a process that loads images was killed, probably since the memory was full: lower the number of these'
SHARED_MEMORY = 'the processes that load images have no shared memory left (/dev/shm): set --workers 0, or give the'


class Linear(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=(torch.stack(inputs) * self.weight).mean())


class Samples:
    """Of which the last one kills the process that reads it, if it is to."""

    def __init__(self, deadly=False):
        self.deadly = deadly

    def __len__(self):
        return 8

    def __getitem__(self, number):
        if self.deadly and number == 7 and get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        return dict(inputs=torch.ones(1), data_samples=None)


class KillLoader(Hook):
    """Kills the process that loads images while the model computes."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        for _ in range(100):
            time.sleep(0.1)


EPOCH = dict(type='fasternet_mm.EpochLoop', max_epochs=1)


def train(folder, monkeypatch, dataset, hooks=(), loop=EPOCH, **loading):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    StrictRunner(
        Linear(),
        str(folder),
        train_dataloader=dict(
            dataset=dataset,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=2,
            num_workers=1,
            **loading,
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=list(hooks),
        default_hooks=dict(checkpoint=None),
        experiment_name=folder.name,
        cfg=Config(),
    ).train()


@pytest.fixture
def death_is_heard():
    """PyTorch sets its handler once in a process, and a training whose loaders died has taken it away."""
    heard, handler = signal_handling._SIGCHLD_handler_set, signal.getsignal(signal.SIGCHLD)
    signal_handling._SIGCHLD_handler_set = False
    yield
    signal_handling._SIGCHLD_handler_set = heard
    signal.signal(signal.SIGCHLD, handler)


@pytest.mark.usefixtures('death_is_heard')
@pytest.mark.parametrize('deadly', [True, False], ids=['while it is waited for', 'while the model computes'])
def test_a_process_that_is_killed_is_explained_whatever_the_training_does(deadly, tmp_path, monkeypatch):
    with pytest.raises(RunError) as error:
        train(tmp_path, monkeypatch, Samples(deadly), hooks=() if deadly else [KillLoader()])
    assert str(error.value) == f'{KILLED} processes (--workers) or the batch (--batch), and go on with --resume'


def explain(error):
    with explaining_dead_loaders('--workers', '--batch', 'go on with --resume'):
        raise error


@pytest.mark.parametrize(
    ('error', 'explanation'),
    [
        (RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. '), KILLED),
        (RuntimeError('DataLoader worker (pid 7) is killed by signal: Bus error. It is possible …'), SHARED_MEMORY),
        (RuntimeError('unable to allocate shared memory(shm) for file </torch_1>: No space left'), SHARED_MEMORY),
        (
            RuntimeError('DataLoader worker (pid 7) is killed by signal: Segmentation fault. '),
            'a process that loads images has died (Segmentation fault): set --workers 0 to see where, and',
        ),
        (
            RuntimeError('Caught _ArrayMemoryError in DataLoader worker process 0.\nOriginal …'),
            'no memory was left, of',
        ),
        (MemoryError(), 'no memory was left, of'),
    ],
)
def test_what_pytorch_says_is_explained(error, explanation):
    with pytest.raises(RunError) as raised:
        explain(error)
    assert str(raised.value).startswith(explanation)


@pytest.mark.parametrize(
    ('cause', 'explanation'),
    [
        (
            RuntimeError('DataLoader worker (pid 7) is killed by signal: Aborted. '),
            r'^a process .* has died \(Aborted\)',
        ),
        (queue.Empty(), KILLED),
    ],
)
def test_a_death_is_found_behind_the_error_that_followed_it(cause, explanation):
    error = RuntimeError('DataLoader worker (pid(s) 7) exited unexpectedly')
    error.__cause__ = cause
    with pytest.raises(RunError, match=explanation):
        explain(error)


@pytest.mark.parametrize('error', [RuntimeError('mat1 and mat2 cannot be multiplied'), EOFError(), KeyError('img')])
def test_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as raised:
        explain(error)
    assert raised.value is error


def test_all_tensors_of_a_sample_are_moved_to_shared_memory():
    tensors = [torch.zeros(3) for _ in range(5)]
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=tensors[1].view(1, 1, 3)), gt_instances=InstanceData(labels=tensors[2])
    )
    move_to_shared_memory(dict(inputs=tensors[0], data_samples=sample, others=[tensors[3], (tensors[4], 'text')]))
    assert [tensor.is_shared() for tensor in tensors] == [True] * 5


@pytest.mark.parametrize('loop', [EPOCH, dict(type='fasternet_mm.IterLoop', max_iters=2)], ids=['epochs', 'iterations'])
def test_processes_that_load_images_end_with_the_training(loop, tmp_path, monkeypatch):
    train(tmp_path, monkeypatch, Samples(), loop=loop, persistent_workers=True)
    assert multiprocessing.active_children() == []
