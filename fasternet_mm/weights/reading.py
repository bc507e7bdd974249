"""Reading checkpoint files without executing anything that they hold."""

from __future__ import annotations

import pickle
import re
import zipfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from packaging.version import Version
from torch import Tensor
from torch.utils._pytree import tree_flatten

from ..errors import UserError


def _history_statistic(owner: type, name: str) -> Any:
    """Stands in for ``getattr``, by which MMEngine pickles the names of a history's own four statistics."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL getattr.{name}')
    return getattr(owner, name)


SAFE_TYPES = [
    HistoryBuffer,
    (_history_statistic, 'builtins.getattr'),
    np.dtype,
    np.ndarray,
    type(np.dtype(np.float64)),
    type(np.dtype(np.int64)),
    # NumPy pickles numbers and arrays by these two; their module is numpy._core from NumPy 2 on, numpy.core before.
    np.float64(0).__reduce__()[0],
    np.zeros(1).__reduce__()[0],
]
"""What MMEngine's training checkpoints hold besides tensors and plain Python: the histories of its message hub."""


def _safe_types() -> AbstractContextManager:
    """`SAFE_TYPES` where PyTorch takes stand-ins by name, from 2.6 on; our own checkpoints need none of them."""
    if Version(torch.__version__) < Version('2.6'):
        return nullcontext()
    return torch.serialization.safe_globals(SAFE_TYPES)


def read_file(path: Path, name: str, map_location: Any = 'cpu', mmap: bool = False) -> dict[str, Any]:
    """The content of a checkpoint file, through PyTorch's restricted unpickler or safetensors.

    The config text in ``meta`` is left out: MMEngine would execute it when training resumes.

    Args:
        path: the file.
        name: what to call it in messages.
        map_location: as for `torch.load`.
        mmap: let the tensors stand in the file until they are used, where its format allows.

    Raises:
        UserError: the file is broken, or holds objects of types that a checkpoint does not need.
    """
    checkpoint = _read(path, name, map_location, mmap)
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
    meta = _read(path, name, 'cpu', mmap=True).get('meta')
    return meta if isinstance(meta, dict) else {}


def _read(path: Path, name: str, map_location: Any, mmap: bool) -> dict[str, Any]:
    kind = check_file(path, name)
    try:
        if kind == 'safetensors':
            return safetensors.torch.load_file(path)
        with _safe_types():
            checkpoint = torch.load(
                str(path), map_location=map_location, weights_only=True, mmap=mmap and kind == 'zip'
            )
        if kind == 'zip':
            _check_storages(checkpoint, path)
    except Exception as error:
        asked = re.search(r'Unsupported (?:global: GLOBAL|class) (\S+)', str(error))
        if asked:
            raise UserError(
                f'checkpoint {name} is refused: it asks to run {asked[1]}, which is not safe; get it as plain tensors '
                '(the training history in MMEngine checkpoints of others needs PyTorch 2.6 or newer)'
            ) from error
        raise UserError(f'checkpoint {name} is broken, or not a PyTorch checkpoint: fetch or train it again') from error
    if not isinstance(checkpoint, dict):
        raise UserError(f'checkpoint {name} holds a {type(checkpoint).__name__}: a dict of tensors is needed')
    return checkpoint


def _check_storages(checkpoint: Any, path: Path) -> None:
    """Raise `ValueError` for a storage that no record of the archive fills: PyTorch 2.1 would read beyond its end."""
    with zipfile.ZipFile(path) as archive:
        stored = {member.file_size for member in archive.infolist()}
    tensors = [value for value in tree_flatten(checkpoint)[0] if isinstance(value, Tensor)]
    for value in tensors:
        if value.layout is torch.strided and not value.is_meta and value.untyped_storage().nbytes() not in stored:
            raise ValueError(f'a tensor claims {value.untyped_storage().nbytes()} bytes')


def check_file(path: Path, name: str, thorough: bool = False) -> str:
    """The format of a checkpoint file that is whole: 'zip' (PyTorch), 'pickle' (PyTorch before 1.6), 'safetensors'.

    Args:
        path: the file.
        name: what to call it in messages.
        thorough: also compare the checksums in a PyTorch archive, which reads all of it. Default: False.

    Raises:
        UserError: it is empty, cut short, packed to more than its own size, or no checkpoint at all.
    """
    size = path.stat().st_size
    with open(path, 'rb') as file:
        start = file.read(64)
    if size == 0:
        raise UserError(f'checkpoint {name} is empty (0 bytes): fetch it again')
    if start.removeprefix(b'\xef\xbb\xbf').lstrip()[:1] == b'<':
        raise UserError(
            f'checkpoint {name} is a web page, as servers send for errors and log-ins: fetch the file again'
        )
    if start.startswith(b'version https://git-lfs'):
        raise UserError(f'checkpoint {name} is a Git LFS pointer, not the file: run git lfs pull where it came from')
    if start.startswith(b'PK\x03\x04'):
        _check_archive(path, name, size, thorough)
        return 'zip'
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
            damaged = archive.testzip() if thorough else None
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise UserError(f'checkpoint {name} is cut short or damaged ({error}): fetch it again') from error
    if damaged:
        raise UserError(f'checkpoint {name} is damaged (the checksum of {damaged!r} differs): fetch it again')
    # PyTorch 2.1 would run it even where only weights are asked for.
    if any(member.filename.endswith('/constants.pkl') for member in members):
        raise UserError(f'checkpoint {name} is refused: it is a TorchScript program; save its state_dict() instead')
    unpacked = sum(member.file_size for member in members)
    if unpacked > size:
        raise UserError(
            f'checkpoint {name} is refused: its {size:,} bytes would unpack to {unpacked:,}, and PyTorch never packs'
        )
