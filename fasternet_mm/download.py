"""Downloads that appear whole or not at all, and continue where they were interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from types import MappingProxyType
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urldefrag, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import torch
from filelock import FileLock
from tqdm import tqdm

from .errors import UserError

ATTEMPTS = 5
"""How many attempts in a row may bring no new bytes before the download is given up."""

PAUSE = 1.0
"""Seconds before the second attempt; each further pause is twice as long, so that a busy server gets time."""

TIMEOUT = 30.0
"""How many seconds the server may take to send its next bytes."""

PATIENCE = 120.0
"""How many seconds `fetch` may take in all."""

CHUNK = 1 << 16
"""How many bytes are read at a time."""


def cache_path(url: str, name: str | None = None) -> Path:
    """Where a download is kept, in PyTorch's folder for checkpoints, which ``TORCH_HOME`` moves.

    Args:
        url: the file's address.
        name: the file's name in the cache; by default the URL's own with a digest of the URL, because two sites'
            ``best.pth`` are different files.

    Raises:
        UserError: the URL does not end in a file name.
    """
    if name is None:
        last = re.split(r'[/\\]', unquote(urlsplit(url).path))[-1]
        if last in ('', '.', '..'):
            raise UserError(f'{url} does not end in a file name: give the address of the checkpoint file itself')
        digest = hashlib.sha256(urldefrag(url).url.encode()).hexdigest()[:8]
        name = f'{Path(last).stem}-{digest}{Path(last).suffix}'
    return Path(torch.hub.get_dir(), 'checkpoints', name)


def download(url: str, target: Path, check: Callable[[Path], None], sha256: str | None = None) -> Path:
    """Fetch a file once, also where several processes ask for it; an interrupted download goes on at the next call.

    Args:
        url: an http or https address.
        target: where the file will be; what is there already is taken.
        check: raises `UserError` where the fetched file is not what it should be.
        sha256: the file's known SHA-256, in lowercase hexadecimal.

    Returns:
        `target`.

    Raises:
        UserError: the file cannot be fetched or kept, or is not the one expected.
    """
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f'{target}.lock'):
                if not target.exists():
                    _fetch_checked(url, target, check, sha256)
                    return target
    except OSError as error:
        raise UserError(
            f'{target.parent} cannot take the download of {url} ({error}): make room there, or set TORCH_HOME to '
            'another folder'
        ) from error
    actual = file_sha256(target) if sha256 else None
    if actual != sha256:
        raise UserError(f'{target} has SHA-256 {actual}, but {url} has {sha256}: delete the file to download it again')
    return target


def fetch(url: str, limit: int) -> bytes:
    """The content of a small file, which is not kept.

    Args:
        url: an http or https address.
        limit: bytes that it may have.

    Raises:
        UserError: it cannot be fetched, is larger, or takes more than `PATIENCE`.
    """
    if urlsplit(url).scheme.lower() not in ('http', 'https'):
        raise UserError(f'{url} is not an http or https address: download the file, and give that')
    content, deadline = bytearray(), time.monotonic() + PATIENCE
    try:
        with _ask(url) as answer:
            total = answer.length
            while total is None or len(content) < total:
                piece = answer.read1(CHUNK)  # what has come, so that a slow server does not outwait the deadline
                if not piece:
                    break
                content += piece
                if len(content) > limit or time.monotonic() > deadline:
                    raise UserError(
                        f'{url} has more than {limit:,} bytes, or takes more than {PATIENCE:.0f} s: download the file, '
                        'and give that'
                    )
        if total is not None and len(content) < total:
            raise _Failure(f'cannot be downloaded (it ends after {len(content)} of {total} bytes)', may_pass=True)
    except (_Failure, OSError, HTTPException) as error:
        reason = error if isinstance(error, _Failure) else f'cannot be downloaded ({error})'
        raise UserError(f'{url} {reason}: check the address, or download the file and give that') from error
    return bytes(content)


def file_sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's content, in lowercase hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


class _Partial:
    """The bytes so far, beside the target, and a note of which version of which file they begin."""

    def __init__(self, url: str, target: Path):
        self.url = url
        self.file = target.with_name(f'{target.name}.part')
        self.note = target.with_name(f'{target.name}.part.json')

    def progress(self) -> tuple[int, str | None]:
        """How many bytes the download can go on from, and the validator that they came with."""
        try:
            note = json.loads(self.note.read_text())
            return (self.file.stat().st_size, note['validator']) if note['url'] == self.url else (0, None)
        except (FileNotFoundError, ValueError):
            return 0, None

    def begin(self, validator: str | None) -> None:
        self.discard()
        if validator is not None:
            self.note.write_text(json.dumps(dict(url=self.url, validator=validator)))

    def discard(self) -> None:
        self.note.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


class _Failure(Exception):
    """One attempt failed; ``may_pass`` says whether another is worth while."""

    def __init__(self, message: str, may_pass: bool, code: int | None = None):
        super().__init__(message)
        self.may_pass, self.code = may_pass, code


class _SafeRedirects(HTTPRedirectHandler):
    """Never from https back to http, nor to another protocol."""

    inf_msg = 'redirects without end: '

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if urlsplit(newurl).scheme not in ('https', req.type):
            raise HTTPError(newurl, code, f"{msg} - Redirection to url '{newurl}' is not allowed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch_checked(url: str, target: Path, check: Callable[[Path], None], sha256: str | None) -> None:
    partial = _Partial(url, target)
    _fetch(partial, target)
    try:
        actual = file_sha256(partial.file) if sha256 else None
        if actual != sha256:
            raise UserError(f'{url} has SHA-256 {actual}, not the expected {sha256}: it has changed; check the address')
        check(partial.file)
    except UserError:
        partial.discard()
        raise
    os.replace(partial.file, target)
    partial.note.unlink(missing_ok=True)


def _fetch(partial: _Partial, target: Path) -> None:
    """Attempt until the file is complete, or `ATTEMPTS` in a row have brought no new bytes."""
    failures = furthest = 0
    while True:
        try:
            return _attempt(partial, target.name)
        except _Failure as failure:
            if failure.code == 416:  # nothing follows these bytes: they belong to another file
                partial.discard()
            size, _ = partial.progress()
            failures = 1 if size > furthest else failures + 1
            furthest = max(size, furthest)
            if not failure.may_pass or failures == ATTEMPTS:
                later = ', and the next call goes on where this one stopped' if size else ''
                raise UserError(
                    f'{partial.url} {failure}{later}: download it on another machine and put it at {target}, or name '
                    'a local file; or train from random weights with --start scratch'
                ) from failure
        time.sleep(PAUSE * 2 ** (failures - 1))


def _attempt(partial: _Partial, name: str) -> None:
    start, validator = partial.progress()
    with _ask(partial.url, {'Range': f'bytes={start}-', 'If-Range': validator} if start else {}) as answer:
        if start and answer.status == 206:
            total = _resumed_total(answer, start, validator)
            if total is None:
                partial.discard()
                raise _Failure('cannot be downloaded (the server resumes another file)', may_pass=True)
        else:
            start, total = 0, answer.length
            partial.begin(_validator(answer))
        bar = dict(unit='B', unit_scale=True, unit_divisor=1024, desc=name, disable=None, leave=False)
        with open(partial.file, 'ab') as file, tqdm(total=total, initial=start, **bar) as progress:
            for piece in _pieces(answer):
                file.write(piece)
                progress.update(len(piece))
            file.flush()
            os.fsync(file.fileno())
            if total is not None and file.tell() < total:
                raise _Failure(f'cannot be downloaded (it ends after {file.tell()} of {total} bytes)', may_pass=True)


def _ask(url: str, headers: Mapping[str, str] = MappingProxyType({})) -> HTTPResponse:
    try:
        # Some hosts refuse urllib's own name.
        request = Request(url, headers={'User-Agent': 'fasternet-mm', **headers})
        return build_opener(_SafeRedirects).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        may_pass = error.code >= 500 or error.code in (416, 429)
        message = f'cannot be downloaded (the server answers {error.code} {error.reason})'
        raise _Failure(message, may_pass, error.code) from error
    except URLError as error:
        may_pass = isinstance(error.reason, TimeoutError | ConnectionResetError | BrokenPipeError)
        raise _Failure(f'cannot be reached ({error.reason})', may_pass) from error
    except (InvalidURL, ValueError) as error:
        raise _Failure(f'is not a valid address ({error})', may_pass=False) from error
    except (OSError, HTTPException) as error:
        raise _Failure(f'cannot be downloaded ({error})', may_pass=True) from error


def _pieces(answer: HTTPResponse) -> Iterator[bytes]:
    """The body; apart from the writing, whose errors are not the network's."""
    try:
        while piece := answer.read(CHUNK):
            yield piece
    except (OSError, HTTPException, ValueError) as error:
        raise _Failure(f'cannot be downloaded ({error})', may_pass=True) from error


def _resumed_total(answer: HTTPResponse, start: int, validator: str | None) -> int | None:
    """The whole file's length, or None where the answer does not continue the bytes that are there."""
    content_range = re.fullmatch(rf'bytes {start}-\d+/(\d+)', answer.headers.get('Content-Range', ''))
    return int(content_range[1]) if content_range and _validator(answer) in (None, validator) else None


def _validator(answer: HTTPResponse) -> str | None:
    """What tells this version of the file from others; a weak ETag cannot, byte for byte."""
    etag = answer.headers.get('ETag')
    return etag if etag and not etag.startswith('W/') else answer.headers.get('Last-Modified')
