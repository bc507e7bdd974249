"""List, inspect and convert checkpoints."""

import argparse

from ..engine.packaged_configs import config_names
from .parsing import command_parser

EPILOG = """examples:
  fasternet-mm weights list
  fasternet-mm weights inspect fasternet_s_in1k            what it is, and which configs take it
  fasternet-mm weights convert epoch_12.pth net.safetensors
      the weights alone, a third of a training checkpoint's size, in a format that cannot hold code

FILE is a file (.pth, .bin, .safetensors), a URL, or a name from the list; what a URL or a name stands for is
downloaded once.
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(
        prog, 'What was published, what a checkpoint is, and the same weights in another format.', EPILOG
    )
    jobs = result.add_subparsers(required=True, metavar='list | inspect | convert')
    job = jobs.add_parser('list', help='what the authors of FasterNet published, and what is downloaded already')
    job.set_defaults(do=list_published)
    job = jobs.add_parser('inspect', help='layout, variant, tensors, and which configs a checkpoint loads into')
    job.add_argument('file', metavar='FILE')
    job.add_argument(
        '--config',
        nargs='+',
        metavar='CONFIG',
        help='try these, and say why one does not fit; default: all that come with the package',
    )
    job.set_defaults(do=inspect_file)
    job = jobs.add_parser('convert', help='write the weights alone, under names of FasterNet, as .safetensors or .pth')
    job.add_argument('file', metavar='FILE')
    job.add_argument('out', metavar='OUT', help='ends in .safetensors or .pth')
    job.set_defaults(do=convert_file)
    return result


def main(args: argparse.Namespace) -> None:
    args.do(args)


def list_published(args: argparse.Namespace) -> None:
    from terminaltables import AsciiTable

    from ..download import cache_path
    from ..weights.catalog import CATALOG

    rows = [('name', 'published figures, not reproduced here', 'config', 'downloaded')]
    for name, published in CATALOG.items():
        there = cache_path(published.url, published.file).is_file()
        rows.append((name, published.figures, published.config, 'yes' if there else 'no'))
    print(AsciiTable(rows).table)
    print(f'from {published.url.rpartition("/")[0]}/, kept in {cache_path(published.url).parent}')


def inspect_file(args: argparse.Namespace) -> None:
    from ..engine.checkpoint_inspection import inspect
    from ..engine.terminal import shorten

    shorten()
    configs = args.config or [name for name in config_names() if not name.startswith('peers/')]
    for heading, text in inspect(args.file, configs, reasons=args.config is not None):
        print(f'{heading:10}{text}')


def convert_file(args: argparse.Namespace) -> None:
    from ..weights.conversion import convert

    weights = convert(args.file, args.out)
    print(f'{args.out}: {len(weights.tensors)} tensors of {args.file} ({weights.layout})')
