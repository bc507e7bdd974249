"""Speed and memory, side by side in one run."""

import argparse
from pathlib import Path

from command_line import existing_file, parser, positive, run

EPILOG = """examples:
  python tools/benchmark.py networks --quick                     a minute, to see what it is like
  python tools/benchmark.py networks --out networks.json --plot networks.png
  python tools/benchmark.py networks --networks fasternet_s --form backbone --sizes 640 800x1280 --batches 1 2
  python tools/benchmark.py detectors configs/mask_rcnn_fasternet_s.py mask_rcnn_fasternet_s_coco --image street.jpg
  python tools/benchmark.py layers --plot layers.png             the paper's study of layers, on this machine
  python tools/benchmark.py training                             a backbone's training step and its memory
  python tools/benchmark.py show networks.json --plot networks.png

Candidates take turns, round after round, so that what slows the machine down for a while slows all of them down. They
are compared within each round; the middle one of the ratios counts, and in brackets are those between which the middle
half lies. FLOP/s are two for each multiply-add, as those of the machine's own matrix products (GEMM), which take turns
too. Peers and engines are extras: pip install '.[benchmark]' in the clone.
"""
QUICK_NETWORKS = 'fasternet_t0', 'timm/fasternet_t0:slicing', 'torchvision/mobilenet_v3_large'
QUICK_ENGINES = 'eager', 'optimized'


def arguments() -> argparse.ArgumentParser:
    result = parser('Measure speed and memory of networks, detectors, layers and training, against others.', EPILOG)
    kinds = result.add_subparsers(dest='kind', required=True, metavar='networks | detectors | layers | training | show')
    networks_arguments(kinds.add_parser('networks', help='networks × sizes × batches × engines'))
    detectors_arguments(kinds.add_parser('detectors', help='image to masks, against MMDetection with timm'))
    layers_arguments(kinds.add_parser('layers', help="the paper's study: FLOP/s of Conv, GConv, DWConv and PConv"))
    training_arguments(kinds.add_parser('training', help="a backbone's training step: time, memory of activations"))
    show = kinds.add_parser('show', help='the table and the plot of results')
    show.add_argument('results', type=existing_file, help='what --out wrote')
    show.add_argument('--plot', metavar='FILE', help='.png, .svg or .pdf; of networks and layers')
    show.set_defaults(do=read)
    return result


def networks_arguments(result: argparse.ArgumentParser) -> None:
    result.add_argument(
        '--networks',
        nargs='+',
        metavar='NAME',
        help='fasternet_s, timm/NAME, timm/fasternet_s:slicing, torchvision/NAME; '
        "default: all variants, timm's in both modes, and those that the paper compares with",
    )
    result.add_argument('--form', choices=['classifier', 'backbone'], default='classifier', help='default: classifier')
    result.add_argument(
        '--sizes',
        nargs='+',
        type=size,
        metavar='S',
        help='224 or 800x1280, height x width; default: that of each published accuracy, 224, of MobileViT 256',
    )
    result.add_argument('--batches', nargs='+', type=positive, default=[1], metavar='N', help='default: 1')
    result.add_argument(
        '--baseline',
        metavar='NAME',
        help="network that all are compared with, in eager mode; default: timm's FasterNet of the same variant, and "
        'for others themselves',
    )
    add_engines(result)
    add_common(result, networks, rounds=20, seconds=0.3)


def detectors_arguments(result: argparse.ArgumentParser) -> None:
    result.add_argument('config', type=existing_file, help='of a Mask R-CNN with FasterNet')
    result.add_argument('checkpoint', nargs='?', help='default: random weights that find as much as is allowed')
    result.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config')
    result.add_argument('--size', type=size, help='of the image, height x width; default: 800x1216')
    result.add_argument('--image', type=existing_file, help='default: noise')
    result.add_argument('--any-size', action='store_true', help='export for images of any size, not of this one')
    add_engines(result)
    add_common(result, detectors, rounds=20, seconds=1)


