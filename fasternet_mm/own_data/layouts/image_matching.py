"""Which image an annotation file means: by the longest end of the path that is unique.

Labeling tools write the paths that images had where they were labeled: with a Windows drive, in a server's folder of
uploads, as an address. What is there is compared from its end.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from urllib.parse import unquote

from ...errors import UserError
from .folder_words import folder_kind, parts_below, split_of

FOREIGN = re.compile(r'[/\\]|\.\.|[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]+://')
"""How paths begin that lead out of the data's folder."""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A file that is looked for.

    Attributes:
        name: its path as an annotation file has it; to look by stem, without its suffix.
        source: the file in the data's folder that names it.
        split: that the source says.
        exact: where in the data's folder it is if the path is right.
        hint: the file name that it rather has.
    """

    name: str
    source: str
    split: str | None = None
    exact: str | None = None
    hint: str = ''


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A file that may be meant.

    Attributes:
        file: it.
        place: the folder that the wanted name leaves open.
        left_out: parts of the name that are passed over.
        length: how many are not.
    """

    file: str
    place: str
    left_out: tuple[str, ...]
    length: int

    def strange_parts(self) -> frozenset[str]:
        """The parts that are passed over and that the file's path does not have anywhere."""
        return frozenset(self.left_out) - {*composed(self.file).split('/')}

    def has_folders(self) -> bool:
        """Whether the file has folders of the wanted name."""
        return self.length > 1 or len(self.strange_parts()) < len({*self.left_out})


class FileIndex:
    """Files by every end of their paths.

    Args:
        files: paths in the data's folder.
        stem: of a file's path, where files are looked for by the stem of another: cam0/0 for labels/cam0/0.xml and
            images/cam0/0.jpg. Words for kinds of folders are then no part of the path. Default: by the whole path.
    """

    def __init__(self, files: Iterable[str], stem: Callable[[str], str] | None = None):
        self.files = frozenset(files)
        self._stem = stem
        self._by_end: dict[tuple[str, ...], list[str]] = defaultdict(list)
        self._by_any_case: dict[str, list[str]] = defaultdict(list)
        self._folders: set[str] = set()
        for file in sorted(self.files):
            folder, name = posixpath.split(file)
            parts = self._parts(posixpath.join(folder, stem(file)) if stem else file)
            for start in range(len(parts)):
                self._by_end[parts[start:]].append(file)
            self._by_any_case[composed(name).lower()].append(file)
            if folder_kind(folder) in (None, 'image'):
                self._folders.update(composed(folder).split('/'))

    def match(self, wanted: Sequence[ImageReference]) -> list[str | None]:
        """The file that each means, None where it means none.

        Of several with an equally long end that in a folder of no other split comes first, then that with the hint's
        name, of the same split, beside the source, in a folder of images, in the folder with most of those that are
        wanted, and in folders of the names of the source's. Folders of label maps and drawings come last: where some of
        what is wanted is elsewhere, they are left out.

        Args:
            wanted: all that an annotation file, or a folder of them, names.

        Raises:
            UserError: two are equal in all of this.
        """
        options = [self._options(each) for each in wanted]
        if any(is_likely(option.place) for group in options for option in group):
            options = [
                [option for option in group if is_likely(option.place) or _is_beside(each, option.file)]
                for each, group in zip(wanted, options)
            ]
        counts = Counter(option.place for group in options for option in group)
        matches = _consistent(wanted, [_best(each, group, counts) for each, group in zip(wanted, options)])
        fitting = {each.source for each, match in zip(wanted, matches) if match and not _contradicts(each, match.place)}
        return [
            match.file if match and (each.source not in fitting or not _contradicts(each, match.place)) else None
            for each, match in zip(wanted, matches)
        ]

    def _options(self, wanted: ImageReference) -> list[_Candidate]:
        if wanted.exact in self.files:
            return [self._candidate(wanted.exact, self._parts(wanted.name), 0)]
        for name in dict.fromkeys((wanted.name, unquote(wanted.name))):
            unlikely: list[_Candidate] = []
            parts = self._parts(name)
            for start in range(len(parts)):
                options = [
                    self._candidate(file, parts, start)
                    for file in self._by_end.get(parts[start:], ())
                    if not self._is_other_folder(parts[:start], file)
                ]
                likely = [option for option in options if is_likely(option.place)]
                if likely:
                    return likely
                unlikely = unlikely or options
            if unlikely:
                return unlikely
        parts = self._parts(wanted.name)
        alike = [] if self._stem else self._by_any_case.get(parts[-1].lower(), [])
        if len(alike) != 1 or self._is_other_folder(parts[:-1], alike[0]):
            return []
        return [self._candidate(alike[0], parts, len(parts) - 1)]

    def _parts(self, path: str) -> tuple[str, ...]:
        folders, name = posixpath.split(plain_path(path))
        return (*(parts_below(folders) if self._stem else filter(None, folders.split('/'))), name)

    def _candidate(self, file: str, parts: tuple[str, ...], start: int) -> _Candidate:
        length = len(parts) - start
        place = posixpath.dirname(file) if self._stem else '/'.join(file.split('/')[:-length])
        return _Candidate(file, place, parts[:start], length)

    def _is_other_folder(self, left_out: Sequence[str], file: str) -> bool:
        """Whether a part of the path that would be passed over is a folder here, in which the file is not."""
        return any(part in self._folders and part not in composed(file).split('/')[:-1] for part in left_out)


