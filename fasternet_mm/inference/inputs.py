"""What a user names on a command line: pictures, folders, patterns, addresses, videos, cameras."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..data.picture_files import SUFFIXES
from ..errors import UserError
from .pictures import is_url

PICTURES = SUFFIXES | {'.gif'}
VIDEOS = {'.mp4', '.avi', '.mov', '.mkv', '.webm'}
"""By these suffixes files in folders are found, and videos are told from pictures."""


def find_pictures(paths: Sequence[str]) -> list[str]:
    """Picture files: see `find_inputs`, which also finds other things."""
    return _found(paths, PICTURES, None)


def find_inputs(paths: Sequence[str], out_dir: str) -> list[str]:
    """Everything that is named, in its order: files, those in folders by their suffix, sorted, and addresses.

    Args:
        paths: picture files and videos, folders of them, patterns ('holiday/**/*.jpg'), http and https URLs of
            pictures, 'camera' or 'camera:1'.
        out_dir: where results will go: in folders it is passed over.

    Raises:
        UserError: there is no such thing, or a file that is named is in ``out_dir``.
    """
    return _found(paths, PICTURES | VIDEOS, Path(out_dir).resolve())


def is_camera(source: str) -> bool:
    return bool(re.fullmatch(r'camera(:\d+)?', source)) and not Path(source).exists()


def is_video(source: str) -> bool:
    return is_camera(source) or (not is_url(source) and Path(source).suffix.lower() in VIDEOS)


def _found(paths: Sequence[str], suffixes: set[str], out_dir: Path | None) -> list[str]:
    found: list[str] = []
    for path in paths:
        if out_dir and (is_url(path) or is_camera(path)):
            found.append(path)
        elif Path(path).is_file():
            _refuse_inside(Path(path), out_dir)
            found.append(path)
        elif Path(path).is_dir():
            _refuse_inside(Path(path), out_dir)
            found += _files_of([Path(path)], suffixes, out_dir)
        elif glob.has_magic(path):
            found += _files_of(map(Path, sorted(glob.glob(path, recursive=True))), suffixes, out_dir)
        else:
            raise UserError(f'{path} does not exist: name pictures, or folders of pictures')
    if not found:
        raise UserError(f'no pictures in {", ".join(map(str, paths))}: looked for {", ".join(sorted(suffixes))}')
    return list(dict.fromkeys(found))


def _files_of(paths: Sequence[Path] | Iterator[Path], suffixes: set[str], out_dir: Path | None) -> Iterator[str]:
    for path in paths:
        files = sorted(file for file in path.rglob('*') if file.is_file()) if path.is_dir() else [path]
        for file in files:
            inside = out_dir is not None and file.resolve().is_relative_to(out_dir)
            if file.suffix.lower() in suffixes and not inside:
                yield str(file)


def _refuse_inside(path: Path, out_dir: Path | None) -> None:
    if out_dir is not None and path.resolve().is_relative_to(out_dir):
        raise UserError(
            f'{path} is in the folder of the results, where it could be overwritten: name another --out-dir'
        )
