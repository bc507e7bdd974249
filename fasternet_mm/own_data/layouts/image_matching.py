"""Which image an annotation file means: by the longest end of the path that is unique.

Labeling tools write the paths that images had where they were labeled: with a Windows drive, in a server's folder of
uploads, as an address. So these paths are compared with those of the files from their ends.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from ...errors import UserError
from .folder_words import folder_kind, parts_below, split_of

FOREIGN = re.compile(r'[/\\]|\.\.|[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]+://')
"""The beginning of a path that leads out of the data's folder."""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """How an annotation file refers to an image.

    Attributes:
        name: the image's path as the annotation file has it; without its suffix, to look for it by its stem.
        source: the annotation file, in the data's folder.
        split: the split that the source says.
        exact: where in the data's folder the image is if the path is right.
        hint: the file name that the image probably has.
    """

    name: str
    source: str
    split: str | None = None
    exact: str | None = None
    hint: str = ''


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A file that a reference may mean.

    Attributes:
        file: its path.
        place: the beginning of its path, which the reference does not have.
        left_out: the first parts of the reference, which the path does not have.
        length: the number of parts that both have.
    """

    file: str
    place: str
    left_out: tuple[str, ...]
    length: int

    def strange_parts(self) -> frozenset[str]:
        """The parts that are left out and that the file's path does not have anywhere."""
        return frozenset(self.left_out) - {*composed(self.file).split('/')}

    def has_folders(self) -> bool:
        """Whether the file has folders of the reference."""
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

    def match(self, references: Sequence[ImageReference]) -> list[str | None]:
        """The file that each reference means; None where it means none.

        The file with the longest common end is taken. Of several, one in a folder of another split comes last; then
        count, in this order: the same name, the hint's name, the same split, the source's folder, a folder of images,
        the folder with most of the other files, and folders with the names of the source's. Folders of label maps and
        drawings count only where they have all of the files.

        Args:
            references: all of an annotation file, or of a folder of them.

        Raises:
            UserError: two are equal in all of this.
        """
        options = [self._options(reference) for reference in references]
        if any(is_likely(option.place) for group in options for option in group):
            options = [
                [option for option in group if is_likely(option.place) or _is_beside(reference, option.file)]
                for reference, group in zip(references, options)
            ]
        counts = Counter(option.place for group in options for option in group)
        best = [_best(reference, group, counts) for reference, group in zip(references, options)]
        matches = [*zip(references, _consistent(references, best))]
        # Of the files that name images of their own split, images of another split are not meant.
        fitting = {reference.source for reference, match in matches if match and not _contradicts(reference, match)}
        return [
            match.file if match and not (reference.source in fitting and _contradicts(reference, match)) else None
            for reference, match in matches
        ]

    def _options(self, reference: ImageReference) -> list[_Candidate]:
        if reference.exact in self.files:
            return [self._candidate(reference.exact, self._parts(reference.name), 0)]
        for name in dict.fromkeys((reference.name, unquote(reference.name))):
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
        parts = self._parts(reference.name)
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
        """Whether a part of the path that would be left out is a folder here, in which the file is not."""
        return any(part in self._folders and part not in composed(file).split('/')[:-1] for part in left_out)


def _best(reference: ImageReference, options: Sequence[_Candidate], counts: Counter[str]) -> _Candidate | None:
    if len(options) < 2:
        return options[0] if options else None
    home, own_name = posixpath.dirname(reference.source), posixpath.basename(reference.name.replace('\\', '/'))

    def rank(option: _Candidate) -> tuple:
        folder, name = posixpath.split(option.file)
        return (
            not _contradicts(reference, option),
            name == own_name,
            name == reference.hint,
            split_of(folder) == reference.split,
            folder == home,
            folder_kind(folder) == 'image',
            counts[option.place],
            len({*parts_below(folder)} & {*parts_below(home)}),
        )

    *_, second, best = sorted(options, key=rank)
    if rank(second) == rank(best):
        files = sorted(option.file for option in (second, best))
        raise UserError(
            f'{reference.source} is of the image {reference.hint or own_name}, which may be {files[0]} or {files[1]}: '
            'leave one, or put the images into a folder called images'
        )
    return best


def _consistent(references: Sequence[ImageReference], matches: Sequence[_Candidate | None]) -> list[_Candidate | None]:
    """Matches without those that leave out more of their references than others have to: folders that should be here.

    Where cam0/1.jpg leads to a file in cam0, cam1/1.jpg does not lead to one in cam0, though there is no cam1.
    """
    strange = [
        (FOREIGN.match(reference.name) is not None, match.strange_parts()) if match else None
        for reference, match in zip(references, matches)
    ]
    usual = {parts for parts, match in zip(strange, matches) if match and match.has_folders()}
    consistent = []
    for parts, match in zip(strange, matches):
        is_stranger = match and any(parts[0] == other[0] and parts[1] > other[1] for other in usual)
        consistent.append(None if is_stranger else match)
    return consistent


def is_likely(folder: str) -> bool:
    """Whether a folder may hold images, by its name."""
    return folder_kind(folder) in (None, 'image')


def _is_beside(reference: ImageReference, file: str) -> bool:
    """Whether a file has the name that is in the one beside it: labeling tools do that in folders of any name."""
    return file == posixpath.join(posixpath.dirname(reference.source), reference.hint)


def _contradicts(reference: ImageReference, match: _Candidate) -> bool:
    """Whether a file is in a folder of another split than the reference."""
    return None not in (split_of(match.place), reference.split) and split_of(match.place) != reference.split


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
