"""A report of predictions, as one HTML file."""

import argparse
from pathlib import Path

from .parsing import command_parser, existing_file

EPILOG = """examples:
  fasternet-mm report results.json data/coco/annotations/instances_val2017.json --images data/coco/val2017
      detections: COCO results of any model, as "fasternet-mm test --out" writes them
  fasternet-mm report label_maps/ data/ade/ADEChallengeData2016/annotations/validation --reduce-zero-label
      label maps: two folders of PNGs, with the same names in the same subfolders
  fasternet-mm report results.json val.json --work-dir work_dirs/mask_rcnn_fasternet_s
      also the curves of the training

The page shows the figures per class and per size of object, which classes are confused, which kinds of errors cost
most, the best score threshold, and the images that cost most. "fasternet-mm test --report" writes it after a test.
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(prog, 'Write a report of predictions, one HTML file that needs no network.', EPILOG)
    result.add_argument('predictions', help='a COCO results file, or a folder of label maps')
    result.add_argument('truth', help='the COCO annotations, or the folder of the true label maps')
    result.add_argument('--out', default='report.html', metavar='FILE', help='default: report.html')
    result.add_argument('--images', metavar='DIR', help='folder of the images; default: no images are drawn')
    result.add_argument(
        '--work-dir', metavar='DIR', help='work directory of the training, whose curves are shown; default: no curves'
    )
    result.add_argument('--title', help="title of the page; default: the predictions' name")
    labels = result.add_argument_group('label maps')
    labels.add_argument(
        '--classes',
        type=existing_file,
        metavar='FILE',
        help='text file with a name in each line, in the order of the labels; default: numbers are shown',
    )
    labels.add_argument(
        '--ignore',
        type=int,
        default=255,
        metavar='LABEL',
        help='pixels of this true label do not count; default: 255, the custom of label maps',
    )
    labels.add_argument(
        '--reduce-zero-label',
        action='store_true',
        help='label 0 does not count, and classes begin with 1, as in ADE20K',
    )
    return result


def main(args: argparse.Namespace) -> None:
    from ..errors import UserError
    from ..files import check_writable
    from ..report.page import training_plots

    predictions, truth = Path(args.predictions), Path(args.truth)
    for path in (predictions, truth):
        if not path.exists():
            raise UserError(f'{path} does not exist: give predictions first, then the truth')
    if predictions.is_dir() != truth.is_dir():
        raise UserError(
            f'{predictions} and {truth} do not belong together: give two JSON files, or two folders of label maps'
        )
    check_writable(str(Path(args.out).parent))
    options = dict(
        training=training_plots(args.work_dir) if args.work_dir else [], title=args.title or predictions.name
    )
    if predictions.is_dir():
        report_label_maps(args, options)
    else:
        from ..report.detection_report import write_detection_report

        write_detection_report(args.out, predictions, truth, images=args.images, **options)
    print(f'report: {args.out}')


def report_label_maps(args: argparse.Namespace, options: dict) -> None:
    from ..datasets.image_files import IMAGE_SUFFIXES
    from ..report import label_map_errors
    from ..report.segmentation_report import write_segmentation_report

    names = label_map_errors.find_label_maps(args.predictions)
    true_names = label_map_errors.find_label_maps(args.truth)
    left_out = sorted({*true_names} - {*names})
    if left_out:
        print(
            f'{len(left_out)} of {len(true_names)} label maps in {args.truth} do not count: {args.predictions} has no '
            f'{left_out[0]}.png'
        )
    maps = label_map_errors.LabelMapPairs(
        predictions=label_map_errors.find_same_names(names, args.predictions, ['.png']),
        truths=label_map_errors.find_same_names(names, args.truth, ['.png']),
        images=label_map_errors.find_same_names(names, args.images, IMAGE_SUFFIXES) if args.images else [],
        classes=[],
        ignored=args.ignore,
        reduce_zero_label=args.reduce_zero_label,
    )
    maps.classes = (
        Path(args.classes).read_text('utf-8-sig').splitlines()
        if args.classes
        else label_map_errors.number_classes(maps)
    )
    write_segmentation_report(args.out, maps, **options)
