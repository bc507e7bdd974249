"""Write annotated images in another format."""

import argparse

from ..annotation_formats import FORMAT_NAMES
from .parsing import command_parser

SHOWN = 5
"""Problems of each kind that are printed; check-data shows them all."""

EPILOG = """examples:
  fasternet-mm convert my_data my_coco --to coco             for CVAT and COCO's API
  fasternet-mm convert my_data my_yolo --to yolo             data.yaml, images/ and labels/
  fasternet-mm convert my_data my_labelme --to labelme       a JSON file beside each image, to correct in LabelMe
  fasternet-mm convert my_data my_voc --to voc --link        Annotations/, JPEGImages/ and ImageSets/, without copies
  fasternet-mm convert my_outlines my_maps --to label-maps   the class of each pixel, for semantic segmentation

DIR has any layout of docs/your-own-data.md; train, val and test stay what they are. OUT is a new folder outside of
DIR, which appears when all of it is written. What could not be read of DIR, and what the format cannot hold, is told
with its number. docs/labeling.md has a table of what each format holds.
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(prog, 'Write your own data, images and annotations, in another format.', EPILOG)
    result.add_argument('data', metavar='DIR', help='folder of the images and their annotations')
    result.add_argument('out', metavar='OUT', help='new folder for the same data in the other format')
    result.add_argument('--to', required=True, choices=FORMAT_NAMES, help='the format to write')
    result.add_argument(
        '--kind',
        choices=['objects', 'label-maps'],
        help='what to read where DIR has both; default: objects, else label maps',
    )
    result.add_argument(
        '--link',
        action='store_true',
        help="make hard links to the images' files, which take no room, instead of copies; then a program that changes "
        'an image in OUT changes that in DIR',
    )
    return result


def main(args: argparse.Namespace) -> None:
    from pathlib import Path

    from ..annotation_formats.writing import losses, refuse_full
    from ..own_data.format_conversion import convert, refuse_nested
    from ..own_data.layouts.recognition import read_own_data
    from ..own_data.plan.summary import problem_list, summary_table

    refuse_nested(args.data, args.out)
    refuse_full(Path(args.out))
    data = read_own_data(args.data, {None: None, 'objects': True, 'label-maps': False}[args.kind])
    print(summary_table(data))
    print(problem_list(data.problems, SHOWN))
    writer = convert(data, args.out, args.to, args.link)
    counts = ', '.join(f'{count} {split}' for split, count in writer.images.items())
    print(f'written:    {args.out} ({writer.title}; images: {counts})')
    if any(problem.severe for problem in data.problems):
        print('left out:   what has the problems above; fasternet-mm check-data lists all of them')
    print('\n'.join(losses(writer) or ['not kept:   nothing; the format holds all of it']))
