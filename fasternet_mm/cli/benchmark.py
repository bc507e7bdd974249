"""Speed and memory, side by side in one run."""

import argparse
from collections.abc import Callable
from pathlib import Path

from .parsing import (
    add_cfg_options,
    add_config,
    add_size,
    add_tiles,
    command_parser,
    configs_and_files,
    existing_file,
    existing_model,
    positive,
)

EPILOG = """examples:
  fasternet-mm benchmark networks --quick                   a minute, to see what it is like
  fasternet-mm benchmark networks --out networks.json --plot networks.png
  fasternet-mm benchmark networks --networks fasternet_s --form backbone --size 640 640 --size 800 1280 --batches 1 2
  fasternet-mm benchmark detectors mask_rcnn_fasternet_s mask_rcnn_fasternet_s_coco --image street.jpg
  fasternet-mm benchmark detectors rtmdet_fasternet_t0 faster_rcnn_fasternet_t0 --beside other.onnx
  fasternet-mm benchmark models --plot models.png           which model for whom: latency, size, accuracy
  fasternet-mm benchmark layers --plot layers.png           the paper's study of layers, on this machine
  fasternet-mm benchmark training                           a backbone's training step and its memory
  fasternet-mm benchmark detector-training mask_rcnn_fasternet_s   a whole detector's step and its operators
  fasternet-mm benchmark evaluation --images 500            COCO's metric; a few minutes, without --images an hour
  fasternet-mm benchmark tiles WORK_DIR                     AP of small objects in large images, with tiles and without
  fasternet-mm benchmark loading                            weights from a file into a network
  fasternet-mm benchmark serving WORK_DIR                   fasternet-mm serve with 16 clients, against a Predictor
  fasternet-mm benchmark show networks.json --plot networks.png

Candidates take turns, round after round, so that whatever slows the machine down for a while slows down all of them.
They are compared within each round. The table has the median of these ratios, and in brackets the range of their middle
half. FLOP/s count two operations for each multiply-add; those of the machine's own matrix products (GEMM) are measured
in the same rounds. Other networks and engines need an extra: pip install 'fasternet-mm[benchmark]'.

The jobs "evaluation" and "loading" run on Linux alone. Each of their measurements has a process of its own.
"""
QUICK_NETWORKS = 'fasternet_t0', 'timm/fasternet_t0:slicing', 'torchvision/mobilenet_v3_large'
QUICK_ENGINES = 'eager', 'optimized'
QUICK_MODELS = 'rtmdet_fasternet_t0', 'fpn_fasternet_t0'


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(
        prog, 'Measure speed and memory of networks, detectors, layers and training, against others.', EPILOG
    )
    kinds = result.add_subparsers(dest='kind', required=True, metavar='JOB')
    networks_arguments(kinds.add_parser('networks', help='networks × sizes × batches × engines'))
    detectors_arguments(kinds.add_parser('detectors', help='image to boxes or masks, against MMDetection with timm'))
    models_arguments(kinds.add_parser('models', help='those that one chooses among: latency, size, known accuracy'))
    layers_arguments(kinds.add_parser('layers', help="the paper's study: FLOP/s of Conv, GConv, DWConv and PConv"))
    training_arguments(kinds.add_parser('training', help="a backbone's training step: time, memory of activations"))
    detector_training_arguments(
        kinds.add_parser('detector-training', help="a detector's training step, against MMDetection's own heads")
    )
    evaluation_arguments(kinds.add_parser('evaluation', help="COCO's metric: time and memory, against MMDetection's"))
    tiles_arguments(kinds.add_parser('tiles', help='accuracy with tiles and without, of small objects in large images'))
    loading_arguments(kinds.add_parser('loading', help="FasterNet-L's weights: time and memory, against PyTorch"))
    serving_arguments(kinds.add_parser('serving', help='fasternet-mm serve under load, against a Predictor'))
    show = kinds.add_parser('show', help='the table and the plot of results')
    show.add_argument('results', type=existing_file, help='what --out wrote')
    show.add_argument('--plot', metavar='FILE', help='.png, .svg or .pdf; of networks, layers and models')
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
    add_size(
        result,
        action='append',
        help='height and width of the images; may be given several times; default: those of the published accuracies, '
        '224 224, of MobileViT 256 256',
    )
    result.add_argument('--batches', nargs='+', type=positive, default=[1], metavar='N', help='default: 1')
    result.add_argument(
        '--baseline',
        metavar='NAME',
        help='network that all others are compared with, in eager mode; default: each FasterNet with that of timm, '
        'each other network with itself',
    )
    add_engines(result)
    add_common(result, networks, rounds=20, seconds=0.3)


