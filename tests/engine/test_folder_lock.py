"""One training in a folder; the other one is a process of its own."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from fasternet_mm.engine.folder_lock import folder_lock
from fasternet_mm.errors import UserError
from fasternet_mm.files import LOCK

OTHER = """
import os, sys, time
from fasternet_mm.engine.folder_lock import folder_lock
with folder_lock(sys.argv[1]):
    worker = os.fork() if 'worker' in sys.argv else None
    if not worker:  # a worker tells that it runs, since only then it has let the lock go
        print(os.getpid() if worker == 0 else None, flush=True)
    time.sleep(60)
"""


@contextmanager
def another_process(folder, *options):
    """A process that has the lock of a folder, and the number of its worker, which ends after it."""
    command = [sys.executable, '-c', OTHER, str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        worker = process.stdout.readline().strip()
        try:
            yield process, int(worker) if worker != 'None' else None
        finally:
            process.kill()
            if worker != 'None':
                os.kill(int(worker), signal.SIGKILL)


def taken(folder):
    with folder_lock(folder):
        return json.loads((folder / LOCK).read_text())


def test_a_folder_that_another_process_trains_in_is_refused_with_its_number_and_machine(tmp_path):
    with another_process(tmp_path) as (process, _):
        who = f'process {process.pid} on {socket.gethostname()} has trained in it since 20'
        with pytest.raises(UserError, match=f'^{tmp_path} is in use: {who}.*; wait until that ends, or name another'):
            taken(tmp_path)
        assert json.loads((tmp_path / LOCK).read_text())['pid'] == process.pid


@pytest.mark.parametrize('options', [(), ('worker',)])
def test_a_killed_process_frees_its_folder_at_once_whatever_its_workers_do(options, tmp_path):
    with another_process(tmp_path, *options) as (process, worker):
        process.kill()
        process.wait()
        if worker:
            os.kill(worker, 0)  # it is there
        assert taken(tmp_path)['pid'] == os.getpid()


def test_a_folder_is_free_after_its_training_and_nothing_is_left(tmp_path):
    for _ in range(2):
        taken(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path):
    taken(tmp_path / 'new')
    assert not (tmp_path / 'new').exists()
    with folder_lock(tmp_path / 'new'):
        (tmp_path / 'new/epoch_1.pth').touch()
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['epoch_1.pth']


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='file cannot be written'):
        taken(tmp_path / 'file')


def test_a_full_disk_is_named_and_leaves_the_folder_free(tmp_path, monkeypatch):
    def full(record, **_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr('fasternet_mm.engine.folder_lock.json.dumps', full)  # as writing the record would
        with pytest.raises(UserError, match=r'\.lock cannot be written \(No space left on device\)'):
            taken(tmp_path)
    assert taken(tmp_path)['pid'] == os.getpid()


class TestWithoutLocks:
    """On a file system that has no locks, what the file says counts."""

    @pytest.fixture(autouse=True)
    def _no_locks(self, monkeypatch):
        def without(file, operation):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, 'flock', without)

    def record(self, folder, process, **changes):
        """The record of a running process, with changes."""
        record = json.loads((folder / LOCK).read_text())
        assert record['pid'] == process.pid
        (folder / LOCK).write_text(json.dumps({**record, **changes}))

    def test_a_running_process_is_refused(self, tmp_path):
        with another_process(tmp_path), pytest.raises(UserError, match='is in use'):
            taken(tmp_path)

    @pytest.mark.parametrize('asked_for', [True, False])
    def test_one_that_is_gone_is_taken_over(self, asked_for, tmp_path):
        with another_process(tmp_path) as (process, _):
            process.kill()
            if asked_for:
                process.wait()
            else:
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # as a parent that does not ask
            assert taken(tmp_path)['pid'] == os.getpid()

    def test_another_process_that_has_its_number_now_is_not_taken_for_it(self, tmp_path):
        with another_process(tmp_path) as (process, _):
            self.record(tmp_path, process, start='1')
            assert taken(tmp_path)['pid'] == os.getpid()

    def test_one_of_another_machine_is_refused_with_what_to_do(self, tmp_path):
        with another_process(tmp_path) as (process, _):
            self.record(tmp_path, process, host='elsewhere')
            process.kill()
            message = f'process {process.pid} on elsewhere .*if it has ended, .* delete {tmp_path / LOCK}'
            with pytest.raises(UserError, match=message):
                taken(tmp_path)
            assert (tmp_path / LOCK).exists()

    def test_half_a_record_keeps_nobody_out(self, tmp_path):
        (tmp_path / LOCK).write_text('{"pid": 3')
        assert taken(tmp_path)['pid'] == os.getpid()