def layers_arguments(result: argparse.ArgumentParser) -> None:
    result.add_argument(
        '--shapes',
        nargs='+',
        type=size,
        metavar='CxS',
        help="channels x side of the maps; default: 96x56 192x28 384x14 768x7, a network's four stages",
    )
    result.add_argument('--batch', type=positive, default=1, help='default: 1')
    result.add_argument('--channels-last', action='store_true', help='memory layout; default: as PyTorch makes tensors')
    add_common(result, layers, rounds=20, seconds=0.1)


def training_arguments(result: argparse.ArgumentParser) -> None:
    result.add_argument('--arch', choices=['t0', 't1', 't2', 's', 'm', 'l'], help='default: s')
    result.add_argument('--size', type=positive, help='side of the images; default: 512')
    result.add_argument('--batch', type=positive, default=2, help='default: 2')
    result.add_argument(
        '--modes',
        nargs='+',
        choices=['plain', 'checkpointed', 'compiled'],
        default=['plain', 'checkpointed'],
        help='default: plain checkpointed (with_cp)',
    )
    add_common(result, training, rounds=5, seconds=0)


def add_engines(result: argparse.ArgumentParser) -> None:
    result.add_argument(
        '--engines',
        nargs='+',
        metavar='NAME',
        help='eager, optimized, compiled, each also with -bfloat16 or, on a GPU, -float16; onnxruntime, openvino, '
        'openvino-bfloat16, openvino-int8; default: all that the device can run but int8',
    )
    result.add_argument('--no-memory', action='store_true', help='leave out peak memory, a process for each candidate')


def add_common(result: argparse.ArgumentParser, do, rounds: int, seconds: float) -> None:
    result.add_argument('--rounds', type=positive, help=f'turns of each candidate; default: {rounds}')
    result.add_argument('--seconds', type=float, help=f'of a turn, but at least two calls; default: {seconds}')
    result.add_argument('--quick', action='store_true', help='little of everything, to see what it is like')
    result.add_argument('--threads', type=positive, help="on the CPU; default: PyTorch's, one per core")
    result.add_argument('--device', choices=['cpu', 'cuda'], help='default: a GPU when there is one')
    result.add_argument('--out', metavar='FILE', help='results as JSON, with every single time')
    result.add_argument('--plot', metavar='FILE', help='.png, .svg or .pdf; of networks and layers')
    result.set_defaults(do=do, usual=dict(rounds=rounds, seconds=seconds))


def size(text: str) -> tuple[int, int]:
    first, _, second = text.partition('x')
    try:
        return positive(first), positive(second or first)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f'{text}: give one number, or two as in 800x1280') from None


def main(args: argparse.Namespace) -> None:
    import warnings

    from fasternet_mm.benchmark.benchmark_plots import draw
    from fasternet_mm.report.plots import write_figure

    warnings.filterwarnings('ignore', module='mm(cv|det|engine|seg)')
    results = args.do(args)
    if args.plot:
        write_figure(args.plot, draw(results['kind'], results['comparisons'][0]))
    for what, where in (('results', getattr(args, 'out', None)), ('plot', args.plot)):
        if where:
            print(f'{what + ":":9}{where}')


def networks(args: argparse.Namespace) -> dict:
    from fasternet_mm.benchmark.network_candidates import network_candidates, pair
    from fasternet_mm.benchmark.networks import check_networks, default_networks

    results = start(args)
    names = args.networks or (QUICK_NETWORKS if args.quick else default_networks(args.form))
    pairs = pair(names, engines(args), args.baseline)
    check_networks([name for name, _ in pairs], args.form)
    for one_size in args.sizes or [None]:
        for batch in args.batches:
            measure(args, results, network_candidates(pairs, args.form, batch, one_size, args.device, args.baseline))
    return results