def detectors_arguments(result: argparse.ArgumentParser) -> None:
    models = result.add_argument(
        'models',
        metavar='CONFIG [CHECKPOINT]',
        nargs='+',
        help='detectors: config files, or names of packaged ones; after each, if wanted, its weights, by default '
        'random ones, which find as many objects as the config allows',
    )
    models.completer = configs_and_files
    add_cfg_options(result)
    result.add_argument(
        '--beside',
        nargs='+',
        type=existing_file,
        default=[],
        metavar='FILE',
        help="other projects' networks, from one image (1x3xHxW) to whatever: .onnx, in ONNX Runtime and OpenVINO, or "
        'TorchScript (.torchscript, .pt), in PyTorch',
    )
    result.add_argument(
        '--trust-program',
        action='store_true',
        help='run TorchScript, which can do anything that a program can',
    )
    add_size(
        result,
        help='height and width of the image; default: for each config those that it pads images to, as RTMDet '
        "640 640, else 800 1216, a usual photo in COCO's recipe; for --beside the first config's",
    )
    result.add_argument('--image', type=existing_file, metavar='FILE', help='an image file; default: noise')
    result.add_argument(
        '--any-size', action='store_true', help='export for images of any size instead of this size alone'
    )
    result.add_argument(
        '--parts',
        action='store_true',
        help='also the times of backbone, neck, head (RPN, RoI) and post-processing, measured apart from the whole',
    )
    add_engines(result)
    add_common(result, detectors, rounds=20, seconds=1)


def models_arguments(result: argparse.ArgumentParser) -> None:
    result.add_argument(
        '--models',
        nargs='+',
        metavar='NAME',
        help='some of the configs alone, such as rtmdet_fasternet_t0; default: all kinds, from T0 to L',
    )
    add_common(result, models, rounds=3, seconds=0.3)


def layers_arguments(result: argparse.ArgumentParser) -> None:
    result.add_argument(
        '--shapes',
        nargs='+',
        type=shape,
        metavar='CxS',
        help="channels and side of the maps; default: 96x56 192x28 384x14 768x7, a network's four stages",
    )
    result.add_argument('--batch', type=positive, default=1, help='default: 1')
    result.add_argument(
        '--channels-last',
        action='store_true',
        help='memory layout of the maps; default: contiguous, as PyTorch makes tensors',
    )
    add_common(result, layers, rounds=20, seconds=0.1)


def training_arguments(result: argparse.ArgumentParser) -> None:
    result.add_argument('--arch', choices=['t0', 't1', 't2', 's', 'm', 'l'], help='default: s')
    add_size(result, help='height and width of the images; default: 512 512')
    result.add_argument('--batch', type=positive, default=2, help='default: 2')
    result.add_argument(
        '--modes',
        nargs='+',
        choices=['plain', 'checkpointed', 'compiled'],
        default=['plain', 'checkpointed'],
        help='default: plain checkpointed; the second one recomputes maps instead of storing them (with_cp)',
    )
    result.add_argument(
        '--layouts',
        nargs='+',
        choices=['channels_last', 'contiguous'],
        default=['channels_last', 'contiguous'],
        help='memory layouts of the maps; default: both, of which training takes the first one on a CPU and the faster '
        'one on a GPU',
    )
    result.add_argument(
        '--amp',
        choices=['bfloat16', 'float16'],
        help='precision of autocast in the forward pass, on a CPU bfloat16 alone; default: none, float32',
    )
    add_common(result, training, rounds=5, seconds=0)


def detector_training_arguments(result: argparse.ArgumentParser) -> None:
    add_config(result)
    add_size(result, help='height and width of the images; default: 480 640')
    result.add_argument('--batch', type=positive, default=2, help='default: 2')
    result.add_argument(
        '--amp', choices=['bfloat16', 'float16'], help="mixed precision, on a GPU; default: the config's own"
    )
    add_common(result, detector_training, rounds=5, seconds=0)


