"""Evaluate detections in a COCO results file, without a model."""

import argparse

from .parsing import command_parser, existing_file

EPILOG = """examples:
  fasternet-mm evaluate results.json data/coco/annotations/instances_val2017.json
  fasternet-mm evaluate results.json val.json --metric segm --classwise
  fasternet-mm evaluate results.json val.json --out figures.json     unrounded, for other programs

The results may be any model's, as "fasternet-mm test --out" writes them: a JSON list of detections, each with
"image_id", "category_id", "score" and "bbox": [x, y, width, height], for masks "segmentation" as RLE.
The figures equal those of pycocotools.
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(prog, 'Evaluate a COCO results file against COCO annotations.', EPILOG)
    result.add_argument('results', type=existing_file, metavar='RESULTS.json', help='detections of any model')
    result.add_argument('annotations', type=existing_file, metavar='ANNOTATIONS.json', help='COCO annotations')
    result.add_argument(
        '--metric',
        nargs='+',
        choices=['bbox', 'segm', 'proposal'],
        help='default: bbox and segm, as far as the results have boxes and masks',
    )
    result.add_argument('--classwise', action='store_true', help='also the AP of each class')
    result.add_argument('--out', metavar='FILE', help='write all figures to this JSON file')
    return result


def main(args: argparse.Namespace) -> None:
    import json

    from ..evaluation.coco_evaluation import evaluate
    from ..evaluation.coco_results import read_results
    from ..evaluation.coco_truth import read_truth
    from ..evaluation.table import class_table, metric_table
    from ..files import write_atomically

    truth = read_truth(args.annotations)
    results = read_results(args.results, truth)
    figures = evaluate(results, truth, args.metric, args.classwise)
    print(metric_table({f'coco/{task}_{name}': v for task, values in figures.items() for name, v in values.items()}))
    empty = len(truth.sizes) - len(set(results.image_ids.tolist()))
    if empty:
        print(f'{empty:,} of {len(truth.sizes):,} images have no detections in {args.results}')
    if args.classwise:
        for task, values in figures.items():
            print(class_table(task, values['classes']))
    if args.out:
        write_atomically(args.out, json.dumps(figures, indent=1).encode())
        print(f'figures: {args.out}')
