"""The files of a data set. Whatever annotations say, only what is listed here is ever opened."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from ...datasets.image_files import IMAGE_SUFFIXES
from ...errors import UserError, few
from ...files import is_output
from .content import Kind, Problem, Report
from .folder_words import split_of
from .matching import FileIndex, Wanted, is_likely, nearest_name, plain_path

T = TypeVar('T')


class DataFolder:
    """The files under a folder, without hidden ones and folders that our tools wrote.

    Paths are relative to it, with '/' between their parts.

    Attributes:
        root: the folder.
        files: all files, sorted.
        outputs: folders that our tools wrote.

    Raises:
        UserError: the folder does not exist, or has no files.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        if not self.root.is_dir():
            is_file = ' is a file' if self.root.is_file() else ' does not exist'
            raise UserError(f'{root}{is_file}: name the folder that has the images and their annotations')
        self.outputs: list[str] = []
        self.files = sorted(_walk(self.root, self.outputs))
        if not self.files:
            raise UserError(
                f'{root} has no files{self._passed_over()}: name the folder that has the images and their annotations'
            )

    @cached_property
    def all(self) -> frozenset[str]:
        return frozenset(self.files)

    @cached_property
    def images(self) -> list[str]:
        return [file for file in self.files if posixpath.splitext(file)[1].lower() in IMAGE_SUFFIXES]

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
    def _by_path(self) -> FileIndex:
        return FileIndex(self.images)

    @cached_property
    def _by_stem(self) -> FileIndex:
        return FileIndex(self.images, stem)

    def ending(self, *suffixes: str) -> list[str]:
        """Files with one of these suffixes, given in lower case."""
        return [file for file in self.files if file.lower().endswith(suffixes)]

    def shown(self, file: str) -> str:
        """A file as the user would find it."""
        return str(self.root / file)

    def reporter(self, file: str, problems: list[Problem], prefix: str = '') -> Report:
        """A function that adds to the problems what is wrong with a file, or with what ``prefix`` names in it."""

        def report(what: str, kind: Kind = Kind.MALFORMED) -> None:
            problems.append(Problem(self.shown(file), prefix + what, kind))

        return report

    def inside(self, folder: str, name: str) -> str | None:
        """What ``name`` means in ``folder``; None where that is an absolute path, or not in the data's folder."""
        name = name.replace('\\', '/')
        if name.startswith('/') or re.match('[A-Za-z]:', name):
            return None
        path = posixpath.normpath(posixpath.join(folder, name))
        return None if path.split('/')[0] == '..' else path

    def read_lines(self, file: str, problems: list[Problem]) -> list[str]:
        """The lines of a text file in UTF-8, with a byte order mark or without; none where it cannot be read."""
        try:
            return [line.strip() for line in (self.root / file).read_text('utf-8-sig').splitlines()]
        except (OSError, ValueError) as error:
            self.reporter(file, problems)(f'is not a text file that can be read ({error})')
            return []

    def find_images(
        self, names: Sequence[str], source: str, split: str | None, problems: list[Problem]
    ) -> list[str | None]:
        """The image that each name in an annotation file means: see `FileIndex.match`.

        Args:
            names: as they are in the annotation file: relative to it, to the data's folder or to any folder in it, or
                paths and addresses of another machine.
            source: the annotation file.
            split: what it is for, if it says so.
            problems: to add to.

        Returns:
            For each name the image; a file that is not there where it is missing; None where the name leads out of the
            folder and nothing there has its end.

        Raises:
            UserError: no image is there, or two fit a name equally well.
        """
        wanted = [Wanted(name, source, split, self._exact(name, source)) for name in names]
        images = self._by_path.match(wanted)
        if not any(images):
            raise self.no_image_of(source, names)
        present = [image for image in images if image]
        problems += self._unlikely_places(
            [image for image in present if posixpath.dirname(image) != posixpath.dirname(source)]
        )
        problems += self._other_splits(source, split, present)
        place, left_out = _usual_place(names, images)
        return [
            image or self._missing(name, source, place, left_out) for name, image in zip(names, images, strict=True)
        ]

    def images_of(
        self, files: Sequence[str], names: Sequence[str], problems: list[Problem], stem_first: bool
    ) -> list[str | None]:
        """The image of each annotation file that is of one image: it has its path and stem, or the name that is in it.

        Args:
            files: the annotation files.
            names: of the images, as the annotation files have them.
            problems: to add to.
            stem_first: whether the annotation file's own name counts more than the one in it.

        Returns:
            As from `find_images`.

        Raises:
            UserError: two images fit equally well.
        """
        hints = [posixpath.basename(plain_path(name)) for name in names]
        splits = [split_of(posixpath.dirname(file)) for file in files]
        own = [
            Wanted(posixpath.splitext(file)[0], file, split, hint=hint)
            for file, hint, split in zip(files, hints, splits)
        ]
        named = [
            Wanted(_named_from(file, name), file, split, self._exact(name, file), hint)
            for file, name, hint, split in zip(files, names, hints, splits)
        ]
        first, second = (self._by_stem.match(wanted) for wanted in ((own, named) if stem_first else (named, own)))
        images = [image or other for image, other in zip(first, second)]
        problems += self._unlikely_places(
            [
                image
                for file, image in zip(files, images)
                if image and posixpath.dirname(image) != posixpath.dirname(file)
            ]
        )
        return [
            image or self._missing(name, file, posixpath.dirname(file), 0)
            for file, name, image in zip(files, names, images)
        ]

    def no_image_of(self, source: str, names: Sequence[str]) -> UserError:
        """What to say where none of the images is there that an annotation file, or several, name."""
        if not names:
            return UserError(f'{self.shown(source)} names no image: export it again, with the images')
        first = few([name[:100] for name in names], 3, counted=True)
        nearest = nearest_name(names[0], self.images)
        hint = f' ({self.shown(nearest)} is nearest to the first)' if nearest else ', which has no image'
        return UserError(
            f'{self.shown(source)} names {len(names)} images ({first}), none of which is in {self.root}{hint}'
            f'{self._passed_over()}: put the images there, in any folder, under these names'
        )

    def _passed_over(self) -> str:
        return f' (besides {", ".join(self.outputs[:3])}, which our tools wrote)' if self.outputs else ''

    def _exact(self, name: str, source: str) -> str | None:
        """Where a path with folders leads, from its file or from the data's folder. A bare name may be anywhere."""
        paths = (self.inside(home, name) for home in (posixpath.dirname(source), ''))
        return next((path for path in paths if path in self.all and re.search(r'[/\\]', name)), None)

    def _missing(self, name: str, source: str, place: str, left_out: int) -> str | None:
        """Where an image would be that is not there; None where the name leads out of the folder."""
        if not left_out and self.inside(posixpath.dirname(source), name) is None and self.inside('', name) is None:
            return None
        parts = plain_path(name).split('/')
        paths = (posixpath.join(place, *parts[min(left_out, len(parts) - 1) :]), posixpath.join(place, *parts))
        return next((path for path in paths if path not in self.all), None)

    def _unlikely_places(self, images: Sequence[str]) -> Iterable[Problem]:
        for folder, files in _by_folder(images).items():
            if not is_likely(folder):
                what = (
                    f'{len(files)} images are taken from here (the first is {posixpath.basename(files[0])}), though '
                    'the name is one for label maps or drawings: no other folder has them'
                )
                yield Problem(self.shown(folder), what, Kind.UNLIKELY_FOLDER)

    def _other_splits(self, source: str, split: str | None, images: Sequence[str]) -> Iterable[Problem]:
        for folder, files in _by_folder(images).items():
            if None not in (split, split_of(folder)) and split != split_of(folder):
                what = (
                    f'{len(files)} of its images are in {self.shown(folder)} (the first is '
                    f'{posixpath.basename(files[0])}): the folder says {split_of(folder)}, but the file {split}, '
                    'which counts'
                )
                yield Problem(self.shown(source), what, Kind.SPLITS_DIFFER)


