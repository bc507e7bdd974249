import os
import signal

import pytest
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from fasternet_mm.engine import launching


@pytest.fixture
def status(monkeypatch):
    """The status that the launcher ends with where torchrun does something."""
    before = signal.getsignal(signal.SIGUSR1)

    def launch(torchrun):
        monkeypatch.setattr('torch.distributed.run.main', torchrun)
        with pytest.raises(SystemExit) as end:
            launching.main(['--module', 'fasternet_mm'])
        return end.value.code

    yield launch
    signal.signal(signal.SIGUSR1, before)


def test_after_a_signal_the_status_is_that_of_shells(status):
    def end(argv):
        raise SignalException('', signal.SIGTERM)

    assert status(end) == 143


def test_sigusr1_ends_torchrun_as_its_own_signals_do(status):
    assert status(lambda argv: os.kill(os.getpid(), signal.SIGUSR1)) == 138


@pytest.mark.parametrize(('code', 'expected'), [(2, 2), (143, 143), (-signal.SIGKILL, 137)])
def test_after_a_failure_the_status_is_that_of_the_first_process_that_ended(code, expected, status, tmp_path):
    def fail(argv):
        failure = ProcessFailure(local_rank=1, pid=1, exitcode=code, error_file=str(tmp_path / 'none'))
        raise ChildFailedError('train', {1: failure})

    assert status(fail) == expected
