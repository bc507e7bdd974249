"""Train a detector or segmenter."""

import argparse
import os

from command_line import config_parser, run

EPILOG = """examples:
  python tools/train.py configs/shapes/mask_rcnn_fasternet_t0_shapes.py      five minutes on two cores, no data needed
  python tools/train.py configs/mask_rcnn_fasternet_s.py --auto-scale-lr     COCO 2017 under data/coco, one GPU
  python tools/train.py CONFIG --load-from mask_rcnn_fasternet_s_coco --new-heads
      on your own classes from COCO's weights
  bash tools/dist_train.sh configs/mask_rcnn_fasternet_s.py 8                eight GPUs
"""


def arguments() -> argparse.ArgumentParser:
    result = config_parser('Train a detector or segmenter from a config.', EPILOG)
    result.add_argument('--work-dir', help="folder of logs and checkpoints; default: work_dirs/ and the config's name")
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


def main(args: argparse.Namespace) -> None:
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    import torch

    from fasternet_mm.engine.config import default_work_dir, load_config
    from fasternet_mm.engine.runner import build_runner, latest_checkpoint
    from fasternet_mm.errors import UserError
    from fasternet_mm.evaluation.table import metric_table

    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir(args.config)
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
    if args.resume:
        resumed = latest_checkpoint(cfg.work_dir) if args.resume is True else args.resume
        if resumed:
            cfg.load_from, cfg.resume = resumed, True

    runner = build_runner(cfg, ('train', 'val'))
    runner.train()

    if runner.rank == 0:
        scalars = runner.message_hub.log_scalars
        metrics = {k[4:]: v.current() for k, v in scalars.items() if k.startswith('val/') and 'time' not in k}
        if metrics:
            print(metric_table(metrics))
        print(f'checkpoints: {cfg.work_dir}\nlog:         {runner.log_dir}')


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
