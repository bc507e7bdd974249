"""Unpack and check ADE20K."""

import argparse

from command_line import parser, run

EPILOG = """examples:
  python tools/prepare_ade20k.py ADEChallengeData2016.zip     unpack what is not there yet, and check
  python tools/prepare_ade20k.py                              check the names and the number of the files

The archive is http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip (0.9 GB). ADE20K is for
non-commercial research and education only; who downloads it accepts its terms, so this tool does not download it.
"""


def arguments() -> argparse.ArgumentParser:
    result = parser('Unpack ADE20K (ADEChallengeData2016) for the configs, and check that it is complete.', EPILOG)
    result.add_argument('archive', nargs='?', metavar='ARCHIVE', help='ADEChallengeData2016.zip, or its folder')
    result.add_argument('--out', default='data/ade', metavar='DIR', help='default: data/ade, which the configs read')
    return result


def main(args: argparse.Namespace) -> None:
    from fasternet_mm.datasets.archives import ADE20K, prepare

    unpacked = prepare(ADE20K, [args.archive] if args.archive else [], args.out)
    print(f'{args.out} has all of ADE20K, each image with its label map; {unpacked} files were unpacked now')


if __name__ == '__main__':
    run(main, arguments())
