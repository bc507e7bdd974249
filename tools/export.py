"""Write a trained model to a file that runs without this package."""

import argparse

from command_line import add_checkpoint, model_parser, run

EPILOG = """examples:
  python tools/export.py WORK_DIR --format onnx --out model.onnx
  python tools/export.py CONFIG CHECKPOINT --format onnx --out model.onnx
  python tools/export.py CONFIG CHECKPOINT --format openvino --out model.xml --int8 holiday/
  python tools/test.py CONFIG model.onnx                       the exported file in the checkpoint's place

A file takes uint8 images (N, 3, H, W), BGR as OpenCV reads them, of any number and size, and prepares them itself. A
detector gives, for all images together, boxes (K, 4), xyxy in pixels, scores (K,), labels (K,), batch_indices (K,),
and Mask R-CNN masks (K, 28, 28), probabilities over each box. A segmenter gives labels (N, H, W) and its head's logits.
Under the key "fasternet_mm" the file says what it takes and gives, its classes and its settings.

ONNX and OpenVINO files may come from anybody. PyTorch's formats are programs: tools run such a file only where
--trust-program says that it is to be trusted.
"""


def arguments() -> argparse.ArgumentParser:
    result = model_parser('Export a model, from image to boxes, masks or label maps, to one file.', EPILOG)
    add_checkpoint(result)
    result.add_argument('--format', choices=['onnx', 'openvino', 'torch-export', 'torchscript'])
    result.add_argument('--out', required=True, metavar='FILE', help='.onnx, .xml (with .bin), .pt2, .torchscript')
    result.add_argument('--backbone', action='store_true', help='the backbone alone: images to its maps')
    result.add_argument(
        '--prepared',
        action='store_true',
        help='leave preparation out: float32 images, normalized and padded, come in',
    )
    result.add_argument(
        '--size', nargs=2, type=int, metavar=('H', 'W'), help='take images of this size alone; default: of any size'
    )
    small = result.add_mutually_exclusive_group()
    small.add_argument('--fp16', action='store_true', help='store weights in float16: half the file (onnx, openvino)')
    small.add_argument(
        '--int8',
        nargs='+',
        default=[],
        metavar='IMAGES',
        help='compute in int8 on scales measured on these images, some hundreds of the kind to come (openvino)',
    )
    return result


def main(args: argparse.Namespace) -> None:
    from fasternet_mm.deployment.exporter import export
    from fasternet_mm.deployment.formats import format_of

    description = export(
        args.source,
        args.checkpoint,
        out=args.out,
        format=args.format,
        backbone_alone=args.backbone,
        prepared=args.prepared,
        size=args.size,
        fp16=args.fp16,
        calibration=args.int8,
        allow_mismatch=args.allow_mismatch,
        cfg_options=args.cfg_options,
    )
    files = format_of(args.out).files(args.out)
    print(f'exported: {" and ".join(map(str, files))} ({sum(file.stat().st_size for file in files) / 1e6:.1f} MB)')
    print(f'outputs:  {", ".join(description.outputs)}')


if __name__ == '__main__':
    run(main, arguments())
