"""Models on the Hugging Face hub: ``hf://user/name`` and ``hf://user/name@revision``, as files of its cache."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gaierror
from typing import Any

from mmengine.logging import print_log

from ..download import file_sha256
from ..errors import UserError
from ..extras import require
from ..version import __version__
from .reading import check_file

SCHEME = 'hf://'
"""How the names of models on the hub begin."""

FILE = 'model.safetensors'
"""The only file of a repository that is read: its format cannot hold code."""

NAME = re.compile(r'hf://([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9]\w*(?:[./-]\w+)*))?(#sha256=.*)?')
"""Owner and name of a repository, a branch, tag or commit, and the hash that the file must have."""

COMMIT = re.compile('[0-9a-f]{40}')
"""A revision whose content cannot change."""


def is_on_hub(source: object) -> bool:
    """Whether a source is the name of a model on the hub."""
    return isinstance(source, str) and source.startswith(SCHEME)


def pinned(source: str) -> str:
    """The name of a model on the hub with the commit that its revision is now, the file of which is then in the cache.

    So all that is read of a model is of one commit, and what was read can be told. Other sources stay as they are.

    Args:
        source: see `local_file`. Without a revision, 'main' is meant.

    Raises:
        UserError: there is no such model, or it cannot be had.
    """
    if not is_on_hub(source):
        return source
    repository, revision, sha256 = _parts(source)
    commit = _download(repository, revision).parent.name
    return f'{SCHEME}{repository}@{commit}{sha256}'


def file_on_hub(source: str) -> Path:
    """The file of a model on the hub, in the cache of huggingface_hub, whose settings and log-in are used.

    Raises:
        UserError: there is no such model, it cannot be had, or the file is damaged.
    """
    repository, revision, _ = _parts(source)
    path = _download(repository, revision)
    # Large files are kept by their hash, which huggingface_hub does not compare with what has arrived.
    recorded = path.resolve().name
    if re.fullmatch('[0-9a-f]{64}', recorded) and file_sha256(path) != recorded:
        raise UserError(f'{path.resolve()} is damaged: delete it, and {source} is downloaded again')
    if check_file(path, source) != 'safetensors':
        raise UserError(f'{source} is refused: its {FILE} is of another format, which could hold code; give another')
    return path


def hub_api() -> Any:
    """An ``HfApi``, whose address and token are huggingface_hub's own settings.

    Raises:
        UserError: huggingface_hub is missing.
    """
    hub = require('huggingface_hub', f'a model on the Hugging Face hub ({SCHEME}user/name)')
    return hub.HfApi(library_name='fasternet-mm', library_version=__version__)


@contextmanager
def told_in_a_sentence(repository: str, revision: str | None = None) -> Iterator[None]:
    """Turns the errors of huggingface_hub about a repository into `UserError`; no token is in them.

    Args:
        repository: 'user/name'.
        revision: which one is meant. Default: none.
    """
    api = hub_api()
    from huggingface_hub import constants, errors

    log_in = 'log in with hf auth login, or set HF_TOKEN'
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f'{repository} is gated: accept its terms at {api.endpoint}/{repository}, and {log_in}'
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f'{repository} does not exist on {api.endpoint}, or is private: check the name, or {log_in}'
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f'{repository} has no revision {revision}: give a branch, a tag or a commit') from error
    except errors.RemoteEntryNotFoundError as error:
        raise UserError(
            f'{repository} has no {FILE}, the only file that is read: give a model that fasternet-mm push published'
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UserError(
                f'{api.endpoint} refuses access to {repository} (status {status}): {log_in}, with a token that may do '
                'this'
            ) from error
        raise UserError(f'{api.endpoint} answers with status {status} for {repository}: try again later') from error
    except UnicodeEncodeError as error:
        raise UserError(
            f'the token for {api.endpoint} has letters that no token has: {log_in} to a right one'
        ) from error
    except (errors.HTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        is_of_disk = isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError, gaierror))
        if is_of_disk and error.errno is not None:
            raise UserError(
                f'{constants.HF_HUB_CACHE} cannot take the download of {repository} ({error.strerror}): make room '
                'there, or set HF_HUB_CACHE to another folder'
            ) from error
        raise UserError(f'{_unreachable(api.endpoint, error)}: connect this machine to it, or name a file') from error


def _parts(source: str) -> tuple[str, str, str]:
    """Repository, revision and what follows, '#sha256=…' or ''."""
    match = NAME.fullmatch(source)
    if match is None:
        raise UserError(f'{source} is no model on the hub: write {SCHEME}user/name or {SCHEME}user/name@revision')
    repository, revision, sha256 = match.groups()
    return repository, revision or 'main', sha256 or ''


def _download(repository: str, revision: str) -> Path:
    """The file in the cache, downloaded first where it is not there; without a network what the cache has."""
    api = hub_api()
    from huggingface_hub import errors, hf_hub_url, try_to_load_from_cache

    if COMMIT.fullmatch(revision):
        cached = try_to_load_from_cache(repository, FILE, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    with told_in_a_sentence(repository, revision):
        try:
            # Without it, an old file of the cache would be taken silently.
            api.get_hf_file_metadata(url=hf_hub_url(repository, FILE, revision=revision, endpoint=api.endpoint))
        except errors.HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise
            unreachable = error
        except (errors.HTTPError, OSError) as error:
            unreachable = error
        else:
            return Path(api.hf_hub_download(repository, FILE, revision=revision))
        cached = try_to_load_from_cache(repository, FILE, revision=revision)
        if not isinstance(cached, str):
            raise unreachable
    commit = Path(cached).parent.name
    text = f'{_unreachable(api.endpoint, unreachable)}: {repository} is taken as it was downloaded, at commit {commit}'
    print_log(text, logger='current', level=logging.WARNING)
    return Path(cached)


def _unreachable(endpoint: str, error: Exception) -> str:
    """Half a sentence about why the hub cannot be reached."""
    reason = str(error).strip().partition('\n')[0].rstrip('.') or type(error).__name__
    return f'{endpoint} cannot be reached ({reason})'
