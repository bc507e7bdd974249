"""The files of a data set. Whatever annotations say, only what is listed here is ever opened."""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from ..data.picture_files import SUFFIXES
from ..errors import UserError

SPLIT_WORDS = {
    **dict.fromkeys(('train', 'training', 'trainannot'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation', 'valannot', 'dev'), 'val'),
    **dict.fromkeys(('test', 'testing', 'testannot'), 'test'),
}
T = TypeVar('T')


class DataFolder:
    """The files under a folder, hidden ones left out. Paths are relative to it, with '/' between their parts.

    Attributes:
        root: the folder.
        files: all files, sorted.

    Raises:
        UserError: the folder does not exist, or has no files.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        if not self.root.is_dir():
            is_file = ' is a file' if self.root.is_file() else ' does not exist'
            raise UserError(f'{root}{is_file}: name the folder that has the pictures and their annotations')
        self.files = sorted(_walk(self.root))
        if not self.files:
            raise UserError(f'{root} has no files: name the folder that has the pictures and their annotations')

    @cached_property
    def all(self) -> frozenset[str]:
        return frozenset(self.files)

    @cached_property
    def pictures(self) -> list[str]:
        return [file for file in self.files if posixpath.splitext(file)[1].lower() in SUFFIXES]

    @cached_property
    def folders(self) -> frozenset[str]:
        """Folders that have files in them or below, '.' among them."""
        found = {'.'}
        for file in self.files:
            folder = posixpath.dirname(file)
            while folder and folder not in found:
                found.add(folder)
                folder = posixpath.dirname(folder)
        return frozenset(found)

    @cached_property
    def _pictures_by_stem(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for picture in self.pictures:
            found[stem(picture)].append(picture)
        return found

    def ending(self, *suffixes: str) -> list[str]:
        """Files with one of these suffixes, given in lower case."""
        return [file for file in self.files if file.lower().endswith(suffixes)]

    def shown(self, file: str) -> str:
        """A file as the user would find it."""
        return str(self.root / file)

    def inside(self, folder: str, name: str) -> str | None:
        """What ``name`` means in ``folder``; None where that is an absolute path, or not in the data's folder."""
        name = name.replace('\\', '/')
        if name.startswith('/') or re.match('[A-Za-z]:', name):
            return None
        path = posixpath.normpath(posixpath.join(folder, name))
        return None if path.split('/')[0] == '..' else path

    def picture_beside(self, file: str) -> str | None:
        """The picture that has an annotation file's name: beside it, or else the only one there is in its split."""
        same = self._pictures_by_stem.get(stem(file), [])
        folder = posixpath.dirname(file)
        for among in (
            [picture for picture in same if posixpath.dirname(picture) == folder],
            [picture for picture in same if split_of(posixpath.dirname(picture)) == split_of(folder)],
            same,
        ):
            if len(among) == 1:
                return among[0]
        return None

    def base_of(self, names: Sequence[str], near: str) -> str | None:
        """The folder in which most of the pictures are that the annotation file ``near`` names, None where none is.

        Where several folders have as many, one of the same split comes first, then the nearest to ``near``.
        """
        sample = names[:: max(1, len(names) // 200)]
        home = posixpath.dirname(near) or '.'

        def rank(folder: str) -> tuple:
            hits = sum(self.inside(folder, name) in self.all for name in sample)
            fits = split_of(folder) == split_of(near)
            return hits, fits, folder == home, len(posixpath.commonpath(['./' + folder, './' + home])), folder

        best = max(self.folders, key=rank)
        return best if rank(best)[0] else None


def stem(file: str) -> str:
    return posixpath.splitext(posixpath.basename(file))[0]


def split_of(path: str) -> str | None:
    """'train', 'val' or 'test' where a part of a path, the last that does, says one of them in any usual way."""
    for part in reversed(path.split('/')):
        found = {SPLIT_WORDS[word] for word in re.findall('[a-z]+', part.lower()) if word in SPLIT_WORDS}
        if len(found) == 1:
            return found.pop()
    return None


def one_per_split(folder: DataFolder, files: Iterable[str], what: str) -> dict[str, str]:
    """Annotation files by split, as their paths say; a single one is 'train'.

    Raises:
        UserError: two say the same split, or one says none.
    """
    files = list(files)
    if len(files) == 1:
        return {'train': files[0]}
    found: dict[str, str] = {}
    for file in files:
        split = split_of(file)
        if split is None or split in found:
            several = ', '.join(files[:5]) + (', …' if len(files) > 5 else '')
            raise UserError(
                f'{folder.root} has {len(files)} {what} files ({several}): leave one, or one each with train, val and '
                'test in its name or the name of its folder'
            )
        found[split] = file
    return named_splits(folder, found)


def named_splits(folder: DataFolder, found: dict[str, T]) -> dict[str, T]:
    """Splits in their order; a single one is 'train', whatever its name.

    Raises:
        UserError: there are several, but no 'train'.
    """
    if len(found) == 1:
        return {'train': next(iter(found.values()))}
    if 'train' not in found:
        raise UserError(f'{folder.root} has {" and ".join(found)} data, but none to train: name a part of it train')
    return {split: found[split] for split in ('train', 'val', 'test') if split in found}


def _walk(root: Path) -> Iterable[str]:
    """Files below a folder; links to folders are followed, once each."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith(('.', '__MACOSX', '@')))
        relative = '' if folder == str(root) else os.path.relpath(folder, root).replace(os.sep, '/') + '/'
        yield from (relative + name for name in files if not name.startswith('.'))
