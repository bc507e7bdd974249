"""Files in the folders and patterns that a user names."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NoReturn

from mmengine.logging import print_log

from ..errors import UserError
from ..files import MARKER
from .image_files import IMAGE_SUFFIXES

READABLE_IMAGES = IMAGE_SUFFIXES | {'.gif'}
"""Suffixes, in lower case, of images that `read_image` reads: of GIF it takes the first frame."""


def find_files(
    names: Sequence[str],
    suffixes: Collection[str] = READABLE_IMAGES,
    out_dir: str | None = None,
    is_source: Callable[[str], bool] = lambda name: False,
) -> list[str]:
    """All files that a user names, in the order of the names.

    Args:
        names: files of any suffix; folders, whose files are found by their suffixes, sorted; and patterns
            ('holiday/**/*.jpg'). Links are followed.
        suffixes: in lower case. Default: those of images.
        out_dir: where results will go. Files in it are left out, and folders inside a named one that hold the results
            of earlier runs are left out as well. Default: nowhere.
        is_source: tells names of things that are not files, such as URLs; they are taken as they are. Default: none.

    Returns:
        Each file once, by its shortest name.

    Raises:
        UserError: a name stands for no such file, cannot be opened, or is in ``out_dir``.
    """
    results = None if out_dir is None else _real(out_dir)
    places: dict[str | Path, str] = {}
    for name in names:
        if is_source(name):
            places[name] = name
            continue
        for file in _files_named(name, suffixes, results):
            place = _real(Path(file).parent) / Path(file).name
            places[place] = min(places.get(place, file), file, key=len)
    return list(places.values())


def _files_named(name: str, suffixes: Collection[str], results: Path | None) -> list[str]:
    if Path(name).exists() and _is_inside(name, results):
        raise UserError(
            f'{name} is in the folder of the results, where it could be overwritten: name another --out-dir'
        )
    if Path(name).is_file():
        return [name]
    if Path(name).is_dir():
        paths, problem = _walk(name), f'no images in {name}'
    elif glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))
        paths = [file for match in matches for file in (_walk(match) if Path(match).is_dir() else [Path(match)])]
        problem = f'no images match {name}'
    else:
        raise UserError(f'{name} does not exist: name images, or folders of images')
    files = [str(path) for path in paths if path.suffix.lower() in suffixes and not _is_inside(path, results)]
    if not files:
        raise UserError(f'{problem}: looked for {", ".join(sorted(suffixes))}')
    return files


def _walk(top: str) -> list[Path]:
    """All files in a folder and in those below it, sorted, and links that lead nowhere; each folder is entered once."""
    files, entered = [], set()
    for folder, below, names in os.walk(top, onerror=_refuse_closed, followlinks=True):
        if _real(folder) in entered:
            below.clear()
            continue
        entered.add(_real(folder))
        for name in [name for name in below if _has_results(Path(folder, name))]:
            text = f'{Path(folder, name)} has the results of an earlier run: it is left out, unless it is named'
            print_log(text, logger='current', level=logging.WARNING)
            below.remove(name)
        files += [file for file in (Path(folder, name) for name in names) if file.is_file() or not file.exists()]
    return sorted(files)


def _has_results(folder: Path) -> bool:
    """Whether our tools wrote there, by their mark, by a detector's list, or by labels in the default folder."""
    has_list = Path(folder, MARKER).is_file() or Path(folder, 'results.json').is_file()
    return has_list or (folder.name == 'predictions' and Path(folder, 'labels').is_dir())


def _is_inside(path: str | Path, folder: Path | None) -> bool:
    return folder is not None and _real(path).is_relative_to(folder)


def _real(path: str | Path) -> Path:
    """Where links lead; unlike ``Path.resolve``, links in a circle are no error."""
    return Path(os.path.realpath(path))


def _refuse_closed(error: OSError) -> NoReturn:
    raise UserError(
        f'{error.filename} cannot be opened ({error.strerror}): make it readable, or name others'
    ) from error
