"""The command ``fasternet-mm``: a module for each of its commands, which is imported when it is asked for.

Each module has ``arguments(prog)``, its parser, and ``main(args)``, which imports what is heavy.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from ..errors import UserError, nearest
from ..version import __version__
from .parsing import EXIT_USER_ERROR, Parser

COMMANDS = {
    'Your own images': {
        'check-data': 'check a folder of images and annotations before training on it',
        'train': 'train a detector or segmenter',
        'test': 'evaluate a trained model on its test set',
        'predict': 'find objects, or label pixels, in images and videos',
        'export': 'write a trained model to a file that runs without this package',
    },
    'Results': {
        'evaluate': 'compute COCO figures from a results file, without a model',
        'report': 'write an HTML page on what is wrong in predictions',
        'plot-log': 'plot losses and metrics of trainings',
    },
    'Published weights and data sets': {
        'weights': 'list, inspect and convert checkpoints',
        'prepare': 'unpack and check COCO 2017 or ADE20K',
    },
    'Measuring': {
        'benchmark': 'measure speed and memory, side by side',
        'complexity': 'count parameters and multiply-adds',
        'env': 'show versions, device and what is wrong with the installation',
    },
}
"""Commands and what they do, as a person comes to need them."""

WITHOUT_COMPUTING = {'env', 'plot-log', 'prepare', 'weights'}
"""Commands that start without PyTorch, whose threads all others limit."""

NO_ROOM = errno.ENOSPC, errno.EDQUOT
"""Errors of a disk that is full, or a user's share of it."""

EXIT_INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of the signal."""


def main(argv: Sequence[str] | None = None, prog: str = 'fasternet-mm') -> None:
    """Run a command line.

    Args:
        argv: the command and its arguments. Default: those of this process.
        prog: what the user called, for messages.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and not argv[0].startswith('-'):
        _run(argv[0], argv[1:], prog)
    else:
        parser = _parser(prog)
        parser.parse_args(argv)  # --help, --version, or an unknown option: they end here
        parser.print_help()
        sys.exit(EXIT_USER_ERROR)


def run_tool(file: str, *command: str) -> None:
    """Run a command from its file in ``tools/``.

    Python makes that folder the first to import from, where ``test.py`` and others would hide modules of those names.
    """
    folder = os.path.dirname(os.path.realpath(file))
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != folder]
    _run(command[0], [*command[1:], *sys.argv[1:]], sys.argv[0], tool=True)


def _parser(prog: str) -> Parser:
    width = max(len(name) for commands in COMMANDS.values() for name in commands)
    lines = ['commands:']
    for group, commands in COMMANDS.items():
        lines += ['', f'  {group}', *(f'    {name:{width}}  {summary}' for name, summary in commands.items())]
    parser = Parser(
        prog=prog,
        usage=f'{prog} COMMAND … | --help | --version',
        description='FasterNet detectors and segmenters: training, testing, prediction and export.',
        epilog='\n'.join([*lines, '', f'{prog} COMMAND --help shows examples and options.']),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'fasternet-mm {__version__}')
    return parser


def _run(name: str, argv: Sequence[str], prog: str, tool: bool = False) -> None:
    """Parse and run; a mistake of the user's ends with one sentence and status 2, anything else as Python does."""
    known = [command for commands in COMMANDS.values() for command in commands]
    if name not in known:
        _parser(prog).error(f'{name!r} is not a command; ' + nearest(name, known, f'there are {", ".join(known)}'))
    module = _module(name)
    parser = module.arguments(prog if tool else f'{prog} {name}')
    args = parser.parse_args(argv)
    _silence_libraries()
    try:
        if name not in WITHOUT_COMPUTING:
            _limit_threads()
        module.main(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            sys.exit(0)
        message = _message(error)
        if args.debug or message is None:
            raise
        parser.exit(EXIT_USER_ERROR, f'{parser.prog}: error: {message}\n')


def _module(name: str) -> ModuleType:
    return importlib.import_module(f'.{name.replace("-", "_")}', __package__)


def _silence_libraries() -> None:
    # MMEngine imports it; the pinned setuptools still has it, and the user can do nothing about it.
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    # MMSegmentation's heads build their losses in its own old way, and tell of a default that is meant.
    warnings.filterwarnings('ignore', message='``build_loss`` would be deprecated|Default ``avg_non_ignore``')
    # A box that reaches over the image's edge is nothing to warn of.
    warnings.filterwarnings('ignore', message=r'Warning: The (bbox|polygon) is out of bounds')


def _limit_threads() -> None:
    from ..cpus import limit_threads

    limit_threads()


def _reader_is_gone() -> bool:
    """Whether nobody reads what is printed any more, as in ``… | head``; then nothing further is written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        return True
    return False


def _message(error: Exception) -> str | None:
    """What the user is to read where the mistake is theirs, or the disk is full; None for all else."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        where = error.filename or 'a file'
        return f'{where} cannot be written ({error.strerror}): make room, or name a folder elsewhere'
    if isinstance(error, UserError) or _is_invalid_argument(error):
        return str(error)
    return None


def _is_invalid_argument(error: Exception) -> bool:
    from ..models.backbone import InvalidArgument

    return isinstance(error, InvalidArgument)
