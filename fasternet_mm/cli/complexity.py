"""Parameters and multiply-adds."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from .parsing import add_size, command_parser, config_file, configs_and_files, positive

EPILOG = """examples:
  fasternet-mm complexity                                   every variant, beside the figures of the paper
  fasternet-mm complexity mask_rcnn_fasternet_s
  fasternet-mm complexity upernet_fasternet_s peers/upernet_swin_tiny --size 512 2048

GMACs are billions of multiply-adds, of convolutions and matrix products; papers often call them FLOPs. Auxiliary heads
are used in training alone: their parameters count, their multiply-adds do not. In a two-stage detector 1000 regions go
through the box head and 100 through the mask head, whatever the image, as MMDetection's get_flops counts.
"""
DETECTOR_SIZE, SEGMENTER_SIZE = (800, 1280), (512, 512)
"""Height and width in pixels for which papers state the complexity, where a config pads its images to no fixed size."""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(
        prog, 'Count parameters and multiply-adds of all variants, or of models by their configs.', EPILOG
    )
    configs = result.add_argument(
        'config',
        metavar='CONFIG',
        nargs='*',
        type=config_file,
        help='files, or names of packaged configs; default: every variant, with the figures of the paper',
    )
    configs.completer = configs_and_files
    add_size(
        result,
        help='height and width of the image; default: those that the config pads images to, as RTMDet 640 640, '
        'else 800 1280 for detectors, 512 512 for segmenters',
    )
    result.add_argument(
        '--proposals',
        type=positive,
        help='regions that go through the box head of a two-stage detector; default: 1000',
    )
    return result


def main(args: argparse.Namespace) -> None:
    if args.config:
        print_table([('config', 'parameters', 'GMACs', 'at')] + [row_of_config(path, args) for path in args.config])
        return
    for rows in (classifiers(), detectors(args), segmenters(args)):
        print_table(rows)
        print()


def row_of_config(path: str, args: argparse.Namespace) -> tuple:
    counted, size = count(path, args, args.size)
    return Path(path).stem, millions(counted.parameters), billions(counted.macs, 1), size_text(size)


def count(path: str, args: argparse.Namespace, size: Sequence[int] | None = None) -> tuple:
    """The complexity of a config's model, and the size of image that it is for."""
    from ..datasets.padded_size import padded_size
    from ..engine.config import load_config
    from ..engine.runner import build_model
    from ..errors import UserError
    from ..models.multiply_adds import PROPOSALS, complexity

    cfg = load_config(path)
    kind = cfg.get('model', {}).get('type')
    cfg.setdefault('default_scope', 'mmseg' if kind == 'EncoderDecoder' else 'mmdet')
    size = size or padded_size(cfg) or (SEGMENTER_SIZE if kind == 'EncoderDecoder' else DETECTOR_SIZE)
    model = build_model(cfg)
    if args.config and args.proposals and not hasattr(model, 'roi_head'):
        raise UserError(
            f'--proposals {args.proposals} is for two-stage detectors, and the model of {path}, a {kind}, has one '
            'stage: leave it out'
        )
    try:
        return complexity(model, *size, args.proposals or PROPOSALS), size
    except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
        accepted = 'a segmenter (EncoderDecoder), or a detector of one stage or of two'
        raise UserError(f'the model of {path}, a {kind}, cannot be counted: give the config of {accepted}') from error


def classifiers() -> list[tuple]:
    import torch

    from ..models.classifier import FasterNetClassifier
    from ..models.multiply_adds import complexity
    from ..models.published import CLASSIFIERS

    rows = [('ImageNet classifier', 'parameters', 'paper', 'GMACs at 224x224', 'paper', 'difference')]
    for arch, paper in CLASSIFIERS.items():
        with torch.device('meta'):
            net = FasterNetClassifier(arch)
        counted = complexity(net, 224, 224)
        difference = f'{round(counted.macs / paper.gmacs / 1e7 - 100, 1) + 0:+} %'
        parameters = millions(counted.parameters, 2), f'{paper.parameters} M'
        macs = billions(counted.macs, 3), f'{paper.gmacs:.2f}'
        rows.append((f'FasterNet-{arch.upper()}', *parameters, *macs, difference))
    return rows


def detectors(args: argparse.Namespace) -> list[tuple]:
    from ..models.published import CLASSIFIERS, MASK_RCNN

    size = args.size or DETECTOR_SIZE
    rows = [('Mask R-CNN', 'parameters', 'paper', f'GMACs at {size_text(size)}', 'paper at 800x1280')]
    for arch in CLASSIFIERS:
        counted, _ = count(f'mask_rcnn_fasternet_{arch}', args, size)
        paper = MASK_RCNN.get(arch)
        published = (f'{paper.parameters} M', f'{paper.gmacs}') if paper else ('–', '–')
        ours = millions(counted.parameters), billions(counted.macs, 1)
        rows.append((f'FasterNet-{arch.upper()}', ours[0], published[0], ours[1], published[1]))
    return rows


def segmenters(args: argparse.Namespace) -> list[tuple]:
    from ..models.published import CLASSIFIERS

    sizes = [args.size] if args.size else [(512, 512), (512, 2048)]
    rows = [('UPerNet', 'parameters', *(f'GMACs at {size_text(size)}' for size in sizes))]
    for arch in CLASSIFIERS:
        counts = [count(f'upernet_fasternet_{arch}', args, size)[0] for size in sizes]
        macs = (billions(counted.macs, 1) for counted in counts)
        rows.append((f'FasterNet-{arch.upper()}', millions(counts[0].parameters), *macs))
    return rows


def millions(number: int, digits: int = 1) -> str:
    return f'{number / 1e6:.{digits}f} M'


def billions(number: int, digits: int) -> str:
    return f'{number / 1e9:.{digits}f}'


def size_text(size: Sequence[int]) -> str:
    return f'{size[0]}x{size[1]}'


def print_table(rows: list[tuple]) -> None:
    from terminaltables import GithubFlavoredMarkdownTable

    table = GithubFlavoredMarkdownTable(rows)
    table.justify_columns = dict.fromkeys(range(1, len(rows[0])), 'right')
    print(table.table)
