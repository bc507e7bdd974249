"""Unpack and check COCO 2017 and ADE20K."""

import argparse

from .parsing import command_parser

EPILOG = """examples:
  fasternet-mm prepare coco ~/Downloads                    unpack what is not there yet, and check
  fasternet-mm prepare coco val2017.zip --out data/coco    the archives may come one at a time
  fasternet-mm prepare ade20k                              check the names and the number of the files

COCO's archives are
  http://images.cocodataset.org/zips/train2017.zip (18 GB)
  http://images.cocodataset.org/zips/val2017.zip (1 GB)
  http://images.cocodataset.org/annotations/annotations_trainval2017.zip (241 MB)
and that of ADE20K is
  http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip (0.9 GB)
ADE20K is for non-commercial research and education only. Whoever downloads it accepts its terms, so nothing is
downloaded here.
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(prog, 'Unpack a published data set for the configs, and check that it is complete.', EPILOG)
    # tools/prepare_coco.py names the data set itself.
    names = result.add_subparsers(
        dest='name', required=True, metavar='coco | ade20k', prog=prog if (prog or '').endswith('.py') else None
    )
    for name, title, folder in (('coco', 'COCO 2017', 'data/coco'), ('ade20k', 'ADE20K', 'data/ade')):
        data_set = names.add_parser(name, help=f'{title}, for the configs in {folder}')
        data_set.add_argument('archives', nargs='*', metavar='ARCHIVE', help='the archives, or folders they are in')
        data_set.add_argument(
            '--out', default=folder, metavar='DIR', help=f'default: {folder}, where the configs look for it'
        )
    return result


def main(args: argparse.Namespace) -> None:
    from ..datasets.archives import ADE20K, COCO, prepare

    data_set, contents = {
        'coco': (COCO, 'all of COCO 2017, every image that is annotated'),
        'ade20k': (ADE20K, 'all of ADE20K, each image with its label map'),
    }[args.name]
    unpacked = prepare(data_set, args.archives, args.out)
    print(f'{args.out} has {contents}; {unpacked} files were unpacked now')
