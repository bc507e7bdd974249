"""What a user names on a command line: images, folders, patterns, addresses, videos, cameras."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..datasets.image_files import VIDEO_SUFFIXES
from ..datasets.image_reading import is_url
from ..datasets.image_search import READABLE_IMAGES, find_files


def find_inputs(names: Sequence[str], out_dir: str) -> list[str]:
    """Everything that is named, in its order.

    Args:
        names: image files and videos, folders of them and patterns, see `find_files`; http and https URLs of images;
            'camera' or 'camera:1'.
        out_dir: where results will go: nothing in it is an input.

    Raises:
        UserError: see `find_files`.
    """
    return find_files(names, READABLE_IMAGES | VIDEO_SUFFIXES, out_dir, lambda name: is_url(name) or is_camera(name))


def is_camera(source: str) -> bool:
    return bool(re.fullmatch(r'camera(:\d+)?', source)) and not Path(source).exists()


def is_video(source: str) -> bool:
    return is_camera(source) or (not is_url(source) and Path(source).suffix.lower() in VIDEO_SUFFIXES)
