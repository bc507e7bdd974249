"""Check a folder of your own data before training on it."""

import argparse
import sys

from .parsing import command_parser

SHOWN = 20
"""Problems of each kind that are printed: about a screen."""

EPILOG = f"""examples:
  fasternet-mm check-data my_data                        read every image and annotation, on all CPUs
  fasternet-mm check-data my_data --json problems.json   all problems, for other programs

The layout is recognized: COCO, VIA or LabelMe JSON, Pascal VOC XML, YOLO with a data.yaml, or images and label maps.
docs/your-own-data.md shows them all, and explains each problem. Images without problems are remembered, and not
decoded again until they change.

The first {SHOWN} problems of each kind are shown. The exit status is 1 where some must be mended before training, 0
where none must, and 2 where the data could not be read at all.
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(prog, 'Check your own data: every image and annotation.', EPILOG)
    result.add_argument('data', metavar='DIR', help='folder of the images and their annotations')
    result.add_argument(
        '--kind',
        choices=['objects', 'label-maps'],
        help='what to check where a folder has both; default: objects, else label maps',
    )
    result.add_argument('--json', metavar='FILE', help='write all problems to this file')
    return result


def main(args: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict
    from pathlib import Path

    from ..files import check_writable, write_atomically
    from ..own_data.layouts.recognition import read_own_data
    from ..own_data.plan.data_checks import check_own_data
    from ..own_data.plan.summary import problem_list, summary_table

    if args.json:
        check_writable(Path(args.json).parent)
    data = read_own_data(args.data, {None: None, 'objects': True, 'label-maps': False}[args.kind])
    print(summary_table(data))
    problems = check_own_data(data).problems
    print(problem_list(problems, SHOWN))
    if args.json:
        records = [{**asdict(problem), 'kind': problem.kind.title, 'severe': problem.severe} for problem in problems]
        write_atomically(args.json, json.dumps(records, indent=1).encode())
        print(f'all problems: {args.json}')
    sys.exit(int(any(problem.severe for problem in problems)))
