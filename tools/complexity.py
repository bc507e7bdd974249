"""Parameters and FLOPs."""

import argparse
from pathlib import Path

from command_line import existing_file, parser, run

EPILOG = """examples:
  python tools/complexity.py                                     every variant, beside what the paper says
  python tools/complexity.py configs/upernet_fasternet_*.py configs/peers/upernet_*.py --size 512 2048
  python tools/complexity.py configs/mask_rcnn_fasternet_s.py

FLOPs are multiply-adds of convolutions and matrix products, as papers count them. Auxiliary heads, which only training
uses, have parameters but no FLOPs. Of a two-stage detector 1000 regions go through the box head and 100 through the
mask head, whatever the image: MMDetection's get_flops counts so.
"""
CONFIGS = Path(__file__).parents[1] / 'configs'
DETECTOR, SEGMENTER = (800, 1280), (512, 512)


def arguments() -> argparse.ArgumentParser:
    result = parser('Count parameters and FLOPs of all variants, or of detectors and segmenters.', EPILOG)
    result.add_argument('config', nargs='*', type=existing_file, help="default: every variant, and the paper's figures")
    result.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='of the image; default: 800 1280 for detectors, 512 512 for segmenters',
    )
    result.add_argument('--proposals', type=int, default=1000, help='through the box head; default: 1000')
    return result


def main(args: argparse.Namespace) -> None:
    if args.config:
        print_table([('config', 'parameters', 'FLOPs', 'at')] + [row_of_config(path, args) for path in args.config])
        return
    for rows in (classifiers(), detectors(args), segmenters(args)):
        print_table(rows)
        print()


def row_of_config(path: str, args: argparse.Namespace) -> tuple:
    found, size = count(path, args, args.size)
    return Path(path).stem, millions(found.parameters), billions(found.macs, 1), '{}×{}'.format(*size)


def count(path, args, size=None):
    """The complexity of a config's model, and the size of image that it is for."""
    from fasternet_mm.engine.config import load_config
    from fasternet_mm.engine.runner import build_model
    from fasternet_mm.errors import UserError
    from fasternet_mm.models.complexity import complexity

    cfg = load_config(str(path))
    kind = cfg.get('model', {}).get('type')
    cfg.setdefault('default_scope', 'mmseg' if kind == 'EncoderDecoder' else 'mmdet')
    size = size or (SEGMENTER if kind == 'EncoderDecoder' else DETECTOR)
    model = build_model(cfg)
    try:
        return complexity(model, *size, args.proposals), size
    except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
        accepted = 'a segmenter (EncoderDecoder), or a detector of one stage or of two'
        raise UserError(f'the model of {path}, a {kind}, cannot be counted: give the config of {accepted}') from error


def classifiers() -> list[tuple]:
    import torch

    from fasternet_mm import FasterNetClassifier
    from fasternet_mm.models.complexity import complexity
    from fasternet_mm.models.published import CLASSIFIERS

    rows = [('ImageNet classifier', 'parameters', 'paper', 'FLOPs at 224×224', 'paper', 'difference')]
    for arch, paper in CLASSIFIERS.items():
        with torch.device('meta'):
            net = FasterNetClassifier(arch)
        found = complexity(net, 224, 224)
        difference = f'{round(found.macs / paper.gmacs / 1e7 - 100, 1) + 0:+} %'
        parameters = millions(found.parameters, 2), f'{paper.parameters} M'
        flops = billions(found.macs, 3), f'{paper.gmacs:.2f} G'
        rows.append((f'FasterNet-{arch.upper()}', *parameters, *flops, difference))
    return rows


def detectors(args: argparse.Namespace) -> list[tuple]:
    from fasternet_mm.models.published import CLASSIFIERS, MASK_RCNN

    size = args.size or DETECTOR
    rows = [('Mask R-CNN', 'parameters', 'paper', 'FLOPs at {}×{}'.format(*size), 'paper at 800×1280')]
    for arch in CLASSIFIERS:
        found, _ = count(CONFIGS / f'mask_rcnn_fasternet_{arch}.py', args, size)
        paper = MASK_RCNN.get(arch)
        published = (f'{paper.parameters} M', f'{paper.gmacs} G') if paper else ('–', '–')
        ours = millions(found.parameters), billions(found.macs, 1)
        rows.append((f'FasterNet-{arch.upper()}', ours[0], published[0], ours[1], published[1]))
    return rows


def segmenters(args: argparse.Namespace) -> list[tuple]:
    from fasternet_mm.models.published import CLASSIFIERS

    sizes = [args.size] if args.size else [(512, 512), (512, 2048)]
    rows = [('UPerNet', 'parameters', *('FLOPs at {}×{}'.format(*size) for size in sizes))]
    for arch in CLASSIFIERS:
        found = [count(CONFIGS / f'upernet_fasternet_{arch}.py', args, size)[0] for size in sizes]
        flops = (billions(one.macs, 1) for one in found)
        rows.append((f'FasterNet-{arch.upper()}', millions(found[0].parameters), *flops))
    return rows


def millions(number: int, digits: int = 1) -> str:
    return f'{number / 1e6:.{digits}f} M'


def billions(number: int, digits: int) -> str:
    return f'{number / 1e9:.{digits}f} G'


def print_table(rows: list[tuple]) -> None:
    from terminaltables import GithubFlavoredMarkdownTable

    table = GithubFlavoredMarkdownTable(rows)
    table.justify_columns = dict.fromkeys(range(1, len(rows[0])), 'right')
    print(table.table)


if __name__ == '__main__':
    run(main, arguments())
