"""Files published in one commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..weights.hugging_face import NAME, SCHEME, hub_api, told_in_a_sentence

CARD = 'README.md'
"""The page of a repository; what the hub has against it is asked before anything is made there."""


@dataclass(frozen=True)
class Destination:
    """Where a model is published.

    Attributes:
        repository: 'user/name'.
        url: its page.
        exists: whether it is there already.
        private: whether only its owner can read it.
    """

    repository: str
    url: str
    exists: bool
    private: bool


def checked_name(repository: str) -> str:
    """'user/name' of 'user/name' or 'hf://user/name'.

    Raises:
        UserError: it is no name of a repository.
    """
    name = repository.removeprefix(SCHEME)
    if not NAME.fullmatch(SCHEME + name) or '@' in name or '#' in name:
        raise UserError(f'{repository} is no name of a repository: write user/name, and a branch with --revision')
    return name


def find_destination(repository: str, private: bool = False) -> Destination:
    """Look where a model will be published, without changing anything.

    Args:
        repository: see `checked_name`.
        private: whether only its owner is to read it. Default: whoever can read a repository that exists, else all.

    Raises:
        UserError: nobody is logged in, the hub cannot be reached, or the repository exists and all can read it,
            against ``private``.
    """
    api = hub_api()
    import huggingface_hub

    if huggingface_hub.get_token() is None:
        raise UserError('nobody is logged in at the Hugging Face hub: log in with hf auth login, or set HF_TOKEN')
    url = f'{api.endpoint}/{repository}'
    with told_in_a_sentence(repository):
        try:
            is_private = bool(api.model_info(repository).private)
        except huggingface_hub.errors.RepositoryNotFoundError:
            return Destination(repository, url, False, private)
    if private and not is_private:
        raise UserError(
            f'{repository} exists, and everybody can read it: make it private at {url}/settings, or leave out --private'
        )
    return Destination(repository, url, True, is_private)


def upload(destination: Destination, files: list[Path], message: str, revision: str | None = None) -> str:
    """Publish files at the top of a repository, which is made where it is missing, in one commit: all or none.

    Args:
        destination: see `find_destination`.
        files: their names are kept.
        message: of the commit.
        revision: a branch, made where it is missing. Default: 'main'.

    Returns:
        The commit.

    Raises:
        UserError: the hub refuses it, or cannot be reached.
    """
    api = hub_api()
    from huggingface_hub import CommitOperationAdd, ModelCard

    operations = [CommitOperationAdd(file.name, file) for file in files]
    with told_in_a_sentence(destination.repository, revision):
        for file in files:
            if file.name == CARD:
                try:
                    ModelCard.load(file).validate()
                except ValueError as error:
                    raise UserError(f'{api.endpoint} refuses {CARD} ({" ".join(str(error).split())})') from error
        if not destination.exists:
            api.create_repo(destination.repository, private=destination.private)
        if revision:
            api.create_branch(destination.repository, branch=revision, exist_ok=True)
        return api.create_commit(destination.repository, operations, commit_message=message, revision=revision).oid
