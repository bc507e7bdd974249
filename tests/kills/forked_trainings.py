"""Trainings of small models, each in a process that is forked from this one, which has imported everything.

A start takes a second so, and hundreds of kills some minutes.
"""

import multiprocessing
import os
import sys
from pathlib import Path

import mmdet.apis  # noqa: F401  this and the next import models and data sets
import mmseg.apis  # noqa: F401
import torch
from mmengine.config import Config
from small_models import SMALL

from fasternet_mm.cli import main

ROOT = Path(__file__).parent.parent.parent
SECONDS = 300
"""More than any training here takes, on a busy machine."""


def detector(data):
    """Mask R-CNN: four epochs of three steps, after each a checkpoint and a validation; weights are averaged."""
    cfg = Config.fromfile(ROOT / 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py')
    cfg.model.backbone.arch, cfg.model.neck.in_channels = SMALL, [16, 32, 64, 128]
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.update(max_epochs=4, val_interval=1)
    cfg.default_hooks.checkpoint.update(interval=1, save_best='coco/bbox_mAP')
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.1, priority=49)]
    cfg.model.test_cfg.rcnn.max_per_img = 5
    return small(cfg, data, images=6, workers=0)


def segmenter(data):
    """UPerNet: 16 steps, a checkpoint after each second and a validation after each eighth; a process loads data."""
    cfg = Config.fromfile(ROOT / 'configs/shapes/upernet_fasternet_t0_shapes.py')
    cfg.model.backbone.arch, cfg.model.auxiliary_head.in_channels = SMALL, 64
    cfg.model.decode_head.update(in_channels=[16, 32, 64, 128], channels=16)
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.update(max_iters=16, val_interval=8)
    cfg.default_hooks.checkpoint.update(interval=2)
    return small(cfg, data, images=16, workers=1)


def fast_detector(data):
    """RTMDet-Ins: four epochs of three steps, the last two on images as they are; weights are averaged."""
    cfg = Config.fromfile(ROOT / 'configs/shapes/rtmdet_ins_fasternet_t0_shapes.py')
    cfg.model.backbone.arch, cfg.model.neck.in_channels = SMALL, [32, 64, 128]
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.update(max_epochs=4, val_interval=2)
    pipeline = [step for step in cfg.train_dataloader.dataset.pipeline if step.type != 'RandomFlip']
    cfg.custom_hooks.append(dict(type='fasternet_mm.PipelineSwitchHook', switch_epoch=2, switch_pipeline=pipeline))
    return small(cfg, data, images=6, workers=0)


def small(cfg, data, images, workers):
    cfg.train_dataloader.dataset.indices, cfg.val_dataloader.dataset.indices = images, 2
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(data)
        loader.update(num_workers=workers, persistent_workers=workers > 0)
    if 'ann_file' in cfg.val_evaluator:
        for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
            evaluator.ann_file = f'{data}/annotations/val.json'
    cfg.default_hooks.logger.interval = 1
    return cfg


def start(*arguments, log, environment=None):
    """A process that runs ``fasternet-mm train``."""
    process = multiprocessing.get_context('fork').Process(target=_run, args=(arguments, log, environment or {}))
    process.start()
    return process


def train(*arguments, log, environment=None, seconds=SECONDS):
    """Its exit status, once it has ended."""
    process = start(*arguments, log=log, environment=environment)
    process.join(seconds)
    return process.exitcode


def _run(arguments, log, environment):
    os.environ.update(environment)
    torch.set_num_threads(1)
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = sys.stderr = open(1, 'w', buffering=1, closefd=False)  # noqa: SIM115  until the process ends
    main(['train', *map(str, arguments)])


def equal(first, second):
    """Whether two states are the same to the last bit."""
    match first:
        case torch.Tensor():
            return torch.equal(first, second)
        case dict():
            return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
        case list() | tuple():
            return len(first) == len(second) and all(map(equal, first, second))
    return first == second
