"""PyTorch's two file formats: the archive of 1.6 and newer, and the sequence of pickles before it."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from .unpickling import unpickle

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""The first pickle of the older format."""

ALIGNMENT = 64
"""PyTorch begins each storage at a multiple of so many bytes, which lets it be mapped."""


def read_archive(path: Path, mmap: bool) -> Any:
    """The content of a zip archive that PyTorch wrote.

    Args:
        path: the file.
        mmap: let the tensors stand in the file until they are used; they are never written back.

    Raises:
        UnsafePickle: see `unpickle`.
        Exception: of any type: it is malformed.
    """
    content = np.memmap(path, mode='c') if mmap else None
    storages: dict[str, torch.UntypedStorage] = {}
    with open(path, 'rb') as file, zipfile.ZipFile(file) as archive:
        # All names begin with the same folder.
        members = {member.filename.partition('/')[2]: member for member in archive.infolist()}
        if 'byteorder' in members and archive.read(members['byteorder']).decode() != sys.byteorder:
            raise ValueError('the numbers are in the other byte order')

        def load_bytes(key: str, count: int, itemsize: int) -> torch.UntypedStorage:
            member, size = members[f'data/{key}'], count * itemsize
            if size != member.file_size or member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f'a storage claims {size} bytes of {member.file_size}')
            if key not in storages:
                start = _start(file, member)
                if content is not None and start % ALIGNMENT == 0 and start + size <= len(content):
                    storages[key] = _storage(content, start, size)
                else:
                    storages[key] = _storage(bytearray(archive.read(member)), 0, size)
            return storages[key]

        return unpickle(io.BytesIO(archive.read(members['data.pkl'])), load_bytes)


def read_legacy(path: Path) -> Any:
    """The content of a sequence of pickles followed by the storages' bytes: the format before PyTorch 1.6.

    Args:
        path: the file.

    Raises:
        UnsafePickle: see `unpickle`.
        Exception: of any type: it is malformed.
    """
    buffers: dict[str, tuple[int, bytearray]] = {}
    storages: dict[str, torch.UntypedStorage] = {}
    room = path.stat().st_size

    def load_bytes(key: str, count: int, itemsize: int) -> torch.UntypedStorage:
        nonlocal room
        size = count * itemsize
        if key not in buffers:
            if size > room:
                raise ValueError(f'a storage claims {size} bytes')
            room -= size
            buffers[key] = count, bytearray(size)
            storages[key] = _storage(buffers[key][1], 0, size)
        if (count, size) != (buffers[key][0], len(buffers[key][1])):
            raise ValueError('a storage has two sizes')
        return storages[key]

    with open(path, 'rb') as file:
        magic, _version, system = unpickle(file), unpickle(file), unpickle(file)
        if magic != MAGIC_NUMBER or system['little_endian'] is not (sys.byteorder == 'little'):
            raise ValueError("the file is not PyTorch's, or its numbers are in the other byte order")
        content = unpickle(file, load_bytes)
        keys = unpickle(file)
        if not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(buffers):
            raise ValueError('the storages are not those of the tensors')
        for key in keys:
            count, buffer = buffers[key]
            if struct.unpack('<q', file.read(8)) != (count,) or file.readinto(buffer) != len(buffer):
                raise ValueError(f'a storage claims {count} numbers')
    return content


def _start(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Where a member's content begins: behind a header that says the length of its name and of what follows that."""
    file.seek(member.header_offset)
    return member.header_offset + 30 + sum(struct.unpack('<26x2H', file.read(30)))


def _storage(buffer: Any, start: int, size: int) -> torch.UntypedStorage:
    if size == 0:
        return torch.UntypedStorage(0)
    return torch.frombuffer(buffer, dtype=torch.uint8, count=size, offset=start).untyped_storage()