def add_engines(result: argparse.ArgumentParser) -> None:
    result.add_argument(
        '--engines',
        nargs='+',
        metavar='NAME',
        help='eager, optimized, compiled, on a GPU graphed (networks of others in a CUDA graph), each also with '
        '-bfloat16 or, on a GPU, -float16; onnxruntime, openvino, openvino-bfloat16, '
        'openvino-int8; default: all that the device can run, except int8',
    )
    result.add_argument(
        '--no-memory', action='store_true', help='do not measure peak memory, which takes a process for each candidate'
    )


def add_common(result: argparse.ArgumentParser, do, rounds: int, seconds: float) -> None:
    result.add_argument('--rounds', type=positive, help=f'turns of each candidate; default: {rounds}')
    result.add_argument(
        '--seconds', type=float, help=f'length of a turn, which has at least two calls; default: {seconds}'
    )
    result.add_argument('--quick', action='store_true', help='measure little, in little time, to see what it is like')
    result.add_argument('--threads', type=positive, help='on the CPU; default: one per core that this process may use')
    result.add_argument('--device', choices=['cpu', 'cuda'], help='default: a GPU when there is one')
    result.add_argument('--out', metavar='FILE', help='results as JSON, with every single time')
    result.add_argument('--plot', metavar='FILE', help='.png, .svg or .pdf; of networks, layers and models')
    result.set_defaults(do=do, usual=dict(rounds=rounds, seconds=seconds))


def evaluation_arguments(result: argparse.ArgumentParser) -> None:
    result.add_argument('--images', type=positive, default=5000, help="default: 5000, as in COCO's val2017")
    result.add_argument(
        '--detections',
        type=positive,
        default=100,
        help="per image; default: 100, which is all that COCO's metric counts",
    )
    result.add_argument('--repeats', type=positive, default=3, help='measurements of each; default: 3')
    result.set_defaults(do=evaluation)


def tiles_arguments(result: argparse.ArgumentParser) -> None:
    result.add_argument(
        'model',
        metavar='MODEL',
        help='a work directory, of a detector that was trained on the embedded data; or a config',
    )
    result.add_argument('checkpoint', metavar='CHECKPOINT', nargs='?', help='weights for a config')
    add_tiles(result, help='default: 80 80')
    result.set_defaults(tile=(80, 80), overlap=0.3, do=tiles)
    result.add_argument('--images', type=positive, default=10, metavar='N', help='default: 10')
    result.add_argument('--batch-size', type=positive, default=8, metavar='N', help='tiles; default: 8')


def loading_arguments(result: argparse.ArgumentParser) -> None:
    result.add_argument('--repeats', type=positive, default=7, help='measurements of each; default: 7')
    result.set_defaults(do=loading)


def serving_arguments(result: argparse.ArgumentParser) -> None:
    result.add_argument('source', metavar='MODEL', type=existing_model, help='as for fasternet-mm serve')
    result.add_argument('checkpoint', metavar='CHECKPOINT', nargs='?', help='after a config')
    result.add_argument('--images', nargs='+', metavar='IMAGES', help='files or folders; default: noise of 480x640')
    result.add_argument('--requests', type=positive, default=200, metavar='N', help='in a round; default: 200')
    result.add_argument('--clients', type=positive, default=16, metavar='N', help='default: 16')
    result.add_argument('--batch-size', type=positive, default=8, metavar='N', help='default: 8')
    result.add_argument('--rounds', type=positive, default=5, help='default: 5, after one that does not count')
    result.set_defaults(do=serving)


def shape(text: str) -> tuple[int, int]:
    channels, _, side = text.partition('x')
    return positive(channels), positive(side)


def main(args: argparse.Namespace) -> None:
    import warnings

    warnings.filterwarnings('ignore', module='mm(cv|det|engine|seg)')
    results = args.do(args)
    if results is None:
        return
    from ..benchmark.benchmark_plots import draw
    from ..report.plots import write_figure

    if args.plot:
        write_figure(args.plot, draw(results['kind'], results['comparisons'][0]))
    for content, path in (('results', getattr(args, 'out', None)), ('plot', args.plot)):
        if path:
            print(f'{content + ":":9}{path}')


