"""Check a folder of your own data before training on it."""

import argparse
import sys

from .parsing import command_parser, score

SHOWN = 20
"""Problems of each kind that are printed: about a screen."""

EPILOG = f"""examples:
  fasternet-mm check-data my_data                        read every image and annotation, on all CPUs
  fasternet-mm check-data my_data --json problems.json   all problems, for other programs
  fasternet-mm check-data my_data --model work_dirs/mine --out-dir review
      also the labels that a trained detector speaks against: review/suspicious_labels.csv and .json list all labels,
      the most suspicious first, and review/relabel has the images of the suspicious ones, to be labeled anew

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
    labels = result.add_argument_group('suspicious labels')
    labels.add_argument(
        '--model', metavar='WORK_DIR', help='work directory of a detector, or an exported file, that judges the labels'
    )
    labels.add_argument(
        '--out-dir', metavar='DIR', help='folder of the list and of the set to relabel; default: suspicious_labels'
    )
    labels.add_argument(
        '--suspicion',
        type=score,
        default=0.5,
        metavar='S',
        help='images with a label of at least this suspicion, from 0 to 1, go into the set; default: 0.5',
    )
    return result


def main(args: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict
    from pathlib import Path

    from ..errors import UserError
    from ..files import check_writable, write_atomically
    from ..own_data.layouts.recognition import read_own_data
    from ..own_data.plan.data_checks import check_own_data
    from ..own_data.plan.summary import problem_list, summary_table

    if args.out_dir and not args.model:
        raise UserError('--out-dir is for the suspicious labels: give --model too')
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
    severe = any(problem.severe for problem in problems)
    if args.model:
        severe |= not judge_labels(data, args.model, args.out_dir or 'suspicious_labels', args.suspicion)
    sys.exit(int(severe))


def judge_labels(data, model: str, out_dir: str, suspicion: float) -> bool:
    """Print the most suspicious labels, and write all of them and the set to relabel.

    Returns:
        Whether all images could be predicted.

    Raises:
        UserError: the model cannot judge these labels, or the results cannot be written.
    """
    from pathlib import Path

    from ..errors import few
    from ..inference.predictor import Predictor
    from ..own_data.label_review import LIST, RELABEL, check_reviewable, review_labels, write_review

    predictor, broken = Predictor(model), []
    check_reviewable(data, predictor, out_dir)
    reviewed = review_labels(data, predictor, broken)
    images = write_review(data, reviewed, out_dir, suspicion)
    suspicious = [label for label in reviewed if label.suspect.suspicion >= suspicion]
    labels = sum(label.suspect.annotation is not None for label in reviewed)
    print(f'suspicious labels ({len(suspicious)}, from suspicion {suspicion:g} on; {labels} labels were judged)')
    for label in suspicious[:SHOWN]:
        print(f'  {label.suspect.suspicion:.2f} {label.image}: {label.suspect.describe(label.names)}')
    if len(suspicious) > SHOWN:
        print(f'  … and {len(suspicious) - SHOWN} more')
    print(f'all labels: {Path(out_dir, LIST)}.csv and .json')
    if images:
        counts = ', '.join(f'{count} of {split}' for split, count in images.items())
        print(f'to relabel: {Path(out_dir, RELABEL)} (images: {counts})')
    if broken:
        print(f'{len(broken)} images were left out with their labels: {few(broken, 10, "; ", counted=True)}')
    return not broken
