"""Plot losses and metrics of trainings."""

import argparse

from .parsing import command_parser

EPILOG = """examples:
  fasternet-mm plot-log work_dirs/mask_rcnn_fasternet_s --out curves.png
  fasternet-mm plot-log work_dirs/*s work_dirs/*m --out curves.svg            several trainings, compared
  fasternet-mm plot-log work_dirs/a work_dirs/b --keys loss 'coco/*_mAP' --out curves.pdf

A training that was resumed is one curve. Losses are drawn twice: lightly as logged, and darkly as the running mean of a
twentieth of the training. A training need not be finished.
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(
        prog, 'Plot losses, learning rate and validation metrics of one or several trainings.', EPILOG
    )
    result.add_argument(
        'runs', nargs='+', metavar='WORK_DIR', help='work directory of a training, or a scalars.json in it'
    )
    result.add_argument('--out', required=True, metavar='FILE', help='ends in .png, .svg or .pdf')
    result.add_argument(
        '--keys',
        nargs='+',
        default=[],
        metavar='KEY',
        help="what to plot, with * for any characters, as in 'loss*' grad_norm 'coco/*_mAP'; "
        'default: losses, learning rate, and all metrics except those of single classes',
    )
    result.add_argument('--transparent', action='store_true', help='leave the background transparent; default: white')
    return result


def main(args: argparse.Namespace) -> None:
    from ..errors import UserError
    from ..report.plots import check_figure_path, write_figure
    from ..report.training_log import read_training_logs
    from ..report.training_plots import plot_page

    check_figure_path(args.out, '--out')
    page = plot_page(read_training_logs(args.runs), args.keys)
    try:
        write_figure(args.out, page, args.transparent)
    except OSError as error:
        raise UserError(f'--out {args.out} cannot be written ({error.strerror}): name another file') from error
    print(f'curves: {args.out}')
