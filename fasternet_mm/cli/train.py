"""Train a detector or segmenter."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.loggers import LOGGERS, add_loggers, check_loggers
from ..own_data.plan.recipe import INGREDIENTS
from .parsing import add_config, add_size, add_tiles, command_parser, positive, tiles_of

if TYPE_CHECKING:  # with PyTorch, which comes after the arguments
    from ..engine.device_memory import Card
    from ..inference.tiles import Tiling
    from ..own_data.layouts.annotated_data import OwnData
    from ..own_data.plan.model_choice import ModelChoice

EPILOG = """examples:
  fasternet-mm train --data my_images                               your own images and annotations
  fasternet-mm train rtmdet_fasternet_t0 --data my_images           boxes, with a model that a CPU trains
  fasternet-mm train --data more_images --start work_dirs/rtmdet_fasternet_t0_my_images
      from the weights of a former training
  fasternet-mm train shapes/mask_rcnn_fasternet_t0_shapes           five minutes on two cores, no data needed
  fasternet-mm train mask_rcnn_fasternet_s --auto-scale-lr          COCO 2017 in data/coco, one GPU
  torchrun --nproc_per_node 8 -m fasternet_mm train mask_rcnn_fasternet_s --launcher pytorch
      eight GPUs; tools/dist_train.sh and tools/slurm_train.sh in the clone do the same
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(prog, 'Train a detector or segmenter from a config.', EPILOG)
    add_config(result, without='; with --data it may be left out: the data and the device choose it')
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
        help='go on from a checkpoint; default: the latest in the work directory, or the start where there is none',
    )
    result.add_argument(
        '--on-nan',
        choices=('stop', 'skip'),
        default='stop',
        help='where losses or gradients are not finite: stop, or skip up to a hundredth of the steps; default: stop',
    )
    result.add_argument(
        '--on-bad-sample',
        choices=('stop', 'skip'),
        default='stop',
        help='where an image or its annotations cannot be read in the middle of training: stop, or take another one in '
        'its place, for up to a hundredth of them; default: stop',
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
        '--logger',
        nargs='+',
        action='extend',
        choices=list(LOGGERS),
        default=[],
        metavar='NAME',
        help=f'also record the training with {", ".join(LOGGERS)}: one or several (docs/experiment-tracking.md)',
    )
    result.add_argument(
        '--tensorboard',
        dest='logger',
        action='append_const',
        const='tensorboard',
        help='the same as --logger tensorboard; to see it: tensorboard --logdir WORK_DIR',
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
    tilt = group.add_mutually_exclusive_group()
    for name, model in (('fast', 'a smaller model'), ('accurate', 'a larger model, which takes more time')):
        help = f'without CONFIG: {model} than would be chosen'
        tilt.add_argument(f'--{name}', action='store_const', const=name, dest='tilt', help=help)
    group.add_argument('--dry-run', action='store_true', help='show the plan of the training, and do not train')
    add_size(
        group,
        help='resize images to fit into this height and width; default: by the size of the images and of the objects '
        'in them',
    )
    add_tiles(
        group,
        help='cut images that are larger than this height and width into tiles of so many pixels, with their '
        'annotations: for objects that are small against the image; the plan says where that would help',
    )
    group.add_argument(
        '--epochs',
        type=positive,
        metavar='N',
        help='train on each image N times; default: the fewer images, the more epochs',
    )
    group.add_argument(
        '--patience',
        type=positive,
        metavar='N',
        help='end the training after N evaluations in a row without a better one; default: never, since the falling '
        'learning rate brings the best figures at the end',
    )
    group.add_argument(
        '--without',
        nargs='+',
        action='extend',
        choices=list(INGREDIENTS),
        default=[],
        metavar='NAME',
        help='leave out of the training: ' + '; '.join(f'{name} ({what})' for name, what in INGREDIENTS.items()),
    )
    group.add_argument(
        '--no-balance', dest='without', action='append_const', const='balance', help='the same as --without balance'
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
        '--start',
        '--load-from',
        metavar='SOURCE',
        help='a work directory, for its best weights; a file, a URL, hf://user/name, or a published name (fasternet-mm '
        'weights list): all weights of the same model but for layers of other classes, the backbone of any other; '
        'scratch: random weights; --load-from is '
        "MMDetection's name for it; default: the config's own start, in most configs ImageNet weights of the backbone; "
        'with --data the best that can be had',
    )
    group.add_argument(
        '--allow-mismatch', action='store_true', help='take from SOURCE the tensors that fit, and list the rest'
    )


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
    from mmengine.config import Config

    from ..cpus import leave_computing_to_gpu
    from ..engine.device_memory import cards_of_training
    from ..engine.processes import from_rank_0, start_processes

    check_options(args)
    cfg = read_config(args.config, args) if args.config else None
    start_processes(Config(dict(env_cfg=cfg.get('env_cfg', {}) if cfg else {}, launcher=args.launcher)))
    leave_computing_to_gpu()
    cards = cards_of_training()
    with ExitStack() as lock:
        cfg = from_rank_0(lambda: prepare(cfg, args, cards, lock))
        if not args.dry_run:
            train(cfg, args)


def read_config(config: str, args: argparse.Namespace):
    """A config with the trackers that are asked for, whose settings ``--cfg-options`` may change as all others."""
    from ..engine.config import load_config, merge_options

    cfg = load_config(config)
    add_loggers(cfg, args.logger)
    merge_options(cfg, args.cfg_options)
    return cfg


def train(cfg, args: argparse.Namespace) -> None:
    """Train as a config says, then show the figures and where everything is."""
    import torch

    from ..engine.device_memory import out_of_memory
    from ..engine.runner import build_runner
    from ..engine.terminal import HeadingHook
    from ..engine.validation_loss import NAME as VALIDATION_LOSS
    from ..evaluation.table import metric_table

    runner = build_runner(cfg, ('train', 'val'))
    runner.register_hook(HeadingHook(planned=bool(args.data)))
    try:
        runner.train()
    except torch.cuda.OutOfMemoryError as error:
        raise out_of_memory(cfg, images_at_once(cfg, runner)) from error

    if runner.rank == 0 and runner.iter == runner.resumed_at:  # figures in a checkpoint are of an epoch before it
        print(nothing_left(cfg, ended_early=runner.train_loop.stop_training))
    elif runner.rank == 0:
        scalars = runner.message_hub.log_scalars
        others = 'time', VALIDATION_LOSS
        metrics = {
            name[4:]: values.current()
            for name, values in scalars.items()
            if name.startswith('val/') and not any(other in name for other in others)
        }
        if metrics:
            print(metric_table(metrics))
        print(f'checkpoints: {cfg.work_dir}\nlog:         {runner.log_dir}')
        if args.data:
            print(f'try it:      fasternet-mm predict {shlex.quote(cfg.work_dir)} IMAGES')


def nothing_left(cfg, ended_early: bool) -> str:
    """What is said where a resumed training was over before its first step."""
    reason = (
        'ended since evaluations did not get better; train longer with a larger --patience'
        if ended_early
        else 'has gone through all of it; train longer with more epochs'
    )
    evaluate = f'or evaluate: fasternet-mm test {shlex.quote(cfg.work_dir)}'
    return f'nothing was left to train: {cfg.load_from} {reason}, {evaluate}'


def images_at_once(cfg, runner) -> int:
    """Images that went through the model together in a step, of each process."""
    micro_batches = getattr(runner.train_loop, 'micro_batches', None)  # a loop may be the config's own
    return micro_batches.images_at_once if micro_batches else cfg.train_dataloader.batch_size


def check_options(args: argparse.Namespace) -> None:
    """Raise `UserError` where options contradict each other, or need another one."""
    from ..errors import UserError

    of_own_data = args.size, args.epochs, args.ignore_label, args.group, args.tilt, args.patience, args.without or None
    of_own_data += (args.tile,)
    tiles_of(args)
    if args.data is None:
        if args.dry_run or any(option is not None for option in of_own_data):
            raise UserError(
                '--dry-run, --size, --tile, --epochs, --patience, --without, --no-balance, --ignore-label, --group, '
                '--fast and --accurate are for --data DIR: name the folder'
            )
        if args.config is None:
            raise UserError(
                'name what to train: a CONFIG, such as rtmdet_fasternet_t0, or --data DIR with your own images, which '
                'choose it'
            )
    if args.config and args.tilt:
        raise UserError(
            f'--{args.tilt} chooses the model, and {args.config} is one: leave out the config, or --{args.tilt}'
        )
    if args.allow_mismatch and not args.start:
        raise UserError('--allow-mismatch says how to start from other weights: add --start SOURCE')


def prepare(cfg, args: argparse.Namespace, cards: Sequence[Card], lock: ExitStack):
    """The config with all that the command line says, and with a plan for the user's own data; files are in place.

    Args:
        cfg: as the user named it; None where the data choose it.
        args: of the command line.
        cards: the GPU of each process; none where they compute on CPUs.
        lock: keeps the work directory for this training until it is closed.
    """
    from ..devices import tell_unused_gpu
    from ..engine.config import default_work_dir
    from ..engine.folder_lock import folder_lock
    from ..engine.restarts import remember_launch, restarted_in
    from ..engine.start_checkpoint import start_from
    from ..engine.work_dir import checkpoint_of_training, refuse_earlier_training
    from ..errors import UserError
    from ..own_data.plan.model_choice import ModelChoice
    from ..own_data.plan.training_plan import earlier_run, read_data

    tell_unused_gpu()
    choice, data = ModelChoice(args.config, 'as you say'), None
    if cfg is None:
        data = read_data(args.data, ignored=args.ignore_label)
        choice = choose_config(data, args, cards)
        cfg = read_config(choice.config, args)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir(choice.config, args.data)
    use_options(cfg, args, cards)
    if restarted_in(cfg.work_dir):
        args.resume, args.start = True, None
    resume = args.resume or cfg.get('resume')
    if args.start and resume:
        raise UserError(
            '--start begins a new training from weights, --resume goes on with one that was interrupted: give one of '
            'the two'
        )
    if not (args.dry_run and checkpoint_of_training(cfg.work_dir)):  # which writes nothing
        lock.enter_context(folder_lock(cfg.work_dir))
    resumed = checkpoint_to_resume(cfg, args) if resume else None
    if not (resumed or args.dry_run):
        refuse_earlier_training(cfg.work_dir)
    if not args.dry_run:
        remember_launch(cfg.work_dir)
    if args.data:
        data = data or read_data(args.data, cfg, args.ignore_label)
        earlier = earlier_run(Path(cfg.work_dir), resumed) if resume else None
        use_data(cfg, data, args, cards, choice, resumed, earlier)
    elif args.start:
        print(f'start: {start_from(cfg, args.start, args.allow_mismatch)}', flush=True)
    return cfg


def choose_config(data: OwnData, args: argparse.Namespace, cards: Sequence[Card]) -> ModelChoice:
    """The model for the data; that of the run where one is resumed."""
    from ..own_data.plan.model_choice import ModelChoice, choose_model, model_of_run

    folder = Path(args.resume).parent if isinstance(args.resume, str) else args.work_dir
    resumed = model_of_run(Path(folder)) if args.resume and folder else None
    if resumed:
        return ModelChoice(resumed, 'as the run has it')
    return choose_model(data, cards, args.tilt)


def use_options(cfg, args: argparse.Namespace, cards: Sequence[Card]) -> None:
    """Change the config as the options say that are not of the user's own data."""
    from ..errors import UserError

    if args.seed is not None:
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': args.seed}
    cfg.on_nan, cfg.on_bad_sample = args.on_nan, args.on_bad_sample
    use_precision(cfg, args, cards)
    if not args.data:
        use_batch(cfg, args)
    check_loggers(cfg)
    if args.compile:
        cfg.compile = cfg.get('compile') or True
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError(f'--auto-scale-lr: {args.config} does not say its batch (auto_scale_lr.base_batch_size)')
        cfg.auto_scale_lr.enable = True


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
    from ..engine.work_dir import latest_checkpoint

    named = cfg.get('load_from') if args.resume is None else args.resume
    resumed = named if isinstance(named, str) else latest_checkpoint(cfg.work_dir)
    cfg.resume = resumed is not None
    cfg.load_from = resumed or cfg.get('load_from')
    what = progress(resumed) if resumed else f'{cfg.work_dir} holds no checkpoint: the training begins anew'
    print(f'resume: {what}', flush=True)
    return resumed


def progress(checkpoint: str) -> str:
    """A checkpoint and how far its training had come, for people.

    Raises:
        UserError: it is damaged, or cannot be had.
    """
    from ..weights.reading import check_file, read_meta
    from ..weights.sources import local_file

    with local_file(checkpoint) as path:
        check_file(path, checkpoint, thorough=True)
        meta = read_meta(path, checkpoint)
    done = {unit: meta.get(key) for unit, key in (('epoch', 'epoch'), ('step', 'iter'))}
    return ', '.join([checkpoint, *(f'{unit} {count:,}' for unit, count in done.items() if count)])


def use_data(
    cfg,
    data: OwnData,
    args: argparse.Namespace,
    cards: Sequence[Card],
    choice: ModelChoice,
    resumed: str | None,
    earlier: Path | None,
) -> None:
    """Make the config one for the user's own data, show what was decided, and write it into the work directory.

    All is written into a draft first, on which all checks are made. A dry run leaves a work directory that holds a
    training as it is.

    Args:
        cfg: with all else that the command line says; it is changed.
        data: as they were read.
        args: of the command line.
        cards: the GPU of each process; none where they compute on CPUs.
        choice: which config it is, and why.
        resumed: the checkpoint that training goes on from, if any.
        earlier: the work directory of that run, if it has the run's split.
    """
    import tempfile
    from dataclasses import replace

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
            data,
            seed=args.seed or 0,
            size=args.size and tuple(args.size),
            epochs=args.epochs,
            processes=get_world_size(),
            pattern=args.group,
            earlier=earlier,
            cards=cards,
            batch=args.batch,
            mixed=args.amp,
            workers=args.workers,
            start=args.start,
            allow_mismatch=args.allow_mismatch,
            patience=args.patience,
            without=args.without,
            tiling=tiling_of(args),
        )
        cfg.model_of_run = choice.config
        merge_options(cfg, args.cfg_options)  # what the user says counts more than what was decided
        cfg.work_dir = str(draft)  # which the options may have named otherwise, and the checkpoint
        if resumed:
            cfg.load_from, cfg.resume = resumed, True
        check_run(cfg, ('train', 'val'))
        time = measure_time(cfg, args, resumed)
        plan = replace(plan, model=f'{Path(choice.config).stem}, {choice.reason}', time=time)
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


