"""Official archives that the user has downloaded become the folders that the configs read, checked."""

from __future__ import annotations

import json
import os
import shutil
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from filelock import FileLock
from tqdm import tqdm

from ..errors import UserError, few

MAX_RATIO = 200
"""An archive that would unpack to more than this many times its size is refused; JSON packs to about a third."""

DAMAGE = (BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError)
"""What `zipfile` raises on files that are not as they should be."""


@dataclass(frozen=True)
class Split:
    """Images (.jpg) and their labels: a folder of label maps of the same names (.png), or a COCO annotation file."""

    images: str
    labels: str
    count: int


@dataclass(frozen=True)
class PublishedDataset:
    """A data set: which archive each of its top folders comes in, as an address, and what must be there at the end."""

    name: str
    archives: dict[str, str]
    splits: tuple[Split, ...]


ADE20K = PublishedDataset(
    'ADE20K',
    {'ADEChallengeData2016': 'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip'},
    tuple(
        Split(f'ADEChallengeData2016/images/{split}', f'ADEChallengeData2016/annotations/{split}', count)
        for split, count in (('training', 20210), ('validation', 2000))
    ),
)
COCO = PublishedDataset(
    'COCO 2017',
    {
        'train2017': 'http://images.cocodataset.org/zips/train2017.zip',
        'val2017': 'http://images.cocodataset.org/zips/val2017.zip',
        'annotations': 'http://images.cocodataset.org/annotations/annotations_trainval2017.zip',
    },
    tuple(
        Split(split, f'annotations/instances_{split}.json', count)
        for split, count in (('train2017', 118287), ('val2017', 5000))
    ),
)


def prepare(dataset: PublishedDataset, sources: Sequence[str | os.PathLike], out: str | os.PathLike) -> int:
    """Unpack what is not there yet and check that the data set is complete.

    All archives are looked through before anything is written. A file appears whole or not at all; one that is there
    with the size that the archive states is left alone. What lies outside the top folders is not unpacked.

    Args:
        dataset: the data set.
        sources: archives under any name, and folders with archives under their official names; nothing, where the data
            are only to be checked.
        out: the folder that gets the top folders.

    Returns:
        How many files were unpacked.

    Raises:
        UserError: an archive is unreadable, damaged or unsafe, the disk is too full, or the data are not complete.
    """
    out = Path(out)
    with ExitStack() as stack:
        members = {}
        for path in _find(dataset, sources):
            archive = stack.enter_context(_open(path))
            members.update({out / info.filename: (archive, info) for info in _members(archive, dataset)})
        unpacked = _unpack(members, out) if members else 0
    _verify(dataset, out)
    return unpacked


def _find(dataset: PublishedDataset, sources: Sequence[str | os.PathLike]) -> Iterator[Path]:
    for path in map(Path, sources):
        if path.is_dir():
            yield from filter(Path.is_file, (path / _file_name(address) for address in dataset.archives.values()))
        else:
            yield path


def _file_name(address: str) -> str:
    return address.rpartition('/')[2]


def _open(path: Path) -> ZipFile:
    try:
        return ZipFile(path)
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}): give a zip archive, or a folder of them') from error
    except DAMAGE as error:
        with path.open('rb') as file:
            cut = file.read(4) == b'PK\3\4'
        what = 'is cut short or damaged' if cut else 'is not a zip archive'
        raise UserError(f'{path} {what}: download it again') from error


def _members(archive: ZipFile, dataset: PublishedDataset) -> list[ZipInfo]:
    """The files under the data set's top folders, of an archive in which all members are safe."""
    for info in archive.infolist():
        if fault := _fault(info):
            raise UserError(
                f'{archive.filename} is refused, because its member {info.filename!r} {fault}: get the official archive'
            )
    size, packed = sum(info.file_size for info in archive.infolist()), os.stat(archive.filename).st_size
    if size > MAX_RATIO * packed:
        raise UserError(
            f'{archive.filename} is refused, because its {packed:,} bytes would unpack to {size:,}, more than '
            f'{MAX_RATIO} times as many: get the official archive'
        )
    tops = tuple(f'{top}/' for top in dataset.archives)
    members = [info for info in archive.infolist() if info.filename.startswith(tops) and not info.is_dir()]
    if not members:
        raise UserError(
            f'{archive.filename} has no files under {" or ".join(tops)}: give archives of {dataset.name}, '
            f'{_addresses(dataset)}'
        )
    return members


