"""Check a folder of your own data before training on it."""

import argparse
import sys

from command_line import parser, run

SHOWN = 20
EPILOG = f"""examples:
  python tools/check_data.py my_data                    read every image and annotation, on all CPUs
  python tools/check_data.py my_data --json found.json  all problems, for other programs

The layout is found by itself: COCO, VIA or LabelMe JSON, Pascal VOC XML, YOLO with a data.yaml, or images and label
maps. docs/your-own-data.md shows them all, and says what each problem means. Images that were sound are remembered, and
not decoded again until they change.

The first {SHOWN} problems of each kind are shown. The status is 1 where some must be mended before training, 0 where
none must, 2 where the data could not be read at all.
"""


def arguments() -> argparse.ArgumentParser:
    result = parser('Check your own data: every image and annotation.', EPILOG)
    result.add_argument('data', metavar='DIR', help='the folder that has the images and their annotations')
    result.add_argument(
        '--kind',
        choices=['objects', 'label-maps'],
        help='what to check where a folder has both; default: objects, or label maps where there are no objects',
    )
    result.add_argument('--json', metavar='FILE', help='write all problems to this file')
    return result


def main(args: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict
    from pathlib import Path

    from fasternet_mm.files import check_writable, write_atomically
    from fasternet_mm.own_data.layouts.recognition import read_own_data
    from fasternet_mm.own_data.plan.data_checks import check_own_data
    from fasternet_mm.own_data.plan.summary import problem_list, summary_table

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


if __name__ == '__main__':
    run(main, arguments())
