"""What the command lines share. Nothing heavy is imported, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..engine.packaged_configs import config_names, config_path
from ..errors import UserError, nearest

if TYPE_CHECKING:
    from ..inference.predictor import Predictor

EXIT_USER_ERROR = 2
"""Exit status after a mistake of the user's, as argparse has it."""

SMALLEST_SIDE = 32
"""Pixels of the shortest side of an image that FasterNet takes: its last map is at stride 32."""


class Parser(argparse.ArgumentParser):
    """Errors are one line; argparse's own would print the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f'{self.prog}: error: {message} (see {self.prog} --help)\n')


def command_parser(prog: str | None, description: str, epilog: str = '', usage: str | None = None) -> Parser:
    """A parser with what every command takes: ``--debug``.

    Args:
        prog: the command as it was called, such as 'fasternet-mm train'.
        description: what it does.
        epilog: examples, and what must be known.
        usage: instead of the one that argparse writes.
    """
    layout = argparse.RawDescriptionHelpFormatter
    result = Parser(prog=prog, description=description, epilog=epilog, usage=usage, formatter_class=layout)
    result.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return result


def add_config(result: argparse.ArgumentParser, without: str = '') -> None:
    """CONFIG and ``--cfg-options``.

    Args:
        result: it is changed.
        without: what happens without a CONFIG, for the help. Default: it is needed.
    """
    config = result.add_argument(
        'config',
        metavar='CONFIG',
        type=config_file,
        nargs='?' if without else None,
        help='a config file, or the name of one that comes with the package, such as mask_rcnn_fasternet_s' + without,
    )
    config.completer = configs_and_files
    add_cfg_options(result)


def add_model(result: argparse.ArgumentParser, without: str = '') -> None:
    """MODEL, which is a trained model, and how strictly it is loaded.

    Args:
        result: it is changed.
        without: what happens without a MODEL, for the help. Default: it is needed.
    """
    model = result.add_argument(
        'source',
        metavar='MODEL',
        type=existing_model,
        nargs='?' if without else None,
        help='work directory of a training, which needs nothing else; or a published model: '
        'mask_rcnn_fasternet_s_coco, or hf://user/name[@revision] on the Hugging Face hub; or a config (a file, or the '
        'name of one that comes with the package), followed by its CHECKPOINT' + without,
    )
    model.completer = configs_and_files
    add_cfg_options(result)
    result.add_argument(
        '--allow-mismatch',
        action='store_true',
        help='load what fits of a checkpoint, even where names of classes differ, and list the rest',
    )


def add_cfg_options(result: argparse.ArgumentParser) -> None:
    """``--cfg-options``."""
    result.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='change settings of the config, as in train_dataloader.batch_size=4 model.backbone.with_cp=True; '
        'lists as "[a,b]" in quotes',
    )


def configs_and_files(prefix: str, **_: object) -> list[str]:
    """What the Tab key gives for a config or a model."""
    from argcomplete.completers import FilesCompleter

    return [*config_names(), *FilesCompleter()(prefix)]


def predictor_of(args: argparse.Namespace, source: str, checkpoint: str | None, **settings: Any) -> Predictor:
    """The predictor of a model with the options of `add_model` and `add_engine`, and ``--device``.

    Args:
        args: the options.
        source, checkpoint: the model, see `Predictor`.
        settings: further arguments of `Predictor`.
    """
    from ..devices import tell_unused_gpu
    from ..inference.predictor import Predictor

    if args.device is None:
        tell_unused_gpu()
    return Predictor(
        source,
        checkpoint,
        args.device,
        allow_mismatch=args.allow_mismatch,
        optimize=not args.no_optimize,
        dtype=args.dtype,
        trust_program=args.trust_program,
        cfg_options=args.cfg_options,
        **settings,
    )


def add_checkpoint(result: argparse.ArgumentParser) -> None:
    """CHECKPOINT after a config."""
    result.add_argument(
        'checkpoint',
        metavar='CHECKPOINT',
        nargs='?',
        help='weights of exactly this model: a file, a URL, hf://user/name, or a published name (fasternet-mm weights '
        'list); '
        "default: the work directory's best, else its newest",
    )


def add_engine(result: argparse.ArgumentParser) -> None:
    """How a trained model is run, or an exported file in the checkpoint's place."""
    choice = result.add_mutually_exclusive_group()
    choice.add_argument(
        '--no-optimize',
        action='store_true',
        help='run the model as it was trained: slower, and the same but for rounding',
    )
    choice.add_argument(
        '--fp16',
        action='store_const',
        const='float16',
        dest='dtype',
        help='compute in float16 on a GPU: faster, less exact; not for exported files',
    )
    choice.add_argument(
        '--bf16',
        action='store_const',
        const='bfloat16',
        dest='dtype',
        help='compute in bfloat16 where the device can: faster, less exact; of exported files only with OpenVINO',
    )
    result.add_argument(
        '--trust-program',
        action='store_true',
        help="run an exported file of PyTorch's (.pt2, .torchscript), which can do anything that a program can",
    )


