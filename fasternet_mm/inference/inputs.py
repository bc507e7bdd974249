"""What a user names on a command line: images, folders, patterns, addresses, videos, cameras."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ..datasets.image_files import VIDEO_SUFFIXES
from ..datasets.image_reading import is_url
from ..datasets.image_search import READABLE_IMAGES, find_files
from ..errors import UserError

STREAM_SCHEMES = ('rtsp', 'rtsps', 'http', 'https')
"""What an address of a stream begins with."""

STREAM_SUFFIXES = VIDEO_SUFFIXES | {'.m3u8', '.mjpg', '.mjpeg', '.ts'}
"""How an http or https URL ends that is not an image's but a video's; before others stands 'stream:'."""


def find_inputs(names: Sequence[str], out_dir: str) -> list[str]:
    """Everything that is named, in its order.

    Args:
        names: image files and videos, folders of them and patterns, see `find_files`; http and https URLs of images;
            'camera' or 'camera:1'; addresses of videos, see `is_stream`.
        out_dir: where results will go: nothing in it is an input.

    Raises:
        UserError: see `find_files` and `check_stream`.
    """
    for name in names:
        check_stream(name)
    return find_files(
        names,
        READABLE_IMAGES | VIDEO_SUFFIXES,
        out_dir,
        lambda name: is_url(name) or is_camera(name) or is_stream(name),
    )


def is_camera(source: str) -> bool:
    return bool(re.fullmatch(r'camera(:\d+)?', source)) and not Path(source).exists()


def is_stream(source: str) -> bool:
    """Whether a source is the address of a video: rtsp, http or https."""
    if source.startswith('stream:'):
        return True
    parts = urlsplit(source)
    return parts.scheme in ('rtsp', 'rtsps') or (is_url(source) and Path(parts.path).suffix.lower() in STREAM_SUFFIXES)


def check_stream(source: str) -> None:
    """Refuse an address that no stream has; the message does not repeat what may be a password.

    Raises:
        UserError: the scheme is unknown, or there is no host.
    """
    address = source.removeprefix('stream:')
    scheme, separator, _ = address.partition('://')
    if not separator or Path(source).exists():
        if source.startswith('stream:'):
            raise UserError("stream: stands before an address such as 'stream:http://camera/video'")
        return
    if scheme.lower() not in STREAM_SCHEMES or not urlsplit(address).hostname:
        raise UserError(
            f'an address that begins with {scheme}:// cannot be opened: give rtsp://, rtsps://, http:// or https:// '
            'and a host'
        )


def shown(source: str) -> str:
    """A source as it may be printed and written: of a stream's address scheme, host and port alone.

    Some cameras want user and password before the host, others in the path or behind it.
    """
    if not is_stream(source):
        return source
    parts = urlsplit(source.removeprefix('stream:'))
    return f'{parts.scheme}://{parts.netloc.rpartition("@")[2]}'


def is_video(source: str) -> bool:
    if is_camera(source) or is_stream(source):
        return True
    return not is_url(source) and Path(source).suffix.lower() in VIDEO_SUFFIXES
