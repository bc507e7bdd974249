"""Unpack and check COCO 2017."""

import argparse

from command_line import parser, run

EPILOG = """examples:
  python tools/prepare_coco.py ~/Downloads                    unpack what is not there yet, and check
  python tools/prepare_coco.py val2017.zip --out data/coco    one archive at a time will do
  python tools/prepare_coco.py                                check the names and the number of the files

The archives are
  http://images.cocodataset.org/zips/train2017.zip (18 GB)
  http://images.cocodataset.org/zips/val2017.zip (1 GB)
  http://images.cocodataset.org/annotations/annotations_trainval2017.zip (241 MB)
"""


def arguments() -> argparse.ArgumentParser:
    result = parser('Unpack COCO 2017 for the configs, and check that it is complete.', EPILOG)
    result.add_argument('archives', nargs='*', metavar='ARCHIVE', help='the archives, or folders they are in')
    result.add_argument('--out', default='data/coco', metavar='DIR', help='default: data/coco, which the configs read')
    return result


def main(args: argparse.Namespace) -> None:
    from fasternet_mm.datasets.archives import COCO, prepare

    unpacked = prepare(COCO, args.archives, args.out)
    print(f'{args.out} has all of COCO 2017, every image that is annotated; {unpacked} files were unpacked now')


if __name__ == '__main__':
    run(main, arguments())
