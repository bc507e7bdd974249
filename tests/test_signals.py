import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from fasternet_mm.signals import ENDING, EndingSignals


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)])
def test_a_signal_ends_what_runs_with_its_status_and_the_handler_of_before_comes_back(number, status):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end, EndingSignals():
        os.kill(os.getpid(), number)
    assert end.value.code == status
    assert signal.getsignal(number) == before


def test_ctrl_c_stays_what_python_makes_of_it():
    with pytest.raises(KeyboardInterrupt), EndingSignals():
        os.kill(os.getpid(), signal.SIGINT)


def test_signals_that_are_held_are_only_kept():
    with EndingSignals() as signals:
        signals.hold()
        assert signals.received == 0
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), number)
            assert signals.received == number


def test_what_was_ignored_stays_ignored_as_under_nohup():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with EndingSignals() as signals:
            signals.hold()
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_a_signal_that_a_library_takes_for_an_error_of_its_own_still_ends_with_its_status():
    def misunderstand():
        with EndingSignals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except:  # noqa: E722  as MMEngine's Config.pretty_text has it
                raise SyntaxError('failed to format') from None

    with pytest.raises(SystemExit) as end:
        misunderstand()
    assert end.value.code == 143


def test_a_signal_that_the_code_took_for_the_end_of_its_own_work_ends_nothing_more():
    with EndingSignals() as signals, suppress(SystemExit):  # as where a server has answered all that it held
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(ValueError, match='later'), signals:
        raise ValueError('later')


def test_in_another_thread_than_the_main_one_nothing_changes():
    handlers = []

    def run():
        with EndingSignals():
            handlers.extend(signal.getsignal(number) for number in ENDING)

    before = [signal.getsignal(number) for number in ENDING]
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == before


TWICE = """
import os, signal, sys
from fasternet_mm.signals import EndingSignals

with EndingSignals() as signals:
    signals.hold()
    os.kill(os.getpid(), signal.SIGINT)
    print('first', signals.received, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print('second', flush=True)
"""


@pytest.mark.parametrize(
    ('environment', 'status', 'printed'),
    [({}, -signal.SIGINT, ['first 2']), (dict(TORCHELASTIC_RUN_ID='none'), 0, ['first 2', 'second'])],
)
def test_a_second_ctrl_c_ends_at_once_but_where_torchrun_sends_it(environment, status, printed, root):
    everything = {key: value for key, value in os.environ.items() if key != 'TORCHELASTIC_RUN_ID'} | environment
    done = subprocess.run([sys.executable, '-c', TWICE], env=everything, capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stdout.splitlines()) == (status, printed)


SERVANT = """
import multiprocessing, threading
from fasternet_mm.signals import end_with_parent

def serve():
    threading.Thread(target=threading.Event().wait).start()  # for which Python waits at the end
    end_with_parent()
    print(multiprocessing.current_process().pid, flush=True)

if __name__ == '__main__':
    servant = multiprocessing.get_context('fork').Process(target=serve)
    servant.start()
    servant.join()
"""


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_process_that_serves_another_one_ends_with_it_whatever_it_waits_for():
    with subprocess.Popen([sys.executable, '-c', SERVANT], stdout=subprocess.PIPE, text=True) as parent:
        servant = int(parent.stdout.readline())
        parent.kill()
        try:
            parent.communicate(timeout=60)  # which ends when the servant, too, has no output any more
        except subprocess.TimeoutExpired:
            os.kill(servant, signal.SIGKILL)
            raise
