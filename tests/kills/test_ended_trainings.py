"""Trainings that get signals, and those whose launcher or one of whose processes is killed."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import forked_trainings
import pytest
import torch
from forked_trainings import ROOT, SECONDS

ALL = [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)]


@pytest.fixture
def config(shapes, tmp_path):
    """A training that is longer than any test, with a process that loads data."""
    cfg = forked_trainings.detector(shapes)
    cfg.train_cfg.max_epochs = 1000
    cfg.train_dataloader.update(num_workers=1, persistent_workers=True)
    cfg.dump(tmp_path / 'config.py')
    return tmp_path / 'config.py'


@pytest.fixture
def dist_train(config, tmp_path):
    """Starts two processes by tools/dist_train.sh; what is left of them is killed in the end."""
    started = []

    def start(*options, **environment):
        with socket.socket() as free:
            free.bind(('localhost', 0))
            port = str(free.getsockname()[1])
        python = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
        environment = {**os.environ, 'PATH': python, 'PORT': port, 'PYTHONPATH': str(ROOT), **environment}
        command = ['bash', 'tools/dist_train.sh', config, '2', '--work-dir', tmp_path / 'run', *options]
        with open(tmp_path / 'log', 'w') as log:
            launcher = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        started.append(launcher)
        return launcher

    yield start
    for launcher in started:
        for process in (launcher.pid, *processes_of(tmp_path)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        launcher.wait()


def wait_for(condition, what):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def steps_in(log):
    """Steps of training that a log tells of."""
    found = re.findall(r'Epoch\(train\) +\[(\d+)\]\[(\d)/(\d)\]', log.read_text()) if log.exists() else []
    return (int(found[-1][0]) - 1) * int(found[-1][2]) + int(found[-1][1]) if found else 0


def processes_of(folder):
    """All that were started for a training in a folder: launcher, ranks and processes that load data."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            if os.fsencode(folder) in (process / 'cmdline').read_bytes():
                found.append(int(process.name))
        except OSError:  # it is gone
            pass
    return found


def ranks_of(launcher):
    children = Path(f'/proc/{launcher.pid}/task/{launcher.pid}/children').read_text().split()
    return [int(process) for process in children]


def checkpoint(folder):
    (path,) = [path for path in folder.glob('*.pth') if not path.name.startswith('best')]
    return path.name, torch.load(path, map_location='cpu', weights_only=False)


def assert_saved(folder, log, before, name):
    """The training in ``folder`` saved the step after which it ended, soon after the step ``before``, and says so."""
    file, state = checkpoint(folder)
    steps = state['meta']['iter']
    assert before <= steps <= before + 3, 'a step may end before the signal comes, and processes tell each other in one'
    text = log.read_text()
    assert len(re.findall(rf'{name}: the training is saved to \S+/{file}: go on', text)) >= 1
    assert 'Traceback' not in text
    assert 'killed by signal' not in text


@pytest.mark.parametrize(('number', 'status'), ALL)
def test_a_signal_ends_one_process(number, status, config, tmp_path):
    log = tmp_path / 'log'
    process = forked_trainings.start(config, '--work-dir', tmp_path / 'run', log=log)
    wait_for(lambda: steps_in(log) >= 2, 'the second step')
    steps = steps_in(log)
    os.killpg(process.pid, number)  # with the process that loads data, as a terminal does
    process.join(SECONDS)
    assert process.exitcode == status
    assert_saved(tmp_path / 'run', log, steps, number.name)


def test_a_signal_in_the_start_leaves_nothing(config, tmp_path):
    log = tmp_path / 'log'
    process = forked_trainings.start(config, '--work-dir', tmp_path / 'run', log=log)
    wait_for(lambda: log.exists() and 'Environment, config' in log.read_text(), 'a beginning')
    os.kill(process.pid, signal.SIGTERM)
    process.join(SECONDS)
    assert process.exitcode == 143
    assert not list((tmp_path / 'run').glob('*.pth'))
    assert 'Traceback' not in log.read_text()


@pytest.mark.parametrize(('number', 'status'), ALL)
def test_a_signal_ends_two_processes_and_the_launcher(number, status, dist_train, tmp_path):
    log = tmp_path / 'log'
    launcher = dist_train()
    wait_for(lambda: steps_in(log) >= 2, 'the second step')
    steps = steps_in(log)
    launcher.send_signal(number)
    assert launcher.wait(SECONDS) == status, log.read_text()[-3000:]
    assert_saved(tmp_path / 'run', log, steps, number.name)
    wait_for(lambda: not processes_of(tmp_path), 'the end of all processes')


def test_a_signal_to_one_of_two_processes_ends_both_after_the_same_step(dist_train, tmp_path):
    log = tmp_path / 'log'
    launcher = dist_train()
    wait_for(lambda: steps_in(log) >= 2, 'the second step')
    steps = steps_in(log)
    os.kill(ranks_of(launcher)[1], signal.SIGUSR1)
    assert launcher.wait(SECONDS) == 138, log.read_text()[-3000:]
    assert_saved(tmp_path / 'run', log, steps, 'SIGUSR1')


def test_where_the_launcher_is_killed_all_save_and_end(dist_train, tmp_path):
    log = tmp_path / 'log'
    launcher = dist_train()
    wait_for(lambda: steps_in(log) >= 2, 'the second step')
    assert len(processes_of(tmp_path)) >= 3
    killed = time.monotonic()
    launcher.kill()
    wait_for(lambda: len(processes_of(tmp_path)) <= 1, 'the end of all processes but the launcher, whom nobody awaits')
    assert time.monotonic() - killed < 30
    assert 'SIGTERM: the training is saved' in log.read_text()


def test_where_one_process_is_killed_all_end(dist_train, tmp_path):
    log = tmp_path / 'log'
    launcher = dist_train()
    wait_for(lambda: steps_in(log) >= 2, 'the second step')
    killed = time.monotonic()
    os.kill(ranks_of(launcher)[1], signal.SIGKILL)
    assert launcher.wait(SECONDS) != 0
    wait_for(lambda: not processes_of(tmp_path), 'the end of all processes')
    assert time.monotonic() - killed < 30


def test_torchrun_starts_the_processes_again_and_they_go_on_from_the_last_checkpoint(dist_train, tmp_path):
    log = tmp_path / 'log'
    launcher = dist_train('--cfg-options', 'train_cfg.max_epochs=4', MAX_RESTARTS='1')
    wait_for(lambda: (tmp_path / 'run/epoch_1.pth').exists(), 'the first checkpoint')
    os.kill(ranks_of(launcher)[1], signal.SIGKILL)
    assert launcher.wait(SECONDS) == 0, log.read_text()[-3000:]
    assert re.search(r'resume: \S+/epoch_\d\.pth, epoch \d, step \d', log.read_text())
    name, state = checkpoint(tmp_path / 'run')
    assert (name, state['meta']['epoch']) == ('epoch_4.pth', 4)
