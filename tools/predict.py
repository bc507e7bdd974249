"""Find objects, or label pixels, in images and videos."""

import argparse

from command_line import add_engine, model_parser, positive, run

EPILOG = """examples:
  python tools/predict.py WORK_DIR street.jpg holiday/              what tools/train.py left in its work directory
  python tools/predict.py CONFIG CHECKPOINT "holiday/**/*.jpg" --classes person dog --save-crops
  python tools/predict.py model.onnx https://example.org/street.jpg what tools/export.py wrote
  python tools/predict.py WORK_DIR drive.mp4 --out-dir found        found/drive.mp4 is the video with drawings
  python tools/predict.py WORK_DIR camera                           until Ctrl-C; camera:1 is the second one

The folder of the results gets a drawing of each image and video. A detector adds results.json, all detections in
COCO's results format, whatever is drawn; a segmenter adds labels/*.png, each pixel the number of its class.
"""


def arguments() -> argparse.ArgumentParser:
    result = model_parser(
        'Find objects, or label pixels, in images and videos with a trained model.',
        EPILOG,
        usage='predict.py [options] (WORK_DIR | CONFIG CHECKPOINT | EXPORTED_FILE) IMAGES [IMAGES ...]',
    )
    result.add_argument(
        'images',
        metavar='IMAGES',
        nargs='+',
        help='image files, videos, folders of them, patterns in quotes, URLs of images, camera',
    )
    add_engine(result)
    result.add_argument('--out-dir', default='predictions', metavar='DIR', help='of the results; default: predictions')
    result.add_argument('--score-thr', type=float, default=0.3, help='draw detections from this score; default: 0.3')
    result.add_argument('--classes', nargs='+', default=[], metavar='NAME', help='only these classes; default: all')
    result.add_argument(
        '--save-crops', action='store_true', help='also write each object that is drawn to crops/CLASS/NAME-N.jpg'
    )
    result.add_argument('--json', metavar='FILE', help='detections; default: results.json in the folder of the results')
    result.add_argument('--batch-size', type=positive, default=1, metavar='N', help='images at a time; default: 1')
    result.add_argument('--device', help="'cuda', 'cuda:1', 'cpu'; default: a GPU when there is one")
    return result


def main(args: argparse.Namespace) -> None:
    from fasternet_mm.errors import UserError
    from fasternet_mm.inference.inputs import find_inputs
    from fasternet_mm.inference.output_folder import predict_to_folder
    from fasternet_mm.inference.predictor import Predictor

    checkpoint, images = None, args.images
    if args.source.endswith('.py'):
        checkpoint, *images = args.images
        if not images:
            raise UserError(f'after a config come its checkpoint and then images, but only {checkpoint} came')
    sources = find_inputs(images, args.out_dir)
    predictor = Predictor(
        args.source,
        checkpoint,
        args.device,
        batch_size=args.batch_size,
        allow_mismatch=args.allow_mismatch,
        optimize=not args.no_optimize,
        bf16=args.bf16,
        trust_program=args.trust_program,
        cfg_options=args.cfg_options,
    )
    predict_to_folder(predictor, sources, args.out_dir, args.score_thr, args.classes, args.save_crops, args.json)


if __name__ == '__main__':
    run(main, arguments())