def add_size(result: argparse.ArgumentParser, help: str, **options: object) -> None:
    """``--size H W``, of images in pixels."""
    result.add_argument('--size', nargs=2, type=side, metavar=('H', 'W'), help=help, **options)


def add_tiles(result: argparse.ArgumentParser | argparse._ArgumentGroup, help: str) -> None:
    """``--tile H W`` and ``--overlap F``."""
    result.add_argument('--tile', nargs=2, type=side, metavar=('H', 'W'), help=help)
    result.add_argument(
        '--overlap',
        type=overlap,
        metavar='F',
        help='the part of a tile that it has in common with the next one, at least: objects up to that size are whole '
        'in one of the two; default: 0.2',
    )


def add_prediction_in_tiles(result: argparse.ArgumentParser) -> None:
    """The options of `add_tiles` for predictions, and ``--tile-whole``."""
    group = result.add_argument_group('large images with small objects')
    add_tiles(
        group,
        help='predict images that are larger than this height and width in tiles of so many pixels; objects at borders '
        'are put together (docs/tiles.md); default: as the model was trained with --data, else each image in one piece',
    )
    group.add_argument(
        '--tile-whole',
        action='store_true',
        help='also look for objects in the whole image, resized as without --tile: for those larger than a tile',
    )


def tiles_of(args: argparse.Namespace) -> dict[str, Any]:
    """What the options of tiles say, as arguments of ``Predictor``.

    Raises:
        UserError: there is no ``--tile`` for the other ones.
    """
    given = {name: getattr(args, name, None) for name in ('tile', 'overlap', 'tile_whole')}
    given = {name: value for name, value in given.items() if value}
    if given and not args.tile:
        raise UserError('--overlap and --tile-whole say how to use tiles: add their size, as in --tile 640 640')
    return given


def overlap(text: str) -> float:
    return _number(text, 0.05, 0.75, 'a share of the tile, from 0.05 to 0.75, as in 0.2')


def score(text: str) -> float:
    return _number(text, 0, 1, 'a number from 0 to 1, as in 0.5')


def _number(text: str, least: float, most: float, accepted: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f'{text}: give {accepted}')
    return number


def side(text: str) -> int:
    if not text.isdecimal() or int(text) < SMALLEST_SIDE:
        raise argparse.ArgumentTypeError(
            f'{text}: give height and width, whole numbers of pixels, each at least {SMALLEST_SIDE}, as in 800 1333'
        )
    return int(text)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text}: give a whole number, at least 1')
    return int(text)


def port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f'{text}: give a whole number from 0 to 65535')
    return int(text)


def config_file(config: str) -> str:
    try:
        return config_path(config)
    except UserError as error:
        folder = f'{config} is a folder, not a config: to train on the images in it, give --data {config}'
        raise argparse.ArgumentTypeError(folder if Path(config).is_dir() else str(error)) from None


def existing_model(path: str) -> str:
    """A folder or a file, or else the name of a packaged config, of a published model, or of one on the hub."""
    if Path(path).exists() or path.startswith('hf://'):
        return path
    try:
        return config_path(path)
    except UserError:
        from ..weights.catalog import TRAINED_MODELS  # with PyTorch, which no other name needs yet

        if path in TRAINED_MODELS:
            return path
        names = [*_beside(path), *config_names(), *TRAINED_MODELS]
        hint = nearest(path, names, 'give a work directory, a file, the name of a packaged config, or hf://user/name')
        raise argparse.ArgumentTypeError(f'{path} does not exist: {hint}') from None


def existing_file(path: str) -> str:
    if not Path(path).is_file():
        names = filter(os.path.isfile, _beside(path))
        raise argparse.ArgumentTypeError(f'{path} is not a file: {nearest(path, names, "give one that exists")}')
    return path


def _beside(path: str) -> list[str]:
    """What is in the folder that a path names, as far as it can be read."""
    try:
        return [str(entry) for entry in Path(path).parent.iterdir()]
    except OSError:
        return []
