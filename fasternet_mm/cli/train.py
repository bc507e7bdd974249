"""Train a detector or segmenter."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .parsing import add_config, add_size, command_parser, positive

if TYPE_CHECKING:  # with PyTorch, which comes after the arguments
    from ..engine.device_memory import Card

EPILOG = """examples:
  fasternet-mm train shapes/mask_rcnn_fasternet_t0_shapes           five minutes on two cores, no data needed
  fasternet-mm train mask_rcnn_fasternet_s --data my_images         your own images and annotations
  fasternet-mm train mask_rcnn_fasternet_s --auto-scale-lr          COCO 2017 in data/coco, one GPU
  fasternet-mm train CONFIG --load-from mask_rcnn_fasternet_s_coco --new-heads
      a model of your own classes, from weights trained on COCO
  torchrun --nproc_per_node 8 -m fasternet_mm train mask_rcnn_fasternet_s --launcher pytorch
      eight GPUs; tools/dist_train.sh and tools/slurm_train.sh in the clone do the same
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(prog, 'Train a detector or segmenter from a config.', EPILOG)
    add_config(result)
    result.add_argument(
        '--work-dir',
        metavar='DIR',
        help="folder of logs and checkpoints; default: the config's, else work_dirs/ and the config's name",
    )
    result.add_argument(
        '--resume',
        nargs='?',
        const=True,
        metavar='CHECKPOINT',
        help='go on from a checkpoint; default: the newest in the work directory, or the start where there is none',
    )
    result.add_argument(
        '--batch',
        type=positive,
        metavar='N',
        help='images per step, of all processes together; without --data the learning rate is changed by '
        "--auto-scale-lr alone; default: the config's per process; with --data on a GPU up to 16",
    )
    result.add_argument(
        '--amp',
        action=argparse.BooleanOptionalAction,
        help='mixed precision: bfloat16 where the GPU or the CPU has it, else on a GPU float16; default: what the '
        'config says; with --data --amp where the device has it',
    )
    result.add_argument(
        '--workers',
        type=count,
        metavar='N',
        help="processes that prepare images, for each process that trains; default: the config's; with --data on a "
        'GPU by the number of CPUs',
    )
    result.add_argument(
        '--compile',
        action='store_true',
        help='compile the backbone with torch.compile: the first steps take minutes, all later ones are faster',
    )
    result.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="multiply the learning rate by the actual batch size and divide it by that of the config's author",
    )
    result.add_argument(
        '--tensorboard',
        action='store_true',
        help='also log for TensorBoard; to see it: tensorboard --logdir WORK_DIR',
    )
    result.add_argument(
        '--seed', type=int, help='seed of all random numbers, for a repeatable run; default: a new one each time'
    )
    result.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm'],
        default='none',
        help='what started the processes: pytorch is torchrun; default: none, a single process',
    )
    # The old torch.distributed.launch passes it as an option, torchrun in the environment.
    result.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    _add_own_data(result.add_argument_group('your own images'))
    _add_start_weights(result.add_argument_group('weights to start from'))
    return result


def _add_own_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--data',
        metavar='DIR',
        help='folder of images with annotations: COCO, Pascal VOC, YOLO, LabelMe or VIA; label maps for segmenters '
        '(docs/your-own-data.md); the options below need it',
    )
    group.add_argument('--dry-run', action='store_true', help='show the plan of the training, and do not train')
    add_size(
        group,
        help='resize images to fit into this height and width; default: by the size of the images and of the objects '
        'in them',
    )
    group.add_argument(
        '--epochs',
        type=positive,
        metavar='N',
        help='train on each image N times; default: the fewer images, the more epochs',
    )
    group.add_argument(
        '--ignore-label',
        type=label,
        metavar='N',
        help='the label of pixels that do not count; default: 255, the custom of label maps',
    )
    group.add_argument(
        '--group',
        metavar='REGEX',
        help='keep images together, all for training or all for validation, where this expression finds the same text '
        'in their paths (or the same first group), such as frames of one video: "(video[0-9]+)_"',
    )


def _add_start_weights(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--load-from',
        metavar='CHECKPOINT',
        help='start from the weights of a whole model: a file, a URL, or a published name (fasternet-mm weights list); '
        "default: the config's own start, in most configs ImageNet weights of the backbone",
    )
    group.add_argument(
        '--new-heads',
        action='store_true',
        help='the model of CHECKPOINT was trained on other classes; initialize the layers whose size depends on them',
    )
    group.add_argument('--allow-mismatch', action='store_true', help='load the tensors that fit, and list the rest')


def count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text}: give a whole number from 0')
    return int(text)


