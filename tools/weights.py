"""List, inspect and convert checkpoints."""

import argparse
from pathlib import Path

from command_line import parser, run

EPILOG = """examples:
  python tools/weights.py list
  python tools/weights.py inspect fasternet_s_in1k            what it is, and which configs take it
  python tools/weights.py convert epoch_12.pth net.safetensors
      the weights alone, a third of a training checkpoint's size, in a format that cannot hold code

FILE is a file (.pth, .bin, .safetensors), a URL, or a name from the list; the last two are downloaded once.
"""
CONFIGS = Path(__file__).parent.parent / 'configs'


def arguments() -> argparse.ArgumentParser:
    result = parser('What was published, what a checkpoint is, and the same weights in another format.', EPILOG)
    jobs = result.add_subparsers(dest='job', required=True, metavar='list | inspect | convert')
    jobs.add_parser('list', help='what the authors of FasterNet published, and where it is')
    job = jobs.add_parser('inspect', help='layout, variant, tensors, and which configs a checkpoint loads into')
    job.add_argument('file', metavar='FILE')
    job.add_argument('--config', nargs='+', metavar='CONFIG', help='try these configs; default: all of configs/')
    job = jobs.add_parser('convert', help='write the weights alone, by our names, as .safetensors or .pth')
    job.add_argument('file', metavar='FILE')
    job.add_argument('out', metavar='OUT', help='ends in .safetensors or .pth')
    return result


def main(args: argparse.Namespace) -> None:
    dict(list=list_published, inspect=inspect_file, convert=convert_file)[args.job](args)


def list_published(args: argparse.Namespace) -> None:
    from terminaltables import AsciiTable

    from fasternet_mm.download import cache_path
    from fasternet_mm.weights.catalog import CATALOG

    rows = [('name', 'published figures, not reproduced here', 'config', 'downloaded')]
    for name, published in CATALOG.items():
        there = cache_path(published.url, published.file).is_file()
        rows.append((name, published.figures, published.config, 'yes' if there else 'no'))
    print(AsciiTable(rows).table)
    print(f'from {published.url.rpartition("/")[0]}/, kept in {cache_path(published.url).parent}')


def inspect_file(args: argparse.Namespace) -> None:
    from fasternet_mm.engine.checkpoint_inspection import inspect

    configs = args.config or sorted(map(str, [*CONFIGS.glob('*.py'), *CONFIGS.glob('shapes/*.py')]))
    for heading, text in inspect(args.file, configs):
        print(f'{heading:10}{text}')


def convert_file(args: argparse.Namespace) -> None:
    from fasternet_mm.weights.conversion import convert

    weights = convert(args.file, args.out)
    print(f'{args.out}: {len(weights.tensors)} tensors of {args.file} ({weights.layout})')


if __name__ == '__main__':
    run(main, arguments())
