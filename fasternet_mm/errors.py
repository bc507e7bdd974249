"""The errors that commands tell in a sentence, and what their messages share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UserError(Exception):
    """A mistake of the user's: one sentence that says what was given, what is accepted and what to do now.

    Commands print it and exit with status 2.
    """


class RunError(Exception):
    """What went wrong in a run that was asked for rightly, such as a disk that was full: one sentence, as `UserError`.

    Commands print it and exit with status 1.
    """


def few(things: Sequence[object], shown: int = 5, separator: str = ', ', counted: bool = False) -> str:
    """The first of many things: 'a, b, … (12 in all)'; without the number where the message has it (``counted``)."""
    more = '…' if counted else f'… ({len(things)} in all)'
    return separator.join([*map(str, things[:shown]), *([more] if len(things) > shown else [])])


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """Half a sentence about a name that is unknown: 'did you mean 'road'?', or ``otherwise`` where none is like it."""
    near = get_close_matches(name, [*known], n=1)
    return f'did you mean {near[0]!r}?' if near else otherwise
