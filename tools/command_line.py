"""What the tools' command lines share. It imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

EXIT_USER_ERROR = 2

NO_ROOM = errno.ENOSPC, errno.EDQUOT
"""Errors of a disk that is full, or a user's share of it."""


class Parser(argparse.ArgumentParser):
    """Errors are one line, as everywhere in the tools; argparse's own would print the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f'{self.prog}: error: {message} (see {self.prog} --help)\n')


def parser(description: str, epilog: str, **options: str) -> Parser:
    """A parser with what every tool takes: ``--debug``; ``options`` are argparse's."""
    layout = argparse.RawDescriptionHelpFormatter
    result = Parser(description=description, epilog=epilog, formatter_class=layout, **options)
    result.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return result


def config_parser(description: str, epilog: str) -> Parser:
    """A parser with what every tool takes that works with a config: CONFIG and ``--cfg-options``."""
    result = parser(description, epilog)
    result.add_argument('config', type=existing_file, help='config file, one of configs/ or your own')
    _add_cfg_options(result)
    return result


def model_parser(description: str, epilog: str, **options: str) -> Parser:
    """A parser with what every tool takes that runs a trained model: where it is, and how strictly it is loaded."""
    result = parser(description, epilog, **options)
    result.add_argument(
        'source',
        metavar='MODEL',
        type=existing_path,
        help='work directory of a training, which needs nothing else; or a config file, followed by its CHECKPOINT',
    )
    _add_cfg_options(result)
    result.add_argument(
        '--allow-mismatch',
        action='store_true',
        help='take from the checkpoint what fits, under other names of classes too, and say what does not',
    )
    return result


def _add_cfg_options(result: argparse.ArgumentParser) -> None:
    result.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='change settings of the config, as in train_dataloader.batch_size=4 model.backbone.with_cp=True; '
        'lists as "[a,b]" in quotes',
    )


def add_checkpoint(result: argparse.ArgumentParser) -> None:
    """CHECKPOINT after a config."""
    result.add_argument(
        'checkpoint',
        metavar='CHECKPOINT',
        nargs='?',
        help='weights of exactly this model: a file, a URL, or a published name (tools/weights.py list); '
        "default: the work directory's best, else its newest",
    )


def add_engine(result: argparse.ArgumentParser) -> None:
    """How a tool runs a trained model, or an exported file in the checkpoint's place."""
    choice = result.add_mutually_exclusive_group()
    choice.add_argument(
        '--no-optimize',
        action='store_true',
        help='run the model as it was trained: slower, and the same but for rounding',
    )
    choice.add_argument(
        '--bf16',
        action='store_true',
        help='compute in bfloat16, where the device has it: faster, less exact; exported files: OpenVINO alone',
    )
    result.add_argument(
        '--trust-program',
        action='store_true',
        help="run an exported file of PyTorch's (.pt2, .torchscript), which can do anything that a program can",
    )


def existing_file(path: str) -> str:
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f'{path} does not exist, or is not a file{_nearest(path)}')
    return path


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text}: give a whole number, at least 1')
    return int(text)


def existing_path(path: str) -> str:
    if not Path(path).exists():
        raise argparse.ArgumentTypeError(f'{path} does not exist{_nearest(path, folders=True)}')
    return path


def _nearest(path: str, folders: bool = False) -> str:
    import difflib

    folder = Path(path).parent
    entries = folder.iterdir() if folder.is_dir() else []
    names = [entry.name for entry in entries if folders or entry.is_file()]
    near = difflib.get_close_matches(Path(path).name, names, n=1)
    return f'; did you mean {folder / near[0]}?' if near else ''


def run(main: Callable[[argparse.Namespace], None], arguments: argparse.ArgumentParser) -> None:
    """Parse and run; a mistake of the user's ends with one sentence and status 2, anything else as Python does."""
    args = arguments.parse_args()
    # MMEngine imports it; the pinned setuptools still has it, and the user can do nothing about it.
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    # MMSegmentation's heads build their losses in its own old way, and tell of a default that is meant.
    warnings.filterwarnings('ignore', message='``build_loss`` would be deprecated|Default ``avg_non_ignore``')
    # A box that reaches over the image's edge is nothing to warn of.
    warnings.filterwarnings('ignore', message=r'Warning: The (bbox|polygon) is out of bounds')
    try:
        _limit_threads()
        main(args)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if args.debug or not _is_users(error):
            raise
        arguments.exit(EXIT_USER_ERROR, f'{arguments.prog}: error: {_sentence(error)}\n')


def _limit_threads() -> None:
    from fasternet_mm.cpus import limit_threads

    limit_threads()


def _is_users(error: Exception) -> bool:
    from fasternet_mm.errors import UserError

    if isinstance(error, UserError) or _lacks_room(error):
        return True
    # FasterNet itself raises plain ValueErrors, about its arguments and its input.
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, ValueError) and f'{os.sep}fasternet_mm{os.sep}' in raised_in


def _lacks_room(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in NO_ROOM


def _sentence(error: Exception) -> str:
    if not _lacks_room(error):
        return str(error)
    return f'{error.filename or "a file"} cannot be written ({error.strerror}): make room, or name a folder elsewhere'
