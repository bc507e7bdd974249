"""Find objects, or label pixels, in images and videos."""

import argparse

from ..annotation_formats import FORMAT_NAMES
from .parsing import (
    add_engine,
    add_model,
    add_prediction_in_tiles,
    command_parser,
    positive,
    predictor_of,
    score,
    tiles_of,
)

EPILOG = """examples:
  fasternet-mm predict WORK_DIR street.jpg holiday/               a model that fasternet-mm train made
  fasternet-mm predict CONFIG CHECKPOINT "holiday/**/*.jpg" --classes person dog --save-crops
  fasternet-mm predict model.onnx https://example.org/street.jpg  a file that fasternet-mm export wrote
  fasternet-mm predict WORK_DIR drive.mp4 --out-dir results       results/drive.mp4 is the video with drawings
  fasternet-mm predict WORK_DIR new_images/ --format labelme --score-thr 0.5
      also writes predictions/labelme: the images with what was found as annotations, to correct in a labeling tool
  fasternet-mm predict WORK_DIR map.tif --tile 640 640           an image larger than a tile, tile by tile
  fasternet-mm predict WORK_DIR camera                            until Ctrl-C; camera:1 is the second camera
  fasternet-mm predict WORK_DIR rtsp://user:password@192.168.1.10/live --track --count-line 0 0.5 1 0.5

The folder of the results gets a drawing of each image and video. A detector adds results.json: all detections in COCO's
results format, those too that are not drawn. A segmenter adds labels/*.png, whose pixels are the numbers of classes.
--track gives the objects of videos numbers that they keep from frame to frame, and adds tracks.csv and counts.json.
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(
        prog,
        'Find objects, or label pixels, in images and videos with a trained model.',
        EPILOG,
        usage='%(prog)s [options] (WORK_DIR | CONFIG CHECKPOINT | EXPORTED_FILE) IMAGES [IMAGES ...]',
    )
    add_model(result)
    result.add_argument(
        'images',
        metavar='IMAGES',
        nargs='+',
        help='image files, videos, folders of them, patterns in quotes, URLs of images, camera, or rtsp:// and http:// '
        'addresses of videos (stream:URL where an http URL does not end like a video)',
    )
    add_engine(result)
    result.add_argument(
        '--out-dir', default='predictions', metavar='DIR', help='folder of the results; default: predictions'
    )
    result.add_argument(
        '--score-thr',
        type=score,
        default=0.3,
        help='draw detections, and write them as annotations, from this score; default: 0.3',
    )
    result.add_argument('--classes', nargs='+', default=[], metavar='NAME', help='only these classes; default: all')
    result.add_argument(
        '--save-crops', action='store_true', help='also write each object that is drawn to crops/CLASS/NAME-N.jpg'
    )
    result.add_argument(
        '--json', metavar='FILE', help='file of the detections; default: results.json in the folder of the results'
    )
    result.add_argument(
        '--format',
        choices=FORMAT_NAMES,
        dest='annotation_format',
        help='also write copies of the images and what is drawn as annotations, for labeling tools, to a new folder '
        'of this name in the folder of the results',
    )
    result.add_argument(
        '--track',
        action='store_true',
        help='number the objects of videos from frame to frame, and count them: tracks.csv, counts.json',
    )
    result.add_argument(
        '--count-line',
        nargs=4,
        type=float,
        action='append',
        default=[],
        metavar=('X1', 'Y1', 'X2', 'Y2'),
        help='count what crosses this line to each side, as --track does: in pixels, or where none is above 1 in '
        "fractions of the image's width and height; may be given several times",
    )
    result.add_argument(
        '--batch-size',
        type=positive,
        default=1,
        metavar='N',
        help='images that go through the network together; default: 1, which needs least memory',
    )
    add_prediction_in_tiles(result)
    result.add_argument('--device', help='cuda, cuda:1 or cpu; default: a GPU where there is one')
    return result


def main(args: argparse.Namespace) -> None:
    from ..errors import UserError
    from ..extras import require
    from ..inference.inputs import find_inputs
    from ..inference.output_folder import predict_to_folder

    checkpoint, images = None, args.images
    if args.source.endswith('.py'):
        checkpoint, *images = args.images
        if not images:
            raise UserError(f'{args.source} is a config: give its checkpoint and then images, not {checkpoint} alone')
    sources = find_inputs(images, args.out_dir)
    if args.track or args.count_line:
        require('trackers', '--track')
    predictor = predictor_of(args, args.source, checkpoint, batch_size=args.batch_size, **tiles_of(args))
    predict_to_folder(
        predictor,
        sources,
        args.out_dir,
        args.score_thr,
        args.classes,
        args.save_crops,
        args.json,
        args.annotation_format,
        track=args.track or bool(args.count_line),
        count_lines=args.count_line,
    )