def _named_from(file: str, name: str) -> str:
    """The path without suffix that a name means in an annotation file's folder."""
    return posixpath.splitext(posixpath.join(posixpath.dirname(file), plain_path(name)))[0]


def _by_folder(images: Sequence[str]) -> dict[str, list[str]]:
    folders = defaultdict(list)
    for image in images:
        folders[posixpath.dirname(image)].append(image)
    return folders


def _usual_place(names: Sequence[str], images: Sequence[str | None]) -> tuple[str, int]:
    """Where most names lead from, and how many of their first parts have to be left out."""
    usual: Counter[tuple[str, int]] = Counter()
    for name, image in zip(names, images):
        if image:
            parts, folders = plain_path(name).split('/'), image.split('/')
            length = len(posixpath.commonprefix([parts[::-1], [plain_path(part) for part in folders[::-1]]])) or 1
            usual['/'.join(folders[:-length]), len(parts) - length] += 1
    return usual.most_common(1)[0][0]


def stem(file: str) -> str:
    return posixpath.splitext(posixpath.basename(file))[0]


def folder_splits(
    folder: DataFolder, pairs: Sequence[tuple[str, str]], annotations: str, problems: list[Problem]
) -> list[str]:
    """The split of each image: what its folder says, or else the folder of its annotation, or 'train'.

    Args:
        folder: with the data.
        pairs: images and their annotations; '' where there is none.
        annotations: what these are called, for people: 'label maps'.
        problems: to add to.
    """
    named = [tuple(split_of(posixpath.dirname(file)) for file in pair) for pair in pairs]
    differing = [pair for pair, splits in zip(pairs, named) if None not in splits and splits[0] != splits[1]]
    if differing:
        what = (
            f'{len(differing)} {annotations} lie in a folder of another split than their images, which counts (the '
            f'first is {differing[0][1]}, its image {differing[0][0]})'
        )
        problems.append(Problem(str(folder.root), what, Kind.SPLITS_DIFFER))
    return [of_image or of_annotation or 'train' for of_image, of_annotation in named]


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
            raise UserError(
                f'{folder.root} has {len(files)} {what} files ({few(files, counted=True)}): leave one, or one each '
                'with train, val and test in its name or the name of its folder'
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


def _walk(root: Path, outputs: list[str]) -> Iterable[str]:
    """Files below a folder; links to folders are followed, once each. What our tools wrote goes to ``outputs``."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        is_ours = folder != str(root) and is_output(folder, folders + files)
        outputs += [folder] if is_ours else []
        if place in seen or is_ours:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith(('.', '__MACOSX', '@')))
        relative = '' if folder == str(root) else os.path.relpath(folder, root).replace(os.sep, '/') + '/'
        yield from (relative + name for name in files if not name.startswith('.'))
