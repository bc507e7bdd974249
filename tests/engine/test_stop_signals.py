"""Trainings in the tests' own process that get signals."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from fasternet_mm.engine.runner import StrictRunner
from fasternet_mm.errors import RunError
from fasternet_mm.signals import ENDING

CHECKPOINTS = dict(type='fasternet_mm.CheckpointHook', interval=10, max_keep_ckpts=1)
ALL = [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)]


class Mean(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        mean = self.layer(torch.stack(inputs)).square().mean()
        return dict(loss=mean) if mode == 'loss' else [mean]


class SendSignal(Hook):
    """Sends this process a signal at a place of a training, the ``count``-th time that it comes there."""

    def __init__(self, place, number, count=1):
        setattr(self, place, self._pass)
        self.number, self.count = number, count

    def _pass(self, *_, **__):
        self.count -= 1
        if self.count == 0:
            os.kill(os.getpid(), self.number)


def loader(count, workers=0):
    return dict(
        dataset=[dict(inputs=torch.full((3, 8, 8), float(number))) for number in range(count)],
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=1,
        num_workers=workers,
    )


def training(folder, *hooks, epochs=3, workers=0, **settings):
    """Epochs of four steps, each with a validation of two batches."""
    return StrictRunner(
        Mean(),
        str(folder),
        train_dataloader=loader(4, workers),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_dataloader=loader(2),
        val_cfg=dict(),
        val_evaluator=Evaluator([]),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        **{
            'default_hooks': dict(checkpoint=CHECKPOINTS),
            'custom_hooks': [*hooks, dict(type='fasternet_mm.StopSignalsHook')],
            **settings,
        },
        experiment_name=str(folder),
        cfg=Config(),
    )


def checkpoints(folder):
    return {path.name: torch.load(path, weights_only=False) for path in Path(folder).glob('*.pth')}


@pytest.mark.parametrize(('number', 'status'), ALL)
def test_a_signal_ends_a_training_after_the_step_with_a_checkpoint_and_its_status(number, status, tmp_path):
    runner = training(tmp_path, SendSignal('before_train_iter', number, 6))
    before = [signal.getsignal(each) for each in ENDING]
    with pytest.raises(SystemExit) as end:
        runner.train()
    assert end.value.code == status
    (saved,) = checkpoints(tmp_path).items()
    assert saved[0] == 'iter_6.pth'
    assert (saved[1]['meta']['epoch'], saved[1]['meta']['iter']) == (1, 6)
    for name, value in runner.model.state_dict().items():
        assert torch.equal(saved[1]['state_dict'][name], value)
    assert [signal.getsignal(each) for each in ENDING] == before
    log = next(tmp_path.glob('*/*.log')).read_text()
    line = f'{number.name}: the training is saved to {tmp_path}/iter_6.pth: go on with the same command and --resume'
    assert log.count(line) == 1


def weights_after(epochs, folder):
    """Of a training without a signal, and their averages."""
    torch.manual_seed(0)
    training(folder, dict(type='EMAHook', momentum=0.5), epochs=epochs).train()
    (saved,) = checkpoints(folder).values()
    return saved['state_dict'], saved['ema_state_dict']


def test_a_signal_in_a_validation_ends_it_with_the_state_of_training_from_before(tmp_path):
    torch.manual_seed(0)
    hooks = dict(type='EMAHook', momentum=0.5), SendSignal('before_val_iter', signal.SIGTERM, 3)
    runner = training(tmp_path / 'cut', *hooks)
    with pytest.raises(SystemExit) as end:
        runner.train()
    assert end.value.code == 143
    (saved,) = checkpoints(tmp_path / 'cut').items()
    assert saved[0] == 'epoch_2.pth'
    assert (saved[1]['meta']['epoch'], saved[1]['meta']['iter']) == (2, 8)
    weights, averages = weights_after(2, tmp_path / 'whole')
    torch.testing.assert_close(saved[1]['state_dict'], weights, rtol=0, atol=0)
    torch.testing.assert_close(saved[1]['ema_state_dict'], averages, rtol=0, atol=0)


def train_together(rank, folder, place, count):
    """One of two processes, of which the second gets a signal."""
    os.environ['LOCAL_RANK'] = str(rank)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2)
    hooks = [SendSignal(place, signal.SIGUSR1, count)] if rank == 1 else []
    training(folder / 'run', *hooks, launcher='pytorch').train()


@pytest.mark.parametrize(
    ('place', 'count', 'name', 'steps'),
    [('before_train_iter', 3, 'iter_4.pth', 4), ('before_val_iter', 1, 'epoch_1.pth', 2)],
)
def test_a_signal_to_one_of_two_processes_ends_both_after_the_same_step(place, count, name, steps, tmp_path):
    processes = multiprocessing.get_context('fork')
    started = [processes.Process(target=train_together, args=(rank, tmp_path, place, count)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [138, 138]
    (saved,) = checkpoints(tmp_path / 'run').items()
    assert (saved[0], saved[1]['meta']['iter']) == (name, steps)


def test_before_the_first_step_a_signal_ends_a_training_at_once_and_nothing_is_saved(tmp_path):
    runner = training(tmp_path, SendSignal('before_train', signal.SIGTERM))
    with pytest.raises(SystemExit) as end:
        runner.train()
    assert end.value.code == 143
    assert not checkpoints(tmp_path)


def test_without_a_checkpoint_hook_a_signal_ends_a_training_with_a_warning(tmp_path):
    runner = training(tmp_path, SendSignal('before_train_iter', signal.SIGTERM, 2), default_hooks=dict(checkpoint=None))
    with pytest.raises(SystemExit) as end:
        runner.train()
    assert end.value.code == 143
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'SIGTERM: the training ends unsaved, since its config has no checkpoint hook' in log


def test_where_the_checkpoint_cannot_be_written_the_status_is_that_of_the_disk(tmp_path, monkeypatch):
    runner = training(tmp_path, SendSignal('before_train_iter', signal.SIGTERM, 2))
    full = OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(runner, 'save_checkpoint', Mock(side_effect=full))
    with pytest.raises(RunError, match='No space left on device'):
        runner.train()


def test_a_training_that_ends_by_itself_or_by_an_error_puts_the_handlers_back(tmp_path):
    before = [signal.getsignal(each) for each in ENDING]
    training(tmp_path / 'whole', epochs=1).train()
    assert [signal.getsignal(each) for each in ENDING] == before
    failing = Hook()
    failing.before_train_iter = Mock(side_effect=RuntimeError('broken'))
    with pytest.raises(RuntimeError, match='broken'):
        training(tmp_path / 'broken', failing).train()
    assert [signal.getsignal(each) for each in ENDING] == before


def signals_of_workers(loader):
    """What each process that loads data does with the signals, and its group of processes."""
    return {(batch['group'][0], *(batch[name][0] for name in HANDLED)) for batch in loader}


HANDLED = 'SIGINT', 'SIGUSR1', 'SIGHUP'


class Handlers:
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return dict(group=os.getpgid(0), **{name: str(signal.getsignal(getattr(signal, name))) for name in HANDLED})


def test_processes_that_load_data_get_no_signals_of_the_group_and_still_begin_as_configured():
    began = torch.zeros(1).share_memory_()
    begin = dict(type=lambda number: began.add_(number + 1))
    config = {**loader(2), 'dataset': Handlers(), 'num_workers': 1, 'worker_init_fn': begin}
    workers = signals_of_workers(StrictRunner.build_dataloader(config))
    assert len(workers) == 1
    group, *handlers = workers.pop()
    assert group != os.getpgid(0)
    assert handlers == [str(signal.SIG_IGN)] * 3
    assert began.item() == 1