def tiling_of(args: argparse.Namespace) -> Tiling | None:
    """How images are cut, as the options say; None where they do not."""
    from ..inference.tiles import OVERLAP, Tiling

    return Tiling(tuple(args.tile), args.overlap or OVERLAP) if args.tile else None


def measure_time(cfg, args: argparse.Namespace, resumed: str | None) -> str:
    """How long the training will take, for people; the log then tells of progress as often as they want to know."""
    import torch
    from mmengine.dist import get_world_size

    from ..devices import device_of_choice
    from ..own_data.plan.run_time import advice, measure_run_time, show_progress
    from ..weights.sources import read_checkpoint

    device = torch.device(device_of_choice())
    done = read_checkpoint(resumed, mmap=True)['meta']['iter'] if resumed else 0
    run_time = measure_run_time(cfg, device, get_world_size(), done)
    if not any(option.startswith('default_hooks.logger.interval=') for option in args.cfg_options):
        show_progress(cfg, run_time.step)
    return '\n'.join(filter(None, (str(run_time), advice(run_time.seconds, device, faster_model(args, cfg)))))


def faster_model(args: argparse.Namespace, cfg) -> str:
    """What to do for a faster model; '' where there is none."""
    if args.config is None:
        return 'leave out --accurate' if args.tilt == 'accurate' else ''
    fast = cfg.model.backbone.get('arch') == 't0' and Path(args.config).name.startswith(('rtmdet', 'fpn'))
    return '' if fast else 'leave out CONFIG, for the fastest model'
