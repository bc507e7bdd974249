"""The training step of a detector: the config as it stands, against the same config with MMDetection's own heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from ..engine.config import load_config
from ..engine.initialization import leave_out_pretrained
from ..engine.memory_layout import lay_out
from ..engine.mixed_precision import mix_precision, precision_of
from ..engine.optimizer import in_few_operators
from ..engine.runner import build_model
from ..errors import UserError
from ..models import FasterNet
from .detectors import use_mmdetections_heads
from .dispatched_operators import dispatched_operators
from .timing import Candidate
from .training_steps import check_amp, peak_bytes

OBJECTS_PER_IMAGE = 8
"""Boxes of each generated image: COCO's images have seven on average."""


@dataclass(frozen=True)
class DetectorStep:
    """A training step: preprocessing, forward and backward pass, and the optimizer's step with a learning rate of 0.

    So each step has the same weights. All else is as in training: the fused optimizer, the backbone's memory layout.

    Attributes:
        config: of MMDetection, a two-stage detector.
        batch: images of the step.
        height, width: of the images, in pixels.
        options: changes to the config, as 'key=value'.
        device: 'cpu' or 'cuda'.
        amp: 'float16' or 'bfloat16', on 'cuda' alone. None: as the config says.
        has_peer_heads: whether it has MMDetection's own heads, see `use_mmdetections_heads`. The backbone stays ours.
    """

    config: str
    batch: int
    height: int
    width: int
    options: tuple[str, ...] = ()
    device: str = 'cpu'
    amp: str | None = None
    has_peer_heads: bool = False

    def load(self) -> Config:
        """The config with its changes."""
        cfg = load_config(self.config, self.options)
        if not str(cfg.model.get('roi_head', {}).get('type')).endswith('StandardRoIHead'):
            raise UserError(f'{self.config} has no two-stage detector: give one like mask_rcnn_fasternet_s')
        if self.has_peer_heads:
            use_mmdetections_heads(cfg.model)
        if self.amp:
            mix_precision(cfg, self.amp)
        return cfg


def detector_training_candidates(step: DetectorStep) -> list[Candidate]:
    """A detector's training step with MMDetection's heads and with the config's own, on the same images and weights.

    Returns:
        Candidates with the facts ``step_bytes``, what the allocator has given out at the peak of a step beyond weights
        and the optimizer's state, and ``operators``: see `dispatched_operators`.

    Raises:
        UserError: the config has no two-stage detector, or the device does not train it in this precision.
    """
    if step.amp and step.device != 'cuda':
        raise UserError(f'--amp {step.amp}: MMEngine trains a detector in mixed precision on a GPU alone, leave it out')
    check_amp(step.amp, step.device)
    name = Path(step.config).stem
    baseline = name, 'MMDetection'
    with_peer_heads = replace(step, has_peer_heads=True)
    return [_candidate(baseline, with_peer_heads, baseline), _candidate((name, 'as configured'), step, baseline)]


def _candidate(key: tuple[str, str], step: DetectorStep, baseline: tuple[str, str]) -> Candidate:
    run = prepare_step(step)
    run()  # from now on there are gradients and the optimizer's state
    facts = dict(
        height=step.height,
        width=step.width,
        step_bytes=peak_bytes(run, step.device),
        operators=dispatched_operators(run),
    )
    return Candidate(
        name=key[0],
        engine=key[1],
        prepare=lambda: run,
        baseline=baseline,
        images=step.batch,
        precision=precision_of(step.load()),
        facts=facts,
    )


def prepare_step(step: DetectorStep) -> Callable[[], dict[str, Any]]:
    """Make the step ready, from random weights; what is returned takes it once, and returns the losses."""
    cfg = step.load()
    torch.manual_seed(0)
    detector = build_model(cfg)
    leave_out_pretrained(detector)
    detector.init_weights()
    detector.to(step.device).train()
    if isinstance(detector.backbone, FasterNet):
        lay_out(detector.backbone)
    optimizer = build_optim_wrapper(detector, in_few_operators(cfg.optim_wrapper, detector))
    optimizer.initialize_count_status(detector, 0, 1)
    for group in optimizer.param_groups:
        group['lr'] = 0.0
    batch = demo_mm_inputs(
        step.batch,
        (3, step.height, step.width),
        num_items=[OBJECTS_PER_IMAGE] * step.batch,
        num_classes=cfg.model.roi_head.bbox_head.num_classes,
        with_mask=detector.roi_head.with_mask,
    )
    return partial(_take, detector, batch, optimizer)


def _take(detector: nn.Module, batch: dict[str, Any], optimizer: OptimWrapper) -> dict[str, Any]:
    batch = dict(batch, data_samples=[sample.clone() for sample in batch['data_samples']])  # preprocessing changes them
    return detector.train_step(batch, optimizer)
