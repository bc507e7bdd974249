"""Find objects in pictures."""

import argparse

from command_line import add_checkpoint, add_engine, config_parser, run

EPILOG = """examples:
  python tools/predict.py CONFIG CHECKPOINT street.jpg holiday/ --out-dir found
      found/street.jpg and found/holiday/*.jpg are drawings; found/results.json has the detections in COCO's format
  python tools/predict.py CONFIG model.onnx street.jpg --out-dir found      what tools/export.py wrote
"""


def arguments() -> argparse.ArgumentParser:
    result = config_parser('Find objects in pictures with a trained model.', EPILOG)
    add_checkpoint(result)
    add_engine(result)
    result.add_argument('pictures', nargs='+', help='picture files, and folders of them')
    result.add_argument('--out-dir', required=True, metavar='DIR', help='folder of the drawings and of results.json')
    result.add_argument('--score-thr', type=float, default=0.3, help='draw detections from this score; default: 0.3')
    result.add_argument('--device', help="'cuda', 'cuda:1', 'cpu'; default: a GPU when there is one")
    return result


def main(args: argparse.Namespace) -> None:
    from fasternet_mm.engine.config import load_config
    from fasternet_mm.inference.pictures import find_pictures, predict_pictures
    from fasternet_mm.inference.predictor import Predictor

    pictures = find_pictures(args.pictures)
    predictor = Predictor(
        load_config(args.config, args.cfg_options),
        args.checkpoint,
        args.device,
        args.allow_mismatch,
        optimized=not args.no_optimize,
        bf16=args.bf16,
        trusted=args.trust_program,
    )
    predict_pictures(predictor, pictures, args.out_dir, args.score_thr)


if __name__ == '__main__':
    run(main, arguments())
