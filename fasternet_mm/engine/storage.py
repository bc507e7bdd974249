"""Files appear whole or not at all."""

import os
import tempfile
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from ..errors import UserError


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write beside the target, then rename, so that an interruption leaves what was there before."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with open(partial, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(folder: str) -> None:
    """Raise `UserError` unless files can be made in ``folder``, which is made when it is missing."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f'{folder} cannot be written ({error.strerror}): name another folder') from error


class AtomicLocalBackend(LocalBackend):
    """Local files through `write_atomically`; MMEngine's own local backend writes in place.

    A checkpoint hook takes it with ``backend_args=dict(backend='atomic')``.
    """

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        write_atomically(filepath, obj)


def register_atomic_backend() -> None:
    register_backend('atomic', AtomicLocalBackend, force=True)