def label(text: str) -> int:
    if not (text.isdecimal() and int(text) < 256):
        raise argparse.ArgumentTypeError(f'{text}: give a label, a whole number from 0 to 255')
    return int(text)


def main(args: argparse.Namespace) -> None:
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    import torch

    from ..cpus import leave_computing_to_gpu
    from ..engine.config import load_config
    from ..engine.device_memory import cards_of_training, out_of_memory
    from ..engine.processes import from_rank_0, start_processes
    from ..engine.runner import build_runner
    from ..evaluation.table import metric_table

    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    start_processes(cfg)
    leave_computing_to_gpu()
    cards = cards_of_training()
    cfg = from_rank_0(lambda: prepare(cfg, args, cards))
    if args.dry_run:
        return
    runner = build_runner(cfg, ('train', 'val'))
    try:
        runner.train()
    except torch.cuda.OutOfMemoryError as error:
        raise out_of_memory(cfg, images_at_once(cfg, runner)) from error

    if runner.rank == 0 and runner.iter == runner.resumed_at:  # figures in a checkpoint are of an epoch before it
        print(
            f'nothing was left to train: {cfg.load_from} has gone through all of it; train longer with more epochs, or '
            f'evaluate: fasternet-mm test {shlex.quote(cfg.work_dir)}'
        )
    elif runner.rank == 0:
        scalars = runner.message_hub.log_scalars
        metrics = {k[4:]: v.current() for k, v in scalars.items() if k.startswith('val/') and 'time' not in k}
        if metrics:
            print(metric_table(metrics))
        print(f'checkpoints: {cfg.work_dir}\nlog:         {runner.log_dir}')
        if args.data:
            print(f'try it:      fasternet-mm predict {shlex.quote(cfg.work_dir)} IMAGES')


def images_at_once(cfg, runner) -> int:
    """Images that went through the model together in a step, of each process."""
    micro_batches = getattr(runner.train_loop, 'micro_batches', None)
    return micro_batches.images_at_once if micro_batches else cfg.train_dataloader.batch_size


def prepare(cfg, args: argparse.Namespace, cards: Sequence[Card]):
    """The config with all that the command line says, and with a plan for the user's own data; files are in place."""
    from ..devices import tell_unused_gpu
    from ..engine.config import default_work_dir
    from ..engine.work_dir import refuse_earlier_training
    from ..errors import UserError
    from ..own_data.plan.training_plan import earlier_run

    of_own_data = args.size, args.epochs, args.ignore_label, args.group
    if args.data is None and (args.dry_run or any(option is not None for option in of_own_data)):
        raise UserError('--dry-run, --size, --epochs, --ignore-label and --group are for --data DIR: name the folder')
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir(args.config, args.data)
    tell_unused_gpu()
    use_options(cfg, args, cards)
    resume = args.resume or cfg.get('resume')
    resumed = checkpoint_to_resume(cfg, args) if resume else None
    if not (resumed or args.dry_run):
        refuse_earlier_training(cfg.work_dir)
    if args.data:
        use_data(cfg, args, cards, resumed, earlier_run(Path(cfg.work_dir), resumed) if resume else None)
    return cfg


def use_options(cfg, args: argparse.Namespace, cards: Sequence[Card]) -> None:
    """Change the config as the options say that are not of the user's own data."""
    from ..errors import UserError

    if args.seed is not None:
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': args.seed}
    use_precision(cfg, args, cards)
    if not args.data:
        use_batch(cfg, args)
    if args.tensorboard:
        log_for_tensorboard(cfg)
    if args.compile:
        cfg.compile = cfg.get('compile') or True
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError(f'--auto-scale-lr: {args.config} does not say its batch (auto_scale_lr.base_batch_size)')
        cfg.auto_scale_lr.enable = True
    if args.load_from:
        cfg.load_from = args.load_from
        cfg.load_options = dict(new_heads=args.new_heads, allow_mismatch=args.allow_mismatch)
    elif args.new_heads or args.allow_mismatch:
        raise UserError(
            '--new-heads and --allow-mismatch say how to start from other weights: add --load-from CHECKPOINT'
        )


