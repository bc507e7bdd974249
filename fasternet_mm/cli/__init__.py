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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from ..errors import RunError, UserError, nearest
from ..extras import needs_openmmlab
from ..signals import EndingSignals
from ..version import __version__
from .parsing import EXIT_USER_ERROR, Parser

COMMANDS = {
    'Your own images': {
        'check-data': 'check a folder of images and annotations before training on it',
        'convert': 'write annotated images in another format',
        'train': 'train a detector or segmenter',
        'test': 'evaluate a trained model on its test set',
        'predict': 'find objects, or label pixels, in images and videos',
        'app': 'open a web page on which a model can be tried',
        'serve': 'answer requests for predictions over HTTP',
        'export': 'write a trained model to a file that runs without this package',
        'push': 'publish a trained model on the Hugging Face hub',
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

SHELLS = 'bash', 'zsh', 'fish', 'powershell'
"""Shells in which the Tab key can complete command lines."""

WITHOUT_COMPUTING = {'env', 'plot-log', 'prepare', 'weights'}
"""Commands that start without PyTorch, whose threads all others limit."""

NO_ROOM = errno.ENOSPC, errno.EDQUOT
"""Errors of a disk that is full, or a user's share of it."""

EXIT_RUN_ERROR = 1
"""Exit status where the machine failed a command that was right."""

EXIT_INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of the signal."""


def main(argv: Sequence[str] | None = None, prog: str = 'fasternet-mm') -> None:
    """Run a command line.

    Args:
        argv: the command and its arguments. Default: those of this process.
        prog: what the user called, for messages.
    """
    if '_ARGCOMPLETE' in os.environ:  # a shell asks what may come next
        from .completion import complete

        complete({name: _module(name).arguments() for name in _names()})
    argv = sys.argv[1:] if argv is None else list(argv)
    with _ending_quietly():
        if argv and not argv[0].startswith('-'):
            _run(argv[0], argv[1:], f'{prog} {argv[0]}', prog)
            return
        parser = _parser(prog)
        args = parser.parse_args(argv)
        if not args.print_completion:
            parser.print_help()
            sys.exit(EXIT_USER_ERROR)
        from .completion import script

        print(script(args.print_completion))


def run_tool(file: str, *command: str) -> None:
    """Run a command from its file in ``tools/``.

    Python makes that folder the first to import from, where ``test.py`` and others would hide modules of those names.
    """
    folder = os.path.dirname(os.path.realpath(file))
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != folder]
    with _ending_quietly():
        _run(command[0], [*command[1:], *sys.argv[1:]], sys.argv[0])


@contextmanager
def _ending_quietly() -> Iterator[None]:
    """End without a traceback after a signal, and where nobody reads what is printed any more, as in ``… | head``."""
    try:
        with EndingSignals():
            yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        try:
            print(flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
            sys.exit(0)
        raise  # another pipe, such as that of a process of ours


def _parser(prog: str) -> Parser:
    width = max(len(name) for commands in COMMANDS.values() for name in commands)
    lines = ['commands:']
    for group, commands in COMMANDS.items():
        lines += ['', f'  {group}', *(f'    {name:{width}}  {summary}' for name, summary in commands.items())]
    parser = Parser(
        prog=prog,
        usage=f'{prog} COMMAND … | --help | --version | --print-completion SHELL',
        description='FasterNet detectors and segmenters: training, testing, prediction and export.',
        epilog='\n'.join([*lines, '', f'{prog} COMMAND --help shows examples and options.']),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'fasternet-mm {__version__}', help='show the version')
    parser.add_argument(
        '--print-completion',
        choices=SHELLS,
        metavar='SHELL',
        help=f'print what makes the Tab key complete commands, options and configs in a shell ({", ".join(SHELLS)}); '
        'for bash: eval "$(fasternet-mm --print-completion bash)"',
    )
    return parser


def _run(name: str, argv: Sequence[str], prog: str, parent: str = '') -> None:
    """Parse and run; a mistake of the user's ends with one sentence and status 2, anything else as Python does."""
    names = _names()
    if name not in names:
        _parser(parent).error(f'{name!r} is not a command; ' + nearest(name, names, f'there are {", ".join(names)}'))
    module = _module(name)
    parser = module.arguments(prog)
    args = parser.parse_args(argv)
    _silence_libraries()
    try:
        with needs_openmmlab():
            if name not in WITHOUT_COMPUTING:
                from ..cpus import limit_threads
                from ..engine.terminal import shorten

                limit_threads()
                shorten()
            module.main(args)
    except Exception as error:
        message = _message(error)
        if args.debug or message is None:
            raise
        status = EXIT_RUN_ERROR if isinstance(error, RunError) else EXIT_USER_ERROR
        parser.exit(status, f'{prog}: error: {message}\n')


def _names() -> list[str]:
    return [name for commands in COMMANDS.values() for name in commands]


def _module(name: str) -> ModuleType:
    return importlib.import_module(f'.{name.replace("-", "_")}', __package__)


def _silence_libraries() -> None:
    # MMEngine imports it; the pinned setuptools still has it, and the user can do nothing about it.
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    # MMSegmentation's heads build their losses in its own old way, and tell of a default that is meant.
    warnings.filterwarnings('ignore', message='``build_loss`` would be deprecated|Default ``avg_non_ignore``')
    # MMDetection's point generator calls it without the argument that PyTorch will need one day.
    warnings.filterwarnings('ignore', message='torch.meshgrid: in an upcoming release')
    # The hook that would draw is in MMSegmentation's default hooks, and is not asked to.
    warnings.filterwarnings('ignore', message='The draw is False')
    # MMEngine's settings for several processes, which are those that are meant.
    warnings.filterwarnings('ignore', message='Setting (MKL|OMP)_NUM_THREADS|`broadcast_buffers` is deprecated')
    # Weights of one channel have the strides of both memory layouts; gradients are copied once more.
    warnings.filterwarnings('ignore', message='Grad strides do not match bucket view strides')
    # A box that reaches over the image's edge is nothing to warn of.
    warnings.filterwarnings('ignore', message=r'Warning: The (bbox|polygon) is out of bounds')


def _message(error: Exception) -> str | None:
    """What the user is to read where the mistake is theirs, or the disk is full; None for all else."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        where = error.filename or 'a file'
        return f'{where} cannot be written ({error.strerror}): make room, or name a folder elsewhere'
    if isinstance(error, (RunError, UserError)):
        return str(error)
    from ..models.backbone import InvalidArgument  # with PyTorch

    return str(error) if isinstance(error, InvalidArgument) else None