def detectors(args: argparse.Namespace) -> dict:
    from fasternet_mm.benchmark.detectors import DetectorTask, detector_candidates

    results = start(args)
    task = DetectorTask(
        args.config,
        *(args.size or ((256, 320) if args.quick else (800, 1216))),
        options=tuple(args.cfg_options),
        checkpoint=args.checkpoint,
        image=args.image,
        any_size=args.any_size,
        device=args.device,
    )
    measure(args, results, detector_candidates(task, engines(args)))
    return results


def layers(args: argparse.Namespace) -> dict:
    from fasternet_mm.benchmark.layers import SHAPES, layer_candidates

    results = start(args)
    measure(args, results, layer_candidates(args.shapes or SHAPES, args.batch, args.channels_last, args.device))
    return results


def training(args: argparse.Namespace) -> dict:
    from fasternet_mm.benchmark.training_steps import training_candidates

    results = start(args)
    arch, side = args.arch or ('t0' if args.quick else 's'), args.size or (128 if args.quick else 512)
    measure(args, results, training_candidates(arch, args.modes, args.batch, (side, side), args.device))
    return results


def read(args: argparse.Namespace) -> dict:
    from fasternet_mm.benchmark.benchmark_plots import check_plot
    from fasternet_mm.benchmark.results import read_results

    results = read_results(args.results)
    check_plot(args.plot, results['kind'])
    for comparison in results['comparisons']:
        show(results, comparison)
    return results


def start(args: argparse.Namespace) -> dict:
    """Settings checked and filled in; results that are still empty."""
    import torch
    from mmengine.logging import MMLogger

    from fasternet_mm.benchmark.benchmark_plots import check_plot
    from fasternet_mm.benchmark.machine import describe_machine
    from fasternet_mm.benchmark.results import new_results
    from fasternet_mm.errors import UserError
    from fasternet_mm.files import check_writable

    MMLogger.get_current_instance().setLevel('WARNING')
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: PyTorch finds no GPU here, leave the option out')
    usual = dict(rounds=3, seconds=args.usual['seconds'] / 3) if args.quick else args.usual
    args.rounds = usual['rounds'] if args.rounds is None else args.rounds
    args.seconds = usual['seconds'] if args.seconds is None else args.seconds
    if args.threads:
        torch.set_num_threads(args.threads)
    check_plot(args.plot, args.kind)
    for file in filter(None, (args.out, args.plot)):
        check_writable(str(Path(file).parent))
    return new_results(args.kind, describe_machine(args.device), args.rounds, args.seconds)


def engines(args: argparse.Namespace) -> list[str]:
    from fasternet_mm.benchmark.network_engines import ENGINES, check_engines

    # int8 changes what is computed, and needs an extra of its own: only where it is asked for.
    usual = [name for name, engine in ENGINES.items() if engine.suits(args.device) and engine.precision != 'int8']
    chosen = list(args.engines or (QUICK_ENGINES if args.quick else usual))
    check_engines(chosen, args.device)
    return chosen


def measure(args: argparse.Namespace, results: dict, candidates: list) -> None:
    """Compare, store and show."""
    from fasternet_mm.benchmark.memory import add_memory
    from fasternet_mm.benchmark.results import write_results
    from fasternet_mm.benchmark.timing import compare

    peaks = sorted({one.precision for one in candidates if one.macs} - {'int8'})
    comparison = compare(candidates, args.rounds, args.seconds, peaks, args.device)
    results['comparisons'].append(comparison)
    if args.out:
        write_results(args.out, results)
    if not getattr(args, 'no_memory', True) and not args.quick:
        add_memory(candidates, comparison['rows'], args.device)
        if args.out:
            write_results(args.out, results)
    show(results, comparison)


def show(results: dict, comparison: dict) -> None:
    from fasternet_mm.benchmark.results import machine_line, peak_line, table

    print('\n'.join(filter(None, (machine_line(results), peak_line(comparison), table(results['kind'], comparison)))))


if __name__ == '__main__':
    run(main, arguments())
