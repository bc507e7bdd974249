"""Plot losses and metrics of trainings."""

import argparse

from command_line import parser, run

EPILOG = """examples:
  python tools/plot_log.py work_dirs/mask_rcnn_fasternet_s --out curves.png
  python tools/plot_log.py work_dirs/*s work_dirs/*m --out curves.svg            several trainings, compared
  python tools/plot_log.py work_dirs/a work_dirs/b --keys loss 'coco/*_mAP' --out curves.pdf

A training that was resumed is one curve. Losses are drawn lightly as logged and darkly as the mean of a twentieth of
the training; they can be looked at while it goes on.
"""


def arguments() -> argparse.ArgumentParser:
    result = parser('Plot losses, learning rate and validation metrics of one or several trainings.', EPILOG)
    result.add_argument(
        'runs', nargs='+', metavar='WORK_DIR', help='work directory of tools/train.py, or a scalars.json in it'
    )
    result.add_argument('--out', required=True, metavar='FILE', help='ends in .png, .svg or .pdf')
    result.add_argument(
        '--keys',
        nargs='+',
        default=[],
        metavar='KEY',
        help="scalars, with * for any characters, as in 'loss*' grad_norm 'coco/*_mAP'; "
        'default: losses, learning rate, metrics but those of single classes',
    )
    result.add_argument('--transparent', action='store_true', help='no white background')
    return result


def main(args: argparse.Namespace) -> None:
    from fasternet_mm.errors import UserError
    from fasternet_mm.report.plots import check_figure_path, write_figure
    from fasternet_mm.report.training_log import read_training_logs
    from fasternet_mm.report.training_plots import plot_page

    check_figure_path(args.out, '--out')
    page = plot_page(read_training_logs(args.runs), args.keys)
    try:
        write_figure(args.out, page, args.transparent)
    except OSError as error:
        raise UserError(f'--out {args.out} cannot be written ({error.strerror}): name another file') from error
    print(f'curves: {args.out}')


if __name__ == '__main__':
    run(main, arguments())
