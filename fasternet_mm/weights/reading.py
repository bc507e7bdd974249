"""Reading checkpoint files without executing anything that they hold."""

from __future__ import annotations

import errno
import json
import zipfile
from pathlib import Path
from typing import Any

import safetensors.torch

from ..errors import UserError
from .pytorch_files import read_archive, read_legacy
from .seal import damage
from .unpickling import UnsafePickle

DESCRIPTION = 'fasternet_mm'
"""Under this name a safetensors file of ours says in JSON what checkpoints of MMEngine have in ``meta``."""


def read_file(path: Path, name: str, mmap: bool = False) -> dict[str, Any]:
    """The content of a checkpoint file, its tensors on the CPU; nothing in it is executed.

    The config text in ``meta`` is left out: MMEngine would execute it when training resumes.

    Args:
        path: the file.
        name: what to call it in messages.
        mmap: let the tensors stand in the file until they are used, where its format allows.

    Raises:
        UserError: the file cannot be read, is broken, or holds objects of types that a checkpoint does not need.
    """
    checkpoint = _read(path, name, mmap)
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('cfg', None)
        checkpoint['meta'].pop('config', None)
    return checkpoint


def read_meta(path: Path, name: str) -> dict[str, Any]:
    """What a checkpoint file says besides its tensors, with its config as text, which nobody must execute.

    Args:
        path, name: see `read_file`.

    Raises:
        UserError: see `read_file`.
    """
    meta = _read(path, name, mmap=True).get('meta')
    return meta if isinstance(meta, dict) else {}


def _read(path: Path, name: str, mmap: bool) -> dict[str, Any]:
    try:
        kind = check_file(path, name)
        if kind == 'safetensors':
            return _read_safetensors(path, name)
        checkpoint = read_archive(path, mmap) if kind == 'zip' else read_legacy(path)
    except UserError:
        raise
    except UnsafePickle as error:
        raise UserError(
            f'checkpoint {name} is refused: it asks to run {error}, which is not safe; get it as plain tensors'
        ) from error
    except MemoryError as error:
        raise UserError(
            f'checkpoint {name} does not fit into the memory that is free: free some, or take a machine with more'
        ) from error
    except Exception as error:  # whatever a malformed file can lead to
        # Damaged archives name places before the beginning of the file, to which seeking is an invalid argument.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise unreadable(name, error) from error
        raise UserError(f'checkpoint {name} is broken, or not a PyTorch checkpoint: fetch or train it again') from error
    if not isinstance(checkpoint, dict):
        raise UserError(f'checkpoint {name} holds a {type(checkpoint).__name__}: a dict of tensors is needed')
    return checkpoint


def _read_safetensors(path: Path, name: str) -> dict[str, Any]:
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, 'pt') as file:
        description = (file.metadata() or {}).get(DESCRIPTION)
    if description is None:
        return tensors
    try:
        meta = json.loads(description)
    except (ValueError, RecursionError) as error:
        raise UserError(f'checkpoint {name} has a damaged description: get it again, or publish it again') from error
    return dict(state_dict=tensors, meta=meta)


def unreadable(name: str, error: OSError) -> UserError:
    """The error for a checkpoint file that exists and that the operating system does not let us read."""
    return UserError(f'checkpoint {name} cannot be read ({error.strerror or error}): give a file that you may read')


def check_file(path: Path, name: str, thorough: bool = False) -> str:
    """The format of a checkpoint file that is whole: 'zip' (PyTorch), 'pickle' (PyTorch before 1.6), 'safetensors'.

    Args:
        path: the file.
        name: what to call it in messages.
        thorough: also compare the checksums in a PyTorch archive (see `damage`), which reads all of it. Default: False.

    Raises:
        UserError: it is empty, cut short, packed to more than its own size, or no checkpoint at all.
    """
    try:
        size = path.stat().st_size
        with open(path, 'rb') as file:
            start = file.read(512)
    except OSError as error:
        raise unreadable(name, error) from error
    if size == 0:
        raise UserError(f'checkpoint {name} is empty (0 bytes): fetch it again')
    # A safetensors file begins with the length of its header, whose bytes may spell anything, but never without a zero.
    if b'\0' not in start[:8] and start.removeprefix(b'\xef\xbb\xbf').lstrip()[:1] == b'<':
        raise UserError(
            f'checkpoint {name} is a web page, as servers send for errors and log-ins: fetch the file again'
        )
    if start.startswith(b'version https://git-lfs'):
        raise UserError(f'checkpoint {name} is a Git LFS pointer, not the file: run git lfs pull where it came from')
    if start.startswith(b'PK\x03\x04'):
        _check_archive(path, name, size, thorough)
        return 'zip'
    if start[257:262] == b'ustar':
        raise UserError(
            f'checkpoint {name} is a tar archive, of the first versions of PyTorch, which is not read: have one of '
            'them load it and save its tensors anew'
        )
    if start[8:9] == b'{':
        try:
            with safetensors.safe_open(path, 'pt'):
                return 'safetensors'
        except safetensors.SafetensorError as error:
            raise UserError(f'checkpoint {name} is cut short or damaged ({error}): fetch it again') from error
    if start.startswith(b'\x80'):
        return 'pickle'
    raise UserError(f'checkpoint {name} is broken, or no checkpoint: a PyTorch (.pth) or safetensors file is needed')


def _check_archive(path: Path, name: str, size: int, thorough: bool) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        damaged = damage(path) if thorough else None
    except MemoryError:
        raise
    except Exception as error:  # whatever a malformed archive can lead to
        raise UserError(f'checkpoint {name} is cut short or damaged ({error}): fetch it again') from error
    if damaged:
        raise UserError(f'checkpoint {name} is damaged ({damaged}): fetch it again')
    # PyTorch 2.1 would run it even where only weights are asked for.
    if any(member.filename.endswith('/constants.pkl') for member in members):
        raise UserError(f'checkpoint {name} is refused: it is a TorchScript program; save its state_dict() instead')
    unpacked = sum(member.file_size for member in members)
    if unpacked > size:
        raise UserError(
            f'checkpoint {name} is refused: its {size:,} bytes would unpack to {unpacked:,}, and PyTorch never packs'
        )
