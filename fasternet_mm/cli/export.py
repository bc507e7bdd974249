"""Write a trained model to a file that runs without this package."""

import argparse

from ..deployment.formats import FORMATS, all_suffixes, format_of, formats_with
from .parsing import add_checkpoint, add_model, add_size, command_parser

EPILOG = """examples:
  fasternet-mm export WORK_DIR --out model.onnx
  fasternet-mm export CONFIG CHECKPOINT --out model.onnx
  fasternet-mm export CONFIG CHECKPOINT --out model.xml --int8 holiday/
  fasternet-mm test CONFIG model.onnx                        the same metric for the exported file

A file takes uint8 images (N, 3, H, W), BGR as OpenCV reads them, of any number and size, and prepares them itself;
RTMDet's sizes must be multiples of 32. A detector gives, for all images together, boxes (K, 4), xyxy in pixels, scores
(K,), labels (K,), batch_indices (K,); Mask R-CNN also masks (K, 28, 28), probabilities over each box, and RTMDet-Ins
mask_logits (K, H / 8, W / 8), over the whole image. A segmenter gives labels (N, H, W) and its head's logits.
Under the key "fasternet_mm" the file describes its inputs, its outputs, its classes and its settings.

ONNX and OpenVINO files are safe to run, whoever made them. PyTorch's formats are programs: fasternet-mm runs such a
file only with --trust-program.
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(prog, 'Export a model, from image to boxes, masks or label maps, to one file.', EPILOG)
    add_model(result)
    add_checkpoint(result)
    result.add_argument('--format', choices=list(FORMATS), help='default: by the suffix of FILE')
    result.add_argument('--out', required=True, metavar='FILE', help=f'its suffix is one of {all_suffixes()}')
    result.add_argument('--backbone', action='store_true', help='export the backbone alone, whose outputs are its maps')
    result.add_argument(
        '--prepared',
        action='store_true',
        help='leave preparation out: the file takes float32 images that are normalized and padded',
    )
    add_size(result, help='take images of this height and width alone; default: of any size')
    small = result.add_mutually_exclusive_group()
    small.add_argument(
        '--fp16', action='store_true', help=f'store weights in float16, half the file ({formats_with("fp16")})'
    )
    small.add_argument(
        '--int8',
        nargs='+',
        default=[],
        metavar='IMAGES',
        help='compute in int8 on scales measured on these images, some hundreds of the kind to come '
        f'({formats_with("int8")})',
    )
    return result


def main(args: argparse.Namespace) -> None:
    from ..deployment.exporter import export

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