def _fault(info: ZipInfo) -> str | None:
    # Read as Windows does, which knows every form: drives, backslashes, and all that POSIX has.
    path = PureWindowsPath(info.filename)
    if path.anchor or '..' in path.parts or '\\' in info.filename:
        return 'has a name that is not a plain relative path'
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return 'is a link or a device'
    if info.flag_bits & 1:
        return 'is encrypted'
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        return 'is compressed by an unusual method'
    return None


def _unpack(members: dict[Path, tuple[ZipFile, ZipInfo]], out: Path) -> int:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / '.lock'):
            todo = {
                target: (archive, info)
                for target, (archive, info) in members.items()
                if not (target.is_file() and target.stat().st_size == info.file_size)
            }
            size, free = sum(info.file_size for _, info in todo.values()), shutil.disk_usage(out).free
            if size > free:
                raise UserError(
                    f'{out} needs {tqdm.format_sizeof(size, "B")} for what is not unpacked yet, but its disk has '
                    f'{tqdm.format_sizeof(free, "B")} free: make room, or name another folder with --out'
                )
            with tqdm(total=size, unit='B', unit_scale=True, desc='unpacking', disable=None, leave=False) as progress:
                for target, (archive, info) in todo.items():
                    _write(archive, info, target)
                    progress.update(info.file_size)
    except OSError as error:
        raise UserError(
            f'{out} cannot be filled ({error}): make room, name another folder with --out, or get the archive anew'
        ) from error
    return len(todo)


def _write(archive: ZipFile, info: ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f'{target.name}.part')
    try:
        with archive.open(info) as source, part.open('wb') as file:
            shutil.copyfileobj(source, file)
        os.replace(part, target)
    except DAMAGE as error:
        raise UserError(
            f'{archive.filename} is damaged at {info.filename!r} ({error}): download it again; what is unpacked stays'
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _verify(dataset: PublishedDataset, out: Path) -> None:
    gaps = [gap for split in dataset.splits for gap in _gaps(split, out)]
    if gaps:
        tops = {place.split('/')[0] for place, _ in gaps}
        raise UserError(
            f'{out} does not have all of {dataset.name} ({"; ".join(text for _, text in gaps)}): download and give '
            f'{_addresses(dataset, tops)}'
        )


def _gaps(split: Split, out: Path) -> Iterator[tuple[str, str]]:
    """Where images or labels are missing, and which."""
    images, labeled = {path.name for path in (out / split.images).glob('*.jpg')}, _labeled(out / split.labels)
    for place, verb, names, others in (
        (split.images, 'has', images, labeled),
        (split.labels, 'labels', labeled, images),
    ):
        if len(names) > split.count:
            among = f', among them {few(sorted(names - others), 3)}' if names - others else ''
            raise UserError(
                f'{out / place} {verb} {len(names)} images instead of {split.count}{among}: move away what is not of '
                'the data set'
            )
        if len(names) < split.count or others - names:
            without = f', without {few(sorted(others - names), 3)}' if others - names else ''
            yield place, f'{place} {verb} {len(names)} of {split.count} images{without}'


def _labeled(labels: Path) -> set[str]:
    """File names of the images that have labels."""
    if labels.suffix != '.json':
        return {f'{path.stem}.jpg' for path in labels.glob('*.png')}
    try:
        return {str(image['file_name']) for image in json.loads(labels.read_bytes())['images']}
    except FileNotFoundError:
        return set()
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise UserError(f'{labels} is not a COCO annotation file: delete it, and give the archive it is in') from error


def _addresses(dataset: PublishedDataset, tops: set[str] | None = None) -> str:
    addresses = [address for top, address in dataset.archives.items() if tops is None or top in tops]
    return ', '.join(f'{_file_name(address)} ({address})' for address in addresses)
