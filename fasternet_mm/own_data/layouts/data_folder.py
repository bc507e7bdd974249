"""The files of a data set, and what is wrong with them. Whatever annotations say, no other file is ever opened."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from ...datasets.image_files import IMAGE_SUFFIXES, ImageFileError, image_size
from ...errors import UserError, few, nearest
from ...files import is_output
from .folder_words import split_of
from .image_matching import FileIndex, ImageReference, is_likely, plain_path
from .problems import Fault, Problem, UnusableError


class DataFolder:
    """The files under a folder, without hidden ones and folders that our tools wrote.

    Paths are relative to the folder, with '/' between their parts.

    Attributes:
        root: the folder.
        files: all files, sorted.
        outputs: folders that our tools wrote.
        problems: what reading the files finds wrong.

    Raises:
        UserError: the folder does not exist, or has no files.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        self.problems: list[Problem] = []
        if not self.root.is_dir():
            reason = 'is a file' if self.root.is_file() else 'does not exist'
            raise UserError(f'{root} {reason}: name the folder that has the images and their annotations')
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
        folders = {'.'}
        for file in self.files:
            folder = posixpath.dirname(file)
            while folder and folder not in folders:
                folders.add(folder)
                folder = posixpath.dirname(folder)
        return frozenset(folders)

    @cached_property
    def _by_path(self) -> FileIndex:
        return FileIndex(self.images)

    @cached_property
    def _by_stem(self) -> FileIndex:
        return FileIndex(self.images, stem)

    def ending(self, *suffixes: str) -> list[str]:
        """Files with one of these suffixes, which are in lower case."""
        return [file for file in self.files if file.lower().endswith(suffixes)]

    def full_path(self, file: str) -> str:
        """The path of a file as the user would write it; '' stands for the folder itself."""
        return str(self.root / file)

    def report(self, file: str, what: str, kind: Fault = Fault.MALFORMED) -> None:
        """Record a `Problem` of a file, or of the folder itself, which '' stands for."""
        self.problems.append(Problem(self.full_path(file), what, kind))

    def inside(self, folder: str, name: str) -> str | None:
        """The path that ``name`` means in ``folder``; None where it is absolute, or leads out of the data's folder."""
        name = name.replace('\\', '/')
        if name.startswith('/') or re.match('[A-Za-z]:', name):
            return None
        path = posixpath.normpath(posixpath.join(folder, name))
        return None if path.split('/')[0] == '..' else path

    def read_text(self, file: str) -> str:
        """The content of a text file in UTF-8, with a byte order mark or without.

        Raises:
            UnusableError: it cannot be read.
        """
        try:
            return (self.root / file).read_text('utf-8-sig')
        except (OSError, ValueError) as error:
            raise UnusableError(f'is not a text file that can be read ({error})') from error

    def read_lines(self, file: str, report: bool = True) -> list[str]:
        """The lines of a text file, stripped; none where it cannot be read, which is reported unless told not to."""
        try:
            return [line.strip() for line in self.read_text(file).splitlines()]
        except UnusableError as error:
            if report:
                self.report(file, str(error))
            return []

    def image_size(self, file: str) -> tuple[int, int] | Problem:
        """Height and width of an image as OpenCV reads it; or why it cannot be read."""
        try:
            return image_size(self.root / file)
        except ImageFileError as error:
            return Problem(self.full_path(file), error.problem, Fault.UNREADABLE)

    def find_images(self, names: Sequence[str], source: str, split: str | None) -> list[str | None]:
        """The image that each name in an annotation file means: see `FileIndex.match`.

        Args:
            names: as they are in the annotation file: relative to it, to the data's folder or to any folder in it, or
                paths and addresses of another machine.
            source: the annotation file.
            split: the split that the annotation file is for, if it says so.

        Returns:
            For each name the image. Where it is missing, the path that it should have; None where the name leads out
            of the folder and no image in there has its end.

        Raises:
            UserError: no image is there, or two fit a name equally well.
        """
        references = [ImageReference(name, source, split, self._exact(name, source)) for name in names]
        images = self._by_path.match(references)
        present = [image for image in images if image]
        if not present:
            raise self.no_image_of(source, names)
        self._report_unlikely_places([source] * len(images), images)
        self._report_other_splits(source, split, present)
        place, left_out = _usual_place(names, images)
        return [
            image or self._missing(name, source, place, left_out) for name, image in zip(names, images, strict=True)
        ]

    def images_of(self, files: Sequence[str], names: Sequence[str], stem_first: bool) -> list[str | None]:
        """The image of each annotation file that is of one image: it has its path and stem, or the name that is in it.

        Args:
            files: the annotation files.
            names: of the images, as the annotation files have them.
            stem_first: whether the annotation file's own name counts more than the one in it.

        Returns:
            As from `find_images`.

        Raises:
            UserError: two images fit equally well.
        """
        by_own_name, by_name = [], []
        for file, name in zip(files, names):
            split, hint = split_of(posixpath.dirname(file)), posixpath.basename(plain_path(name))
            exact = self._exact(name, file)
            named = posixpath.splitext(posixpath.join(posixpath.dirname(file), plain_path(name)))[0]
            by_own_name.append(ImageReference(posixpath.splitext(file)[0], file, split, hint=hint))
            by_name.append(ImageReference(named, file, split, exact, hint))
        order = (by_own_name, by_name) if stem_first else (by_name, by_own_name)
        first, second = map(self._by_stem.match, order)
        images = [image or other for image, other in zip(first, second)]
        self._report_unlikely_places(files, images)
        return [
            image or self._missing(name, file, posixpath.dirname(file), 0)
            for file, name, image in zip(files, names, images)
        ]

    def no_image_of(self, source: str, names: Sequence[str]) -> UserError:
        """The error to raise where an annotation file, or a folder of them, names images and none of them is there."""
        if not names:
            return UserError(f'{self.full_path(source)} names no image: export it again, with the images')
        first = few([name[:100] for name in names], 3, counted=True)
        others = [posixpath.basename(image) for image in self.images]
        hint = nearest(posixpath.basename(plain_path(names[0])), others, f'it has {len(others)} other images')
        return UserError(
            f'{self.full_path(source)} names {len(names)} images ({first}), and {self.root} has none of them ({hint})'
            f'{self._passed_over()}: put the images there, in any folder, under these names'
        )

    def _passed_over(self) -> str:
        return f' (besides {few(self.outputs, 3)}, which our tools wrote)' if self.outputs else ''

    def _exact(self, name: str, source: str) -> str | None:
        """Where a path with folders leads, from its file or from the data's folder. A bare name may be anywhere."""
        if not re.search(r'[/\\]', name):
            return None
        paths = [self.inside(base, name) for base in (posixpath.dirname(source), '')]
        return next((path for path in paths if path in self.all), None)

    def _missing(self, name: str, source: str, place: str, left_out: int) -> str | None:
        """Where an image would be that is not there; None where the name leads out of the folder."""
        if not left_out and self.inside(posixpath.dirname(source), name) is None and self.inside('', name) is None:
            return None
        parts = plain_path(name).split('/')
        paths = (posixpath.join(place, *parts[min(left_out, len(parts) - 1) :]), posixpath.join(place, *parts))
        return next((path for path in paths if path not in self.all), None)

    def _report_unlikely_places(self, sources: Sequence[str], images: Sequence[str | None]) -> None:
        """Report images in folders of label maps or drawings, unless these are beside their annotation files."""
        apart = [image for source, image in zip(sources, images) if image and not _are_beside(source, image)]
        for folder, files in _by_folder(apart).items():
            if not is_likely(folder):
                what = (
                    f'{len(files)} images are taken from here (the first is {posixpath.basename(files[0])}), though '
                    'the name is one for label maps or drawings: no other folder has them'
                )
                self.report(folder, what, Fault.UNLIKELY_FOLDER)

    def _report_other_splits(self, source: str, split: str | None, images: Sequence[str]) -> None:
        for folder, files in _by_folder(images).items():
            if None not in (split, split_of(folder)) and split != split_of(folder):
                what = (
                    f'{len(files)} of its images are in {self.full_path(folder)} (the first is '
                    f'{posixpath.basename(files[0])}): the folder says {split_of(folder)}, but the file {split}, '
                    'which counts'
                )
                self.report(source, what, Fault.SPLITS_DIFFER)


def _are_beside(file: str, other: str) -> bool:
    return posixpath.dirname(file) == posixpath.dirname(other)


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


def _walk(root: Path, outputs: list[str]) -> Iterator[str]:
    """Files below a folder; links to folders are followed, once each. What our tools wrote goes to ``outputs``."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        is_ours = folder != str(root) and is_output(folder, folders + files)
        if is_ours:
            outputs.append(folder)
        if is_ours or place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith(('.', '__MACOSX', '@')))
        relative = '' if folder == str(root) else os.path.relpath(folder, root).replace(os.sep, '/') + '/'
        yield from (relative + name for name in files if not name.startswith('.'))
