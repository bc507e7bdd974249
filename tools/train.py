"""Train a detector or segmenter."""

import argparse
import os
import shlex
from pathlib import Path

from command_line import config_parser, positive, run

EPILOG = """examples:
  python tools/train.py configs/shapes/mask_rcnn_fasternet_t0_shapes.py      five minutes on two cores, no data needed
  python tools/train.py configs/mask_rcnn_fasternet_s.py --data my_images  your own images and annotations
  python tools/train.py configs/mask_rcnn_fasternet_s.py --auto-scale-lr     COCO 2017 under data/coco, one GPU
  python tools/train.py CONFIG --load-from mask_rcnn_fasternet_s_coco --new-heads
      on your own classes from COCO's weights
  bash tools/dist_train.sh configs/mask_rcnn_fasternet_s.py 8                eight GPUs
"""


def arguments() -> argparse.ArgumentParser:
    result = config_parser('Train a detector or segmenter from a config.', EPILOG)
    result.add_argument('--work-dir', help="folder of logs and checkpoints; default: work_dirs/ and the config's name")
    result.add_argument(
        '--data',
        metavar='DIR',
        help='your own images with annotations: COCO, Pascal VOC, YOLO, LabelMe or VIA; label maps for segmenters '
        '(docs/your-own-data.md)',
    )
    result.add_argument(
        '--dry-run', action='store_true', help='with --data: show what was found and decided, and stop before training'
    )
    result.add_argument(
        '--size',
        type=size,
        metavar='WxH',
        help='with --data: resize images to fit into this size; default: by what is in them',
    )
    result.add_argument(
        '--epochs',
        type=positive,
        metavar='N',
        help='with --data: how often each image is seen; default: by their number',
    )
    result.add_argument(
        '--ignore-label',
        type=label,
        metavar='N',
        help='with --data: the label of pixels that are no class; default: 255',
    )
    result.add_argument(
        '--group',
        metavar='REGEX',
        help='with --data: images whose paths have the same match, or the same first group of it, are never split, '
        'such as frames of a video: "(video[0-9]+)_"',
    )
    result.add_argument(
        '--resume',
        nargs='?',
        const=True,
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a value, from the newest in the work directory, or from the start',
    )
    result.add_argument(
        '--load-from',
        metavar='CHECKPOINT',
        help='start from the weights of a whole model: a file, a URL, or a published name (tools/weights.py list)',
    )
    result.add_argument(
        '--new-heads',
        action='store_true',
        help='with --load-from a model of other classes: start the layers that depend on their number afresh',
    )
    result.add_argument(
        '--allow-mismatch', action='store_true', help='with --load-from: take what fits, and list what does not'
    )
    result.add_argument('--amp', action='store_true', help='mixed precision (needs a GPU)')
    result.add_argument(
        '--compile',
        action='store_true',
        help='compile the backbone with torch.compile: the first steps take minutes, the others less time',
    )
    result.add_argument(
        '--auto-scale-lr', action='store_true', help="scale the learning rate from the config's batch to the actual one"
    )
    result.add_argument(
        '--tensorboard',
        action='store_true',
        help='also log for TensorBoard; look at it with: tensorboard --logdir WORK_DIR',
    )
    result.add_argument('--seed', type=int, help='seed of everything random, for a repeatable run')
    result.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm'],
        default='none',
        help='what started several processes; tools/dist_train.sh and tools/slurm_train.sh set it',
    )
    # torch.distributed.launch of old hands it over as an option, torchrun in the environment.
    result.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return result


def label(text: str) -> int:
    if not (text.isdecimal() and int(text) < 256):
        raise argparse.ArgumentTypeError(f'{text}: give a label of PNGs of 8 bits, from 0 to 255')
    return int(text)


def size(text: str) -> tuple[int, int]:
    width, _, height = text.partition('x')
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 32):
        raise argparse.ArgumentTypeError(f'{text}: give two numbers of pixels, at least 32, as in 1333x800')
    return int(width), int(height)


def main(args: argparse.Namespace) -> None:
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    from fasternet_mm.engine.config import load_config
    from fasternet_mm.engine.processes import from_rank_0, start_processes
    from fasternet_mm.engine.runner import build_runner
    from fasternet_mm.evaluation.table import metric_table

    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    start_processes(cfg)
    cfg = from_rank_0(lambda: prepare(cfg, args))
    if args.dry_run:
        return
    runner = build_runner(cfg, ('train', 'val'))
    runner.train()

    if runner.rank == 0 and runner.iter == runner.resumed_at:  # figures in a checkpoint are of an epoch before it
        print(
            f'nothing was left to train: {cfg.load_from} has gone through all of it; train longer with more epochs, or '
            f'evaluate: python tools/test.py {shlex.quote(cfg.work_dir)}'
        )
    elif runner.rank == 0:
        scalars = runner.message_hub.log_scalars
        metrics = {k[4:]: v.current() for k, v in scalars.items() if k.startswith('val/') and 'time' not in k}
        if metrics:
            print(metric_table(metrics))
        print(f'checkpoints: {cfg.work_dir}\nlog:         {runner.log_dir}')
        if args.data:
            print(f'try it:      python tools/predict.py {shlex.quote(cfg.work_dir)} IMAGES')


