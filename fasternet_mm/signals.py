"""Signals that end a command: at once, or, where work would be lost, as soon as it is saved."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ('SIGTERM', 'SIGINT', 'SIGUSR1', 'SIGHUP') if hasattr(signal, name))
"""Signals by which a user, a shell, a launcher, Slurm, Docker and clouds end a process."""


def exit_status(number: int) -> int:
    """That of a command which a signal ended, as shells have it."""
    return 128 + number


class EndingSignals:
    """While the context lasts, a signal raises `SystemExit`, as SIGINT raises `KeyboardInterrupt`: all is cleaned up.

    Once `hold` is called, a signal is only kept in `received`. A second SIGINT then ends the process at once, even one
    that waits for others forever; under torchrun it does not, since a terminal's Ctrl-C may come twice there.

    A signal that was ignored stays ignored, such as SIGHUP under ``nohup``; outside of the main thread all stay as they
    are, since Python handles signals there alone.
    """

    def __init__(self) -> None:
        self.received = 0
        """The number of the last signal that was held; 0 where there was none."""
        self._held = False
        self._ending: BaseException | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> EndingSignals:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                previous = signal.getsignal(number)
                if previous not in (signal.SIG_IGN, None):  # None: a handler of other languages, which cannot come back
                    self._previous[number] = previous
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()
        while error and error is not self._ending:
            error = error.__context__
        if error:  # also where an "except:" in a library made another error of it
            raise error from None

    def hold(self) -> None:
        """From now on, keep signals."""
        self._held = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._held:
            self._ending = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(exit_status(number))
            raise self._ending
        self.received = number
        if number == signal.SIGINT and 'TORCHELASTIC_RUN_ID' not in os.environ:
            signal.signal(number, signal.SIG_DFL)


def ignore_signals_of_the_group() -> None:
    """In a process that only serves another one: live until that one is done with it.

    A terminal's Ctrl-C, torchrun and ``timeout`` send a signal to a whole group of processes, of which this one leaves.
    SIGTERM from its parent still ends it.
    """
    for number in set(ENDING) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(os, 'setpgid'):
        os.setpgid(0, 0)


def end_with_parent() -> None:
    """In a process that only serves another one: end within a second or two of that one, however it ended.

    PyTorch's processes that load data notice its end as well, but then wait forever until somebody reads what they have
    loaded.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