def networks(args: argparse.Namespace) -> dict:
    from ..benchmark.network_candidates import network_candidates, pair
    from ..benchmark.networks import check_networks, default_networks

    results = start(args)
    names = args.networks or (QUICK_NETWORKS if args.quick else default_networks(args.form))
    pairs = pair(names, engines(args), args.baseline)
    check_networks([name for name, _ in pairs], args.form)
    for size in args.size or [None]:
        for batch in args.batches:
            measure(args, results, network_candidates(pairs, args.form, batch, size, args.device, args.baseline))
    return results


def detectors(args: argparse.Namespace) -> dict:
    from ..benchmark.detectors import DetectorTask, add_parts, default_size, detector_candidates
    from ..benchmark.network_files import check_files, file_candidates

    models = configs_and_checkpoints(args.models)
    results = start(args)
    chosen = engines(args)
    check_files(args.beside, chosen, args.device, args.trust_program)
    options = tuple(args.cfg_options)
    size = args.size or ((256, 320) if args.quick else None)
    tasks = [
        DetectorTask(
            config,
            *(size or default_size(config, options)),
            options=options,
            checkpoint=checkpoint,
            image=args.image,
            any_size=args.any_size,
            device=args.device,
        )
        for config, checkpoint in models
    ]
    baseline = tasks[0].peer, 'eager'
    candidates = [candidate for task in tasks for candidate in detector_candidates(task, chosen, baseline)]
    candidates += file_candidates(args.beside, chosen, tasks[0].pixels().flip(0), args.device, baseline)

    def parts(rows: list[dict], rounds: int) -> None:
        for task in tasks:
            add_parts(task, rows, rounds)

    measure(args, results, candidates, parts if args.parts else None)
    return results


def configs_and_checkpoints(texts: list[str]) -> list[tuple[str, str | None]]:
    """Configs, each with the checkpoint that follows it, or None."""
    from ..engine.packaged_configs import config_names, config_path
    from ..errors import UserError

    models: list[tuple[str, str | None]] = []
    for text in texts:
        is_config = text.endswith('.py') or text in config_names()
        if is_config or not models or models[-1][1]:  # else nothing that it could be the checkpoint of
            models.append((config_path(text), None))
        else:
            models[-1] = models[-1][0], text
    names = [Path(config).stem for config, _ in models]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'{name} is given twice: name each config once, and files by different names')
    return models


def models(args: argparse.Namespace) -> dict:
    from mmengine.logging import MMLogger

    from ..benchmark.compared_models import COMPARED, model_candidates
    from ..errors import UserError

    results = start(args)
    MMLogger.get_current_instance().setLevel('ERROR')  # it warns where a segmenter is built after a detector
    names = args.models or (QUICK_MODELS if args.quick else dict.fromkeys(model.config for model in COMPARED))
    unknown = sorted(set(names) - {model.config for model in COMPARED})
    if unknown:
        known = ', '.join(dict.fromkeys(model.config for model in COMPARED))
        raise UserError(f'--models {unknown[0]} is none of those that are compared: use {known}')
    measure(args, results, model_candidates([model for model in COMPARED if model.config in names], args.device))
    return results


def layers(args: argparse.Namespace) -> dict:
    from ..benchmark.layers import SHAPES, layer_candidates

    results = start(args)
    measure(args, results, layer_candidates(args.shapes or SHAPES, args.batch, args.channels_last, args.device))
    return results


def training(args: argparse.Namespace) -> dict:
    from ..benchmark.training_steps import training_candidates

    results = start(args)
    arch = args.arch or ('t0' if args.quick else 's')
    size = args.size or ((128, 128) if args.quick else (512, 512))
    measure(args, results, training_candidates(arch, args.modes, args.batch, size, args.device, args.amp, args.layouts))
    return results


def detector_training(args: argparse.Namespace) -> dict:
    from ..benchmark.detector_training import DetectorStep, detector_training_candidates

    results = start(args)
    size = args.size or ((128, 160) if args.quick else (480, 640))
    step = DetectorStep(args.config, args.batch, *size, tuple(args.cfg_options), args.device, args.amp)
    measure(args, results, detector_training_candidates(step))
    return results


def evaluation(args: argparse.Namespace) -> None:
    from ..benchmark.metric_cost import compare_metrics

    compare_metrics(args.images, args.detections, args.repeats)


