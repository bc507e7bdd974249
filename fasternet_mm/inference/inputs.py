"""What a user names on a command line: images, folders, patterns, addresses, videos, cameras."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import NoReturn

from mmengine.logging import print_log

from ..datasets.image_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from ..datasets.image_reading import is_url
from ..errors import UserError
from ..files import MARKER

READABLE_IMAGES = IMAGE_SUFFIXES | {'.gif'}
"""Suffixes of images that `read_image` reads: of GIF it takes the first frame."""


def find_images(paths: Sequence[str]) -> list[str]:
    """Image files: see `find_inputs`, which also finds other things."""
    return _unique(file for path in paths for file in _find(path, READABLE_IMAGES, None))


def find_inputs(paths: Sequence[str], out_dir: str) -> list[str]:
    """Everything that is named, in its order: files, those in folders by their suffix, sorted, and addresses.

    Args:
        paths: image files and videos, folders of them, patterns ('holiday/**/*.jpg'), http and https URLs of
            images, 'camera' or 'camera:1'.
        out_dir: where results will go: in folders it is passed over, as are folders with the results of earlier runs.

    Raises:
        UserError: one of them is not there, has no images, cannot be opened, or is a file in ``out_dir``.
    """
    found, suffixes = [], READABLE_IMAGES | VIDEO_SUFFIXES
    for path in paths:
        found += [path] if is_url(path) or is_camera(path) else _find(path, suffixes, _real(out_dir))
    return _unique(found)


def is_camera(source: str) -> bool:
    return bool(re.fullmatch(r'camera(:\d+)?', source)) and not Path(source).exists()


def is_video(source: str) -> bool:
    return is_camera(source) or (not is_url(source) and Path(source).suffix.lower() in VIDEO_SUFFIXES)


def _find(path: str, suffixes: Set[str], out_dir: Path | None) -> list[str]:
    """The files that one path names."""
    if Path(path).is_file():
        _refuse_inside(Path(path), out_dir)
        return [path]
    if Path(path).is_dir():
        _refuse_inside(Path(path), out_dir)
        named, what = [path], f'no images in {path}'
    elif glob.has_magic(path):
        named, what = sorted(glob.glob(path, recursive=True)), f'no images match {path}'
    else:
        raise UserError(f'{path} does not exist: name images, or folders of images')
    found = [file for name in named for file in _files_of(name, out_dir) if Path(file).suffix.lower() in suffixes]
    if not found:
        raise UserError(f'{what}: looked for {", ".join(sorted(suffixes))}')
    return found


def _files_of(path: str, out_dir: Path | None) -> list[str]:
    """The file itself, or all files in a folder, sorted; without those in the folder of the results."""
    files = _walk(path) if Path(path).is_dir() else [Path(path)]
    return [str(file) for file in files if out_dir is None or not _real(file).is_relative_to(out_dir)]


def _walk(top: str) -> list[Path]:
    """All files in a folder and in those below it, sorted, and links that lead nowhere; each folder is entered once."""
    files, entered = [], set()
    for folder, below, names in os.walk(top, onerror=_refuse_closed, followlinks=True):
        if _real(folder) in entered:
            below.clear()
            continue
        entered.add(_real(folder))
        earlier = [name for name in below if _has_results(Path(folder, name))]
        for name in earlier:
            text = f'{Path(folder, name)} has the results of an earlier run: it is left out, unless it is named'
            print_log(text, logger='current', level=logging.WARNING)
        below[:] = [name for name in below if name not in earlier]
        files += [file for file in (Path(folder, name) for name in names) if file.is_file() or not file.exists()]
    return sorted(files)


def _has_results(folder: Path) -> bool:
    """Whether our tools wrote there, by their mark, by a detector's list, or by labels in the default folder."""
    has_list = Path(folder, MARKER).is_file() or Path(folder, 'results.json').is_file()
    return has_list or (folder.name == 'predictions' and Path(folder, 'labels').is_dir())


def _real(path: str | Path) -> Path:
    """Where links lead; unlike ``Path.resolve``, links in a circle are no error."""
    return Path(os.path.realpath(path))


def _refuse_closed(error: OSError) -> NoReturn:
    raise UserError(
        f'{error.filename} cannot be opened ({error.strerror}): make it readable, or name others'
    ) from error


def _refuse_inside(path: Path, out_dir: Path | None) -> None:
    if out_dir is not None and _real(path).is_relative_to(out_dir):
        raise UserError(
            f'{path} is in the folder of the results, where it could be overwritten: name another --out-dir'
        )


def _unique(files: Iterable[str]) -> list[str]:
    """Each once, by its shortest name, whatever links lead to its folder, in the order in which they came first."""
    places: dict[str | Path, str] = {}
    for file in files:
        where = file if is_url(file) or is_camera(file) else _real(Path(file).parent) / Path(file).name
        places[where] = min(places.get(where, file), file, key=len)
    return list(places.values())
