"""Files appear whole or not at all."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError

MARKER = '.fasternet_mm_output'
"""The name of an empty file that marks a folder as written by our commands."""

CHECKPOINT = re.compile(r'((best_.+|(epoch|iter)_\d+)\.pth|last_checkpoint)')
"""The names of files that only a training leaves in a work directory."""

LOCK = '.lock'
"""The name of the file that keeps a work directory for one training."""

DRAFT = '.draft-'
"""How the names of `drafting`'s folders begin."""


@contextmanager
def appearing(path: str | os.PathLike) -> Iterator[Path]:
    """A path to write to; what is written there appears as ``path`` in one step when the context ends well.

    Files written beside it, under other suffixes, come along. ``path`` is the last to appear, so that it never stands
    there without them, or with those of before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f'.{path.name}.') as folder:
            yield Path(folder, path.name)
            written = sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name)
            for file in written:
                with open(file, 'rb') as content:
                    os.fsync(content.fileno())
            if len(written) > 1:
                path.unlink(missing_ok=True)
            for file in written:
                os.replace(file, path.with_name(file.name))
            _sync_folder(path.parent)
    except OSError as error:
        error.filename = error.filename or os.fspath(path)  # of a full disk, Python does not say where
        raise


def _sync_folder(folder: Path) -> None:
    """Have the disk know the names in a folder: until then a power cut takes the new ones back."""
    if not hasattr(os, 'O_DIRECTORY'):  # Windows cannot, and has no need
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):  # where files alone can be synced
            raise


def sweep_drafts(folder: str | os.PathLike) -> None:
    """Remove what trainings that were killed had begun to write into their work directory.

    Drafts of other files stay: an evaluation may be writing them.
    """
    for entry in Path(folder).glob('.*'):
        name, _, _random = entry.name.removeprefix('.').rpartition('.')
        is_draft = entry.name.startswith(DRAFT) or name == 'config.py' or CHECKPOINT.fullmatch(name)
        if is_draft and entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    with appearing(path) as draft:
        draft.write_bytes(content)


def mark_output(folder: str | os.PathLike) -> None:
    """Mark a new or empty folder as written by our commands, so that it is not taken for data.

    A folder that holds anything else, such as images, is not marked; hidden files do not count.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if all(entry.name.startswith('.') for entry in folder.iterdir()):
        Path(folder, MARKER).touch()


def is_output(folder: str | os.PathLike, names: Collection[str]) -> bool:
    """Whether our commands wrote a folder: `mark_output` marked it, or it holds what nothing else writes.

    That is a config beside checkpoints or beside ``samples.png``, MMEngine's logs, or detections in ``predictions``.

    Args:
        folder: its path.
        names: of the files and folders in it.
    """
    name = os.path.basename(folder)
    if MARKER in names or (name == 'predictions' and 'results.json' in names):
        return True
    if any(file.endswith('.py') for file in names):
        return any(map(CHECKPOINT.fullmatch, names)) or {'config.py', 'samples.png'} <= set(names)
    return 'vis_data' in names and re.fullmatch(r'\d{8}_\d{6}', name) is not None


def check_writable(folder: str) -> None:
    """Raise `UserError` unless files can be made in ``folder``, which is made when it is missing."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f'{folder} cannot be written ({error.strerror}): name another folder') from error


@contextmanager
def drafting(folder: str | os.PathLike) -> Iterator[Path]:
    """A temporary folder inside ``folder``, from which files can be moved into it at once.

    ``folder`` is made when it is missing, and removed again where nothing came of it.

    Raises:
        UserError: ``folder`` cannot be written.
    """
    existed = Path(folder).exists()
    check_writable(str(folder))
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=DRAFT) as draft:
            yield Path(draft)
    finally:
        if not existed:
            with suppress(OSError):  # something is in it
                Path(folder).rmdir()
