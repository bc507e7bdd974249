"""The models that people choose among: latency on this machine, size, and accuracy where a figure is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..acceleration.optimization import optimize
from ..engine.config import load_config
from ..engine.packaged_configs import config_path
from ..engine.runner import build_model
from ..models.published import MASK_RCNN_AP
from .detectors import DetectorTask, default_size, prepare_detector
from .timing import Candidate

SEGMENTER_SIZE = 512, 512
"""Height and width, in pixels, of the crops that segmenters learn from on ADE20K."""

FOUND = 20
"""Boxes that pass the score threshold of a random detector: about as much as a usual image has objects."""


@dataclass(frozen=True)
class KnownAccuracy:
    """AP of boxes in per cent, on which data, and who measured it: 'published' or 'measured here'."""

    data: str
    box_ap: float
    source: str


@dataclass(frozen=True)
class ComparedModel:
    """A packaged config, at a size.

    Attributes:
        config: its name.
        size: height and width of the image, in pixels. None: see `default_size`; of segmenters `SEGMENTER_SIZE`.
        accuracy: None where nothing is known.
    """

    config: str
    size: tuple[int, int] | None = None
    accuracy: KnownAccuracy | None = None

    @property
    def method(self) -> str:
        return self.config.partition('_fasternet_')[0]

    @property
    def variant(self) -> str:
        return self.config.rpartition('_')[2].upper()


BLOOD_CELLS = 'BCCD'
"""72 test images; the models were trained from scratch on 205: see docs/benchmarks.md."""

COMPARED = (
    *(ComparedModel(f'rtmdet_fasternet_{arch}') for arch in ('t0', 't1', 't2', 's')),
    *(ComparedModel(f'faster_rcnn_fasternet_{arch}') for arch in ('t0', 's')),
    *(ComparedModel(f'rtmdet_ins_fasternet_{arch}') for arch in ('t0', 't1', 't2', 's')),
    ComparedModel('mask_rcnn_fasternet_t0'),
    *(
        ComparedModel(f'mask_rcnn_fasternet_{arch}', accuracy=KnownAccuracy('COCO', ap.box, 'published'))
        for arch, ap in MASK_RCNN_AP.items()
    ),
    *(ComparedModel(f'fpn_fasternet_{arch}') for arch in ('t0', 's')),
    *(ComparedModel(f'upernet_fasternet_{arch}') for arch in ('t0', 's')),
    # At the sizes at which they were trained; 427 pixels are padded to 448.
    ComparedModel('rtmdet_fasternet_t0', (480, 640), KnownAccuracy(BLOOD_CELLS, 60.6, 'measured here')),
    ComparedModel('faster_rcnn_fasternet_t0', (320, 448), KnownAccuracy(BLOOD_CELLS, 60.2, 'measured here')),
)


def model_candidates(models: Sequence[ComparedModel], device: str) -> list[Candidate]:
    """Each model as the commands run it, optimized, with random weights, from an image to what it finds.

    Their rows have ``method``, ``variant``, ``height``, ``width``, ``parameters`` and ``accuracy``, a dict or None.
    """
    return [_candidate(model, device) for model in models]


def _candidate(model: ComparedModel, device: str) -> Candidate:
    config = config_path(model.config)
    segments = model.method in ('fpn', 'upernet')
    height, width = model.size or (SEGMENTER_SIZE if segments else default_size(config))
    if segments:
        prepare = partial(_prepare_segmenter, config, height, width, device)
    else:
        task = DetectorTask(config, height, width, device=device, random_boxes=FOUND)
        prepare = partial(prepare_detector, 'optimized', task)
    with torch.device('meta'):
        parameters = sum(parameter.numel() for parameter in build_model(load_config(config)).parameters())
    return Candidate(
        name=model.config if model.size is None else f'{model.config}, {height}×{width}',
        engine='optimized',
        prepare=prepare,
        facts=dict(
            method=model.method,
            variant=model.variant,
            height=height,
            width=width,
            parameters=parameters,
            accuracy=vars(model.accuracy) if model.accuracy else None,
        ),
    )


def _prepare_segmenter(config: str, height: int, width: int, device: str) -> Callable[[], Any]:
    from mmseg.structures import SegDataSample

    torch.manual_seed(0)
    segmenter = optimize(build_model(load_config(config)).eval().requires_grad_(False).to(device))
    pixels = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    sample = SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))
    return torch.inference_mode()(lambda: segmenter.test_step(dict(inputs=[pixels], data_samples=[sample])))
