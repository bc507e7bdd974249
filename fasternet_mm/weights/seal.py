"""A checksum in a checkpoint file, over what PyTorch's own leave out.

PyTorch's archive has a checksum for each record, and none for its directory and what stands between records, which the
seal covers. It stands behind the archive, where zip files have their comment, which PyTorch and others pass over.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

MARK = b'PK\x05\x06'
"""Where the last part of a zip file begins: 22 bytes, of which the last two say how long the comment is."""

PREFIX = b'sha256='

LENGTH = len(PREFIX) + 64
"""Bytes of a seal."""


def seal(path: Path) -> None:
    """Compare what stands in an archive with the checksums that PyTorch made of what was in memory, and seal it.

    Args:
        path: a file that ``torch.save`` has just written.

    Raises:
        OSError: it cannot be read or written, or is not what was written.
    """
    with open(path, 'rb+') as file:
        try:
            archive = zipfile.ZipFile(file)
            damaged = archive.testzip()
        except zipfile.BadZipFile as error:
            damaged = str(error)
        if damaged:
            raise OSError(errno.EIO, f'what is read back is not what was written: {damaged}', str(path))
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack('<H', LENGTH))
        size = file.tell()
        content = _seal_of(file, archive, size)
        file.seek(size)
        file.write(content)


def damage(path: Path) -> str | None:
    """What is wrong with an archive whose directory can be read; None where its bytes are as they were written.

    Of an archive without a seal, such as others', the records alone are compared with their checksums.

    Raises:
        zipfile.BadZipFile: a record is not where the directory says.
    """
    with open(path, 'rb') as file, zipfile.ZipFile(file) as archive:
        record = archive.testzip()
        if record:
            return f'the checksum of {record!r} differs'
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 22 - LENGTH))
        end = file.read().rpartition(MARK)[2]
        # Of both signs of a seal, one wrong bit leaves one.
        is_sealed = end[18:].startswith(PREFIX) or end[16:18] == struct.pack('<H', LENGTH)
        if is_sealed and end[18:] != _seal_of(file, archive, size - LENGTH):
            return 'its checksum differs'
    return None


def _seal_of(file: BinaryIO, archive: zipfile.ZipFile, size: int) -> bytes:
    """The seal of the first ``size`` bytes of a file but for the records of the archive in them."""
    digest, place = hashlib.sha256(), 0
    for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
        file.seek(member.header_offset + 26)
        lengths = struct.unpack('<2H', file.read(4))  # of the name, and of what follows it
        start = member.header_offset + 30 + sum(lengths)
        file.seek(place)
        digest.update(file.read(start - place))
        place = start + member.compress_size
    file.seek(place)
    digest.update(file.read(size - place))
    return PREFIX + digest.hexdigest().encode()