def _best(wanted: ImageReference, options: Sequence[_Candidate], counts: Counter[str]) -> _Candidate | None:
    if len(options) < 2:
        return options[0] if options else None
    home, own_name = posixpath.dirname(wanted.source), posixpath.basename(wanted.name.replace('\\', '/'))

    def rank(option: _Candidate) -> tuple:
        folder, name = posixpath.split(option.file)
        return (
            not _contradicts(wanted, option.place),
            name == own_name,
            name == wanted.hint,
            split_of(folder) == wanted.split,
            folder == home,
            folder_kind(folder) == 'image',
            counts[option.place],
            len({*parts_below(folder)} & {*parts_below(home)}),
        )

    *_, second, best = sorted(options, key=rank)
    if rank(second) == rank(best):
        files = sorted(option.file for option in (second, best))
        raise UserError(
            f'{wanted.source} is of the image {wanted.hint or own_name}, which may be {files[0]} or {files[1]}: leave '
            'one, or put the images into a folder called images'
        )
    return best


def _consistent(wanted: Sequence[ImageReference], matches: Sequence[_Candidate | None]) -> list[_Candidate | None]:
    """Matches without those that pass over more of their names than others have to: folders that should be here.

    Where cam0/1.jpg leads to a file in cam0, cam1/1.jpg does not lead to one in cam0, though there is no cam1.
    """
    strange = [
        (FOREIGN.match(each.name) is not None, match.strange_parts()) if match else None
        for each, match in zip(wanted, matches)
    ]
    usual = {parts for parts, match in zip(strange, matches) if match and match.has_folders()}
    return [
        match if match and not any(parts[0] == other[0] and parts[1] > other[1] for other in usual) else None
        for parts, match in zip(strange, matches)
    ]


def is_likely(folder: str) -> bool:
    """Whether a folder may hold images, by its name."""
    return folder_kind(folder) in (None, 'image')


def _is_beside(wanted: ImageReference, file: str) -> bool:
    """Whether a file has the name that is in the one beside it: labeling tools do that in folders of any name."""
    return file == posixpath.join(posixpath.dirname(wanted.source), wanted.hint)


def _contradicts(wanted: ImageReference, folder: str) -> bool:
    return None not in (split_of(folder), wanted.split) and split_of(folder) != wanted.split


def composed(path: str) -> str:
    """Letters with accents as one character each, whichever way a file system or tool writes them."""
    return unicodedata.normalize('NFC', path)


def plain_path(name: str) -> str:
    """A path without drive, address, leading '/' and '..', in Unicode's composed form."""
    name = name.replace('\\', '/')
    address = re.match(r'[A-Za-z][A-Za-z0-9+.-]+://[^/]*/', name)
    if '/local-files/?d=' in name:  # Label Studio's
        name = unquote(name.partition('?d=')[2])
    elif address:
        name = unquote(re.split('[?#]', name[address.end() :])[0])
    name = re.sub('^[A-Za-z]:', '', name)
    parts = posixpath.normpath(name.lstrip('/') or '.').split('/')
    return composed('/'.join(part for part in parts if part != '..'))


def nearest_name(name: str, files: Sequence[str]) -> str | None:
    """The file whose name is most like that of a path; the first one where none is like it."""
    by_name = {posixpath.basename(file): file for file in reversed(files)}
    close = get_close_matches(posixpath.basename(plain_path(name)), by_name, 1)
    return by_name[close[0]] if close else next(iter(files), None)
