"""Parameters and FLOPs of segmenters."""

import argparse

from command_line import existing_file, parser, run

EPILOG = """examples:
  python tools/complexity.py configs/upernet_fasternet_*.py configs/peers/upernet_*.py
  python tools/complexity.py configs/upernet_fasternet_s.py --size 512 2048

FLOPs are multiply-adds of convolutions and matrix products, as papers count them. Auxiliary heads, which only training
uses, have parameters but no FLOPs.
"""


def arguments() -> argparse.ArgumentParser:
    result = parser('Count parameters and FLOPs of the segmenters of configs.', EPILOG)
    result.add_argument('config', nargs='+', type=existing_file, help='configs of segmenters')
    result.add_argument(
        '--size', nargs=2, type=int, default=(512, 512), metavar=('H', 'W'), help='of the picture; default: 512 512'
    )
    return result


def main(args: argparse.Namespace) -> None:
    from pathlib import Path

    from terminaltables import GithubFlavoredMarkdownTable

    from fasternet_mm.engine.config import load_config
    from fasternet_mm.engine.runner import build_model
    from fasternet_mm.errors import UserError
    from fasternet_mm.models.complexity import complexity

    height, width = args.size
    rows = [('config', 'parameters', f'FLOPs at {height}×{width}')]
    for path in args.config:
        cfg = load_config(path)
        kind = cfg.get('model', {}).get('type')
        if kind != 'EncoderDecoder':
            raise UserError(f'{path} has a model of type {kind}: only segmenters (EncoderDecoder) are counted')
        cfg.setdefault('default_scope', 'mmseg')
        found = complexity(build_model(cfg), height, width)
        rows.append((Path(path).stem, f'{found.parameters / 1e6:.1f} M', f'{found.macs / 1e9:.1f} G'))
    table = GithubFlavoredMarkdownTable(rows)
    table.justify_columns = {1: 'right', 2: 'right'}
    print(table.table)


if __name__ == '__main__':
    run(main, arguments())