def loading(args: argparse.Namespace) -> None:
    from ..benchmark.loading_cost import compare_loading

    compare_loading(args.repeats)


def tiles(args: argparse.Namespace) -> None:
    from ..benchmark.tile_accuracy import compare_tiles
    from ..inference.tiles import Tiling

    compare_tiles(args.model, args.checkpoint, Tiling(tuple(args.tile), args.overlap), args.images, args.batch_size)


def serving(args: argparse.Namespace) -> None:
    from itertools import cycle, islice

    from ..benchmark.serving_load import compare_serving, noise_jpeg
    from ..datasets.image_search import find_files

    model = [name for name in (args.source, args.checkpoint) if name]
    if args.images:
        files = [Path(name).read_bytes() for name in find_files(args.images)[: args.requests]]
        images = list(islice(cycle(files), args.requests))
    else:
        images = [noise_jpeg(number) for number in range(args.requests)]
    compare_serving(model, images, args.clients, args.rounds, args.batch_size)


def read(args: argparse.Namespace) -> dict:
    from ..benchmark.benchmark_plots import check_plot
    from ..benchmark.results import read_results

    results = read_results(args.results)
    check_plot(args.plot, results['kind'])
    for comparison in results['comparisons']:
        show(results, comparison)
    return results


def start(args: argparse.Namespace) -> dict:
    """Settings checked and filled in; results that are still empty."""
    import torch
    from mmengine.logging import MMLogger

    from ..benchmark.benchmark_plots import check_plot
    from ..benchmark.machine import describe_machine
    from ..benchmark.results import new_results
    from ..devices import device_of_choice
    from ..errors import UserError
    from ..files import check_writable

    MMLogger.get_current_instance().setLevel('WARNING')
    args.device = args.device or device_of_choice()
    if args.device == 'cuda' and device_of_choice() == 'cpu':
        raise UserError('--device cuda: PyTorch finds no GPU here, leave the option out')
    usual = dict(rounds=3, seconds=args.usual['seconds'] / 3) if args.quick else args.usual
    args.rounds = usual['rounds'] if args.rounds is None else args.rounds
    args.seconds = usual['seconds'] if args.seconds is None else args.seconds
    # The search for the fastest kernels suits maps of one size; numbers of RoIs differ, and it would begin anew.
    torch.backends.cudnn.benchmark = args.kind in ('networks', 'layers', 'training')
    if args.threads:
        torch.set_num_threads(args.threads)
    check_plot(args.plot, args.kind)
    for file in filter(None, (args.out, args.plot)):
        check_writable(str(Path(file).parent))
    return new_results(args.kind, describe_machine(args.device), args.rounds, args.seconds)


def engines(args: argparse.Namespace) -> list[str]:
    from ..benchmark.network_engines import ENGINES, check_engines

    # int8 changes what is computed, and needs an extra of its own: only where it is asked for.
    usual = [name for name, engine in ENGINES.items() if engine.suits(args.device) and engine.precision != 'int8']
    if args.kind == 'detectors':
        usual = [name for name in usual if ENGINES[name].runtime != 'graphed']
    chosen = list(args.engines or (QUICK_ENGINES if args.quick else usual))
    check_engines(chosen, args.device)
    return chosen


def measure(args: argparse.Namespace, results: dict, candidates: list, add_more: Callable | None = None) -> None:
    """Compare, store and show. ``add_more`` puts further measurements into rows, in a number of rounds."""
    from ..benchmark.memory import add_memory
    from ..benchmark.results import write_results
    from ..benchmark.timing import compare

    peaks = sorted({candidate.precision for candidate in candidates if candidate.macs} - {'int8'})
    comparison = compare(candidates, args.rounds, args.seconds, peaks, args.device)
    results['comparisons'].append(comparison)
    if args.out:
        write_results(args.out, results)
    if add_more:
        add_more(comparison['rows'], args.rounds)
        if args.out:
            write_results(args.out, results)
    if not getattr(args, 'no_memory', True) and not args.quick:
        add_memory(candidates, comparison['rows'], args.device)
        if args.out:
            write_results(args.out, results)
    show(results, comparison)


def show(results: dict, comparison: dict) -> None:
    from ..benchmark.results import machine_line, peak_line, table

    print('\n'.join(filter(None, (machine_line(results), peak_line(comparison), table(results['kind'], comparison)))))