def use_precision(cfg, args: argparse.Namespace, cards: Sequence[Card]) -> None:
    """Change the config as ``--amp`` says, or recommend it where a GPU would gain by it."""
    from ..devices import cpu_computes_bfloat16
    from ..engine.device_memory import half_precision_of
    from ..engine.mixed_precision import compute_in_float32, is_mixed, mix_precision, mix_precision_on_cpu
    from ..errors import UserError

    if args.amp is False:
        compute_in_float32(cfg)
    elif not cards and (args.amp or is_mixed(cfg)):
        if not cpu_computes_bfloat16():
            what, remedy = (
                ('--amp', 'train without it') if args.amp else ("the config's mixed precision", 'add --no-amp')
            )
            raise UserError(
                f'{what} needs a GPU with CUDA, or a CPU that computes in bfloat16, and PyTorch sees neither: {remedy}'
            )
        mix_precision_on_cpu(cfg)
    elif args.amp:
        mix_precision(cfg, half_precision_of(cards))
    elif cards and not args.data and not is_mixed(cfg):
        half = half_precision_of(cards)
        print(f'Mixed precision ({half}) is faster on this GPU and takes about half the memory: add --amp.', flush=True)


def use_batch(cfg, args: argparse.Namespace) -> None:
    """Set a config's images per step and workers, where the options say them."""
    from mmengine.dist import get_world_size

    from ..engine.processes import share_of_batch
    from ..own_data.plan.computing import use_workers

    if args.batch:
        cfg.train_dataloader.batch_size = share_of_batch(args.batch, get_world_size())
    if args.workers is not None:
        use_workers(cfg, args.workers)


def checkpoint_to_resume(cfg, args: argparse.Namespace) -> str | None:
    """The checkpoint that training goes on from, which the config then names; None where there is none yet."""
    from ..engine.runner import latest_checkpoint

    named = cfg.get('load_from') if args.resume is None else args.resume
    resumed = named if isinstance(named, str) else latest_checkpoint(cfg.work_dir)
    cfg.resume = resumed is not None
    cfg.load_from = resumed or cfg.get('load_from')
    return resumed


def use_data(cfg, args: argparse.Namespace, cards: Sequence[Card], resumed: str | None, earlier: Path | None) -> None:
    """Make the config one for the user's own data, show what was decided, and write it into the work directory.

    All is written into a draft first, on which all checks are made. A dry run leaves a work directory that holds a
    training as it is.

    Args:
        cfg: with all else that the command line says; it is changed.
        args: of the command line.
        cards: the GPU of each process; none where they compute on CPUs.
        resumed: the checkpoint that training goes on from, if any.
        earlier: the work directory of that run, if it has the run's split.
    """
    import tempfile

    from mmengine.dist import get_world_size

    from ..engine.config import merge_options
    from ..engine.runner import check_run
    from ..engine.work_dir import checkpoint_of_training
    from ..files import drafting
    from ..own_data.plan.sample_sheet import draw_samples
    from ..own_data.plan.training_plan import begin_draft, plan_text, put_in_place, use_own_data

    work_dir = Path(cfg.work_dir)
    untouched = checkpoint_of_training(cfg.work_dir) if args.dry_run else None
    with tempfile.TemporaryDirectory() if untouched else drafting(work_dir) as draft:
        begin_draft(Path(draft), work_dir, args.data)
        cfg.work_dir = str(draft)
        plan = use_own_data(
            cfg,
            args.data,
            seed=args.seed or 0,
            size=args.size and tuple(args.size),
            epochs=args.epochs,
            ignored=args.ignore_label,
            processes=get_world_size(),
            pattern=args.group,
            earlier=earlier,
            cards=cards,
            batch=args.batch,
            mixed=args.amp,
            workers=args.workers,
        )
        merge_options(cfg, args.cfg_options)  # what the user says counts more than what was decided
        cfg.work_dir = str(draft)  # which the options may have named otherwise, and the checkpoint
        if resumed:
            cfg.load_from, cfg.resume = resumed, True
        check_run(cfg, ('train', 'val'))
        print(plan_text(plan), flush=True)
        if untouched:
            advice = 'train with --resume, or in another --work-dir'
            print(f'{work_dir} holds {untouched.name}: nothing was written; {advice}')
            return
        draw_samples(cfg, plan.data.image_classes['train'], Path(draft, 'samples.png'))
        config = put_in_place(cfg, work_dir)
    print(f'{"samples:":15}{work_dir / "samples.png"}\n{"config:":15}{config}', flush=True)
    if args.dry_run:
        print(f'To train: the same command without --dry-run; nothing has to be edited in {config}')


def log_for_tensorboard(cfg) -> None:
    """Add TensorBoard to what the config's visualizer writes for."""
    from importlib.util import find_spec

    from ..errors import UserError

    if find_spec('tensorboard') is None:
        raise UserError('--tensorboard needs the package tensorboard, which is not installed: pip install tensorboard')
    visualizer = cfg.setdefault('visualizer', dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]))
    backends = visualizer.get('vis_backends') or []
    if not any('TensorboardVisBackend' in str(backend.type) for backend in backends):
        visualizer.vis_backends = [*backends, dict(type='TensorboardVisBackend')]
