"""From what a user names - a published checkpoint, a path, a URL, a file backend - to a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.fileio import get_file_backend
from mmengine.runner.checkpoint import (
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

from ..download import cache_path, download, file_sha256
from ..errors import UserError, nearest
from .catalog import CATALOG
from .hugging_face import file_on_hub, is_on_hub
from .reading import check_file, read_file, unreadable

MODEL_ZOOS = {
    'torchvision': get_torchvision_models,
    'modelzoo': get_torchvision_models,
    'open-mmlab': get_external_models,
    'openmmlab': get_external_models,
    'mmcls': get_mmcls_models,
}
"""MMEngine's own names for published checkpoints of other networks, each with its table of URLs."""


def read_checkpoint(source: str, mmap: bool = False) -> dict[str, Any]:
    """The content of a checkpoint, from wherever it is, its tensors on the CPU; nothing in it is executed.

    Args:
        source: see `local_file`.
        mmap: let the tensors stand in the file until they are used: for weights that are copied at once, not for
            tensors to keep, since the file may change. Default: False.

    Raises:
        UserError: the source cannot be had, is broken, or holds objects of types that a checkpoint does not need.
    """
    with local_file(source) as path:
        return read_file(path, source, mmap)


@contextmanager
def local_file(source: str) -> Iterator[Path]:
    """The file behind ``source``, downloaded first where that is needed: ``with local_file(source) as path``.

    Args:
        source: a published name ('fasternet_s_in1k'), a path, an http(s) URL, one of MMEngine's names
            ('torchvision://resnet50'), a model on the Hugging Face hub ('hf://user/name', 'hf://user/name@revision'),
            or a path of any file backend registered with MMEngine ('s3://bucket/net.pth').
            With ``#sha256=`` and 64 hexadecimal digits at its end the file must have that hash.

    Raises:
        UserError: there is no such file, it cannot be downloaded, or its hash differs.
    """
    location, sha256 = _split_hash(source)
    if location in CATALOG:
        published = CATALOG[location]
        url, target = published.url, cache_path(published.url, published.file)
        yield download(url, target, partial(check_file, name=url, thorough=True), sha256 or published.sha256)
        return
    scheme, separator, name = location.partition('://')
    if separator and scheme in MODEL_ZOOS:
        location = _zoo_url(scheme, name)
        scheme = location.partition('://')[0]
    if separator and scheme in ('http', 'https'):
        yield download(location, cache_path(location), partial(check_file, name=location, thorough=True), sha256)
        return
    with ExitStack() as stack:
        if is_on_hub(location):
            path = file_on_hub(location)
        else:
            path = _backend_path(location, stack) if separator else _local_path(location)
        try:
            actual = file_sha256(path) if sha256 else None
        except OSError as error:
            raise unreadable(location, error) from error
        if actual != sha256:
            raise UserError(f'checkpoint {location} has the SHA-256 {actual}, not {sha256}: fetch it again')
        yield path


def _split_hash(source: str) -> tuple[str, str | None]:
    location, mark, sha256 = str(source).partition('#sha256=')
    if mark and not re.fullmatch('[0-9a-fA-F]{64}', sha256):
        raise UserError(f'checkpoint {source}: write 64 hexadecimal digits after #sha256=')
    return location, sha256.lower() or None


def _zoo_url(scheme: str, name: str) -> str:
    table = MODEL_ZOOS[scheme]()
    known = get_deprecated_model_names().get(name, name) if 'mmlab' in scheme else name
    if known not in table:
        raise UserError(f'checkpoint {scheme}://{name} is unknown; {nearest(name, table, "give a file or a URL")}')
    return table[known]


def _local_path(location: str) -> Path:
    path = Path(location)
    if path.is_dir():
        raise UserError(f'checkpoint {location} is a folder: give a file in it')
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir() if p.is_file()] if path.parent.is_dir() else []
        sources = 'give a file, a URL, or a published name (fasternet-mm weights list)'
        raise UserError(f'checkpoint {location} does not exist; {nearest(path.name, [*beside, *CATALOG], sources)}')
    return path


def _backend_path(location: str, stack: ExitStack) -> Path:
    try:
        return Path(stack.enter_context(get_file_backend(location).get_local_path(location)))
    except Exception as error:
        raise UserError(f'checkpoint {location} cannot be had through MMEngine ({error}): copy it to a file') from error
