"""One training in a work directory at a time."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ..errors import UserError
from ..files import LOCK, check_writable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def folder_lock(folder: str | os.PathLike) -> Iterator[None]:
    """Keep a folder for this process while the context lasts.

    The operating system frees it at any death, that by SIGKILL included. Where the file system has no locks, as some
    network file systems, the file says who has the folder, and a process of this machine that is gone has it no more.

    Args:
        folder: its path; it is made when it is missing, and removed again where nothing came of it.

    Raises:
        UserError: another process has it, or it cannot be written.
    """
    folder = Path(folder)
    existed = folder.exists()
    check_writable(str(folder))
    file = _take(folder / LOCK)
    try:
        yield
    finally:
        Path(folder, LOCK).unlink(missing_ok=True)
        file.close()
        if not existed:
            with suppress(OSError):  # something is in it
                folder.rmdir()


def _take(path: Path) -> IO[bytes]:
    """The lock's file, open, locked and with this process's record.

    Raises:
        UserError: another process has it.
    """
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), 'rb+', buffering=0)
        try:
            _lock(path, file)
            if _is_at(path, file):  # and was not freed, and with that removed, between opening and locking
                _write_record(file)
                break
        except OSError as error:
            file.close()
            raise UserError(f'{path} cannot be written ({error.strerror}): name another --work-dir') from error
        except UserError:
            file.close()
            raise
        file.close()
    if fcntl:
        # Workers that outlive a killed training for some seconds would keep the lock with the file that they inherit.
        os.register_at_fork(after_in_child=file.close)
    return file


def _lock(path: Path, file: IO[bytes]) -> None:
    other, here = _record(file), socket.gethostname()
    who = (
        'process {pid} on {host} has trained in it since {since}'.format(**other)
        if other
        else 'another process trains in it'
    )
    in_use = f'{path.parent} is in use: {who}; wait until that ends, or name another --work-dir'
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
    except BlockingIOError as error:
        raise UserError(in_use) from error
    except OSError:  # the file system has no locks
        pass
    if not other:
        return
    if other['host'] != here:
        raise UserError(f'{in_use}; if it has ended, which cannot be seen from {here}, delete {path}')
    if _is_running(other['pid'], other['start']):
        raise UserError(in_use)


def _record(file: IO[bytes]) -> dict[str, Any]:
    """Who has the lock, as its file says; nothing where it is new, or only half written."""
    with suppress(ValueError, TypeError, KeyError):
        record = json.loads(file.read())
        return {key: record[key] for key in ('pid', 'host', 'since', 'start')}
    return {}


def _write_record(file: IO[bytes]) -> None:
    pid = os.getpid()
    record = dict(pid=pid, host=socket.gethostname(), since=time.strftime('%Y-%m-%d %H:%M:%S'), start=_start(pid))
    file.truncate(0)
    file.seek(0)
    file.write(json.dumps(record).encode())


def _is_running(pid: int, start: str | None) -> bool:
    if os.name != 'posix':  # where os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return _start(pid) == start


def _start(pid: int) -> str | None:
    """When a process began, in ticks since the machine did: another one may have its number later.

    None where the system does not say, and of one that has ended and that its parent has not asked for yet.
    """
    try:
        state, *numbers = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
        return None if state == 'Z' else numbers[18]
    except OSError:
        return None


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