def prepare(cfg, args: argparse.Namespace):
    """The config with all that the command line says, and with a plan for the user's own data; files are in place."""
    from fasternet_mm.engine.config import default_work_dir
    from fasternet_mm.engine.work_dir import refuse_earlier_training
    from fasternet_mm.errors import UserError
    from fasternet_mm.own_data.plan.training_plan import earlier_run

    with_data = args.dry_run, args.size, args.epochs, args.ignore_label is not None, args.group is not None
    if args.data is None and any(with_data):
        raise UserError('--dry-run, --size, --epochs, --ignore-label and --group are for --data DIR: name the folder')
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir(args.config, args.data)
    use_options(cfg, args)
    resume = args.resume or cfg.get('resume')
    resumed = checkpoint_to_resume(cfg, args) if resume else None
    if not (resumed or args.dry_run):
        refuse_earlier_training(cfg.work_dir)
    if args.data:
        use_data(cfg, args, resumed, earlier_run(Path(cfg.work_dir), resumed) if resume else None)
    return cfg


def use_options(cfg, args: argparse.Namespace) -> None:
    """Change the config as the options say that are not of the user's own data."""
    import torch

    from fasternet_mm.errors import UserError

    if args.seed is not None:
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': args.seed}
    if args.amp:
        if not torch.cuda.is_available():
            raise UserError('--amp needs a GPU, and PyTorch sees none: train without --amp')
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
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


def checkpoint_to_resume(cfg, args: argparse.Namespace) -> str | None:
    """The checkpoint that training goes on from, which the config then names; None where there is none yet."""
    from fasternet_mm.engine.runner import latest_checkpoint

    named = cfg.get('load_from') if args.resume is None else args.resume
    resumed = named if isinstance(named, str) else latest_checkpoint(cfg.work_dir)
    cfg.resume = resumed is not None
    cfg.load_from = resumed or cfg.get('load_from')
    return resumed


def use_data(cfg, args: argparse.Namespace, resumed: str | None, earlier: Path | None) -> None:
    """Make the config one for the user's own data, show what was decided, and write it into the work directory.

    All is written into a draft first, on which all checks are made. A dry run leaves a work directory that holds a
    training as it is.

    Args:
        cfg: with all else that the command line says; it is changed.
        args: of the command line.
        resumed: the checkpoint that training goes on from, if any.
        earlier: the work directory of that run, if it has the run's split.
    """
    import tempfile

    from mmengine.dist import get_world_size

    from fasternet_mm.engine.config import merge_options
    from fasternet_mm.engine.runner import check_run
    from fasternet_mm.engine.work_dir import checkpoint_of_training
    from fasternet_mm.files import drafting
    from fasternet_mm.own_data.plan.sample_sheet import draw_samples
    from fasternet_mm.own_data.plan.training_plan import begin_draft, plan_text, put_in_place, use_own_data

    work_dir = Path(cfg.work_dir)
    untouched = checkpoint_of_training(cfg.work_dir) if args.dry_run else None
    with tempfile.TemporaryDirectory() if untouched else drafting(work_dir) as draft:
        begin_draft(Path(draft), work_dir, args.data)
        cfg.work_dir = str(draft)
        plan = use_own_data(
            cfg,
            args.data,
            seed=args.seed or 0,
            size=args.size and args.size[::-1],
            epochs=args.epochs,
            ignored=args.ignore_label,
            processes=get_world_size(),
            pattern=args.group,
            earlier=earlier,
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

    from fasternet_mm.errors import UserError

    if find_spec('tensorboard') is None:
        raise UserError('--tensorboard needs the package tensorboard, which is not installed: pip install tensorboard')
    visualizer = cfg.setdefault('visualizer', dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]))
    backends = visualizer.get('vis_backends') or []
    if not any('TensorboardVisBackend' in str(backend.type) for backend in backends):
        visualizer.vis_backends = [*backends, dict(type='TensorboardVisBackend')]


if __name__ == '__main__':
    run(main, arguments())
