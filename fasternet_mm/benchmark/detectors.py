"""Whole detectors, from an image to boxes or masks, against MMDetection as it stands with timm's FasterNet."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.models import FPN, SingleStageDetector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import Tensor, nn

from ..acceleration.folding import fold_norm_before
from ..acceleration.optimization import optimize
from ..datasets.padded_size import padded_size
from ..engine.config import load_config
from ..engine.runner import build_model
from ..errors import UserError
from ..extras import require
from ..models import FasterNet
from ..models.published import CLASSIFIERS
from ..weights.checkpoint_layouts import recognize
from ..weights.loading import load_weights
from .detector_parts import PartClock
from .network_engines import ENGINES
from .timing import WARM_UP_CALLS, Candidate, take_turns

COCO_SIZE = 800, 1216

CANDIDATE_BOXES = 1000
"""Boxes that pass the score threshold of random weights, by default: enough for the most detections of ``test_cfg``."""

HEADS = 'RPNHead', 'StandardRoIHead', 'SingleRoIExtractor', 'RTMDetInsSepBNHead'
"""Classes of this package that take the place of MMDetection's of the same names."""


@dataclass(frozen=True)
class DetectorTask:
    """A detector and the image that it gets.

    Attributes:
        config: of MMDetection, a detector of one stage or two with FasterNet as its backbone.
        height, width: of the image, in pixels; no resizing is part of what is timed.
        options: changes to the config, as 'key=value'.
        checkpoint: weights of exactly that model. None: random ones.
        image: a file, resized beforehand. None: noise.
        any_size: export for images of any size, not for this one alone.
        device: 'cpu' or 'cuda'.
        random_boxes: how many boxes pass the score threshold where weights are random.
    """

    config: str
    height: int
    width: int
    options: tuple[str, ...] = ()
    checkpoint: str | None = None
    image: str | None = None
    any_size: bool = False
    device: str = 'cpu'
    random_boxes: int = CANDIDATE_BOXES

    @property
    def name(self) -> str:
        return Path(self.config).stem

    @property
    def peer(self) -> str:
        """The name of MMDetection's own with timm's FasterNet."""
        return f'{self.name}, timm'

    def pixels(self) -> Tensor:
        """uint8 ``(3, height, width)``, BGR."""
        if self.image is None:
            pixels = np.random.default_rng(0).integers(0, 256, (self.height, self.width, 3), np.uint8)
        else:
            pixels = cv2.imread(self.image)
            if pixels is None:
                raise UserError(f'{self.image} is not an image that can be read: use JPEG or PNG')
            pixels = cv2.resize(pixels, (self.width, self.height))
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def default_size(config: str, options: Sequence[str] = ()) -> tuple[int, int]:
    """(height, width) that the config pads images to; where it does not, of a usual photo in COCO's recipe."""
    return padded_size(load_config(config, options)) or COCO_SIZE


def detector_candidates(
    task: DetectorTask, engines: Sequence[str], baseline: tuple[str, str] | None = None
) -> list[Candidate]:
    """The detector with each engine, and MMDetection in eager mode with timm's FasterNet inside.

    Their rows have ``detections``, the number of them: with the same precision it should be the same.

    Args:
        task: the detector and its image.
        engines: by name: see `check_engines`.
        baseline: name and engine of what all are compared with. Default: MMDetection's.

    Raises:
        UserError: the config, the checkpoint, the image or an engine cannot be used.
    """
    require('timm', 'comparing with timm')
    if any(ENGINES[engine].runtime == 'graphed' for engine in engines):
        raise UserError('engine graphed is for networks alone, use optimized: it has CUDA graphs of its own')
    task.pixels()
    _build(task)
    peer = task.peer
    pairs = dict.fromkeys([(peer, 'eager'), *((task.name, engine) for engine in engines)])
    return [
        Candidate(
            name=name,
            engine=engine,
            prepare=partial(prepare_detector, 'timm' if name == peer else engine, task),
            baseline=baseline or (peer, 'eager'),
            precision=ENGINES[engine].precision,
            facts=dict(height=task.height, width=task.width),
            packages=('timm', 'mmdet.models', *ENGINES[engine].modules),
            result_facts=lambda samples: dict(detections=len(samples[0].pred_instances)),
        )
        for name, engine in pairs
    ]


def prepare_detector(engine: str, task: DetectorTask) -> Callable[[], Any]:
    """Make the detector ready; what is returned runs it on the task's image, and returns data samples.

    Args:
        engine: one of `ENGINES`, or 'timm': MMDetection in eager mode with timm's FasterNet.
    """
    if engine != 'timm' and ENGINES[engine].packages:
        cfg, detector = _build(task)
        exported = _exported(cfg, detector, task, ENGINES[engine].runtime, ENGINES[engine].precision)
        return _detection(exported, task.pixels())
    detector, dtype = _detector(engine, task)
    return _autocast(_detection(detector, task.pixels()), dtype, task.device)


def _detector(engine: str, task: DetectorTask) -> tuple[nn.Module, torch.dtype | None]:
    """A detector of its own that runs in PyTorch, and the type for autocast around it."""
    cfg, detector = _build(task)
    if engine == 'timm':
        return with_timm_backbone(with_mmdetections_heads(cfg, detector)).to(task.device), None
    runtime, dtype = ENGINES[engine].runtime, ENGINES[engine].dtype
    if runtime == 'eager':
        return copy.deepcopy(detector).to(task.device), dtype
    detector = detector.to(task.device)
    return optimize(detector, dtype=dtype, compile=runtime == 'compiled'), None


def _autocast(call: Callable[[], Any], dtype: torch.dtype | None, device: str) -> Callable[[], Any]:
    return torch.autocast(device, dtype)(call) if dtype else call


def add_parts(task: DetectorTask, rows: Sequence[dict[str, Any]], rounds: int) -> None:
    """Put ``parts`` into the row of each detector that runs in PyTorch: seconds of each of `PARTS`, medians.

    The detectors take turns once more, since telling the parts apart costs time that the whole must not have.

    Args:
        task: as in `detector_candidates`.
        rows: of the comparison; those of other tasks stay as they are.
        rounds: turns of each, of two calls.
    """
    runs, clocks = {}, {}
    for row in rows:
        if row['name'] not in (task.name, task.peer) or ENGINES[row['engine']].packages:
            continue
        key = row['name'], row['engine']
        detector, dtype = _detector('timm' if row['name'] == task.peer else row['engine'], task)
        runs[key] = _autocast(_detection(detector, task.pixels()), dtype, task.device)
        for _ in range(WARM_UP_CALLS[task.device]):
            runs[key]()
        clocks[key] = PartClock(detector)
    take_turns(runs, rounds, 0, clocks)
    for row in rows:
        if (row['name'], row['engine']) in clocks:
            row['parts'] = clocks[row['name'], row['engine']].medians()


def _detection(detector: nn.Module, pixels: Tensor) -> Callable[[], Any]:
    size = tuple(pixels.shape[1:])
    facts = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0), img_id=0)
    return torch.inference_mode()(
        lambda: detector.test_step(dict(inputs=[pixels], data_samples=[DetDataSample(metainfo=facts)]))
    )


@lru_cache(maxsize=4)
def _build(task: DetectorTask) -> tuple[Config, nn.Module]:
    torch.manual_seed(0)
    cfg = load_config(task.config, task.options)
    detector = build_model(cfg).eval().requires_grad_(False)
    two_stages = hasattr(detector, 'roi_head')
    if not isinstance(getattr(detector, 'backbone', None), FasterNet) or not (
        two_stages or isinstance(detector, SingleStageDetector)
    ):
        raise UserError(
            f'{task.config} has no detector with FasterNet and boxes: give one like mask_rcnn_fasternet_s or '
            'rtmdet_fasternet_t0'
        )
    if task.checkpoint:
        load_weights(detector, task.checkpoint)
    else:
        settings = cfg.model.test_cfg.rcnn if two_stages else cfg.model.test_cfg
        head = detector.roi_head if two_stages else detector.bbox_head
        settings.score_thr = head.test_cfg.score_thr = _threshold(detector, task)
    return cfg, detector


def _threshold(detector: nn.Module, task: DetectorTask) -> float:
    """The score that the task's number of boxes exceed, in two stages of those that the first one proposes."""
    outputs: list[Any] = []
    head = detector.roi_head.bbox_head if hasattr(detector, 'roi_head') else detector.bbox_head
    hook = head.register_forward_hook(lambda module, inputs, output: outputs.append(output[0]))
    _detection(detector, task.pixels())()
    hook.remove()
    (logits,) = outputs
    count = task.random_boxes
    if isinstance(logits, Tensor):
        scores = logits.softmax(-1)[:, :-1].flatten()
    else:  # by level
        scores = torch.cat([of_level.sigmoid().flatten() for of_level in logits])
        count *= 2  # many of their random boxes have negative sides, and are left out
    return scores.topk(min(count, len(scores))).values[-1].item()


def with_mmdetections_heads(cfg: Config, detector: nn.Module) -> nn.Module:
    """The detector of a config with the same weights in MMDetection's own heads, in evaluation mode, frozen."""
    cfg = copy.deepcopy(cfg)
    use_mmdetections_heads(cfg.model)
    peer = build_model(cfg)
    peer.load_state_dict(detector.state_dict())
    return peer.eval().requires_grad_(False)


def use_mmdetections_heads(settings: Any) -> None:
    """Put MMDetection's own classes, in place, where a model's config has `HEADS`."""
    if isinstance(settings, dict):
        package, _, name = str(settings.get('type')).rpartition('.')
        if package == 'fasternet_mm' and name in HEADS:
            settings['type'] = f'mmdet.{name}'
    if isinstance(settings, (dict, list)):
        for value in settings.values() if isinstance(settings, dict) else settings:
            use_mmdetections_heads(value)


def with_timm_backbone(detector: nn.Module) -> nn.Module:
    """A copy with timm's FasterNet in the backbone's place, and equal results.

    timm's has no output norms. Before an FPN they are folded into its first convolutions, which are 1x1, so that both
    do the same work. Other necks, as RTMDet's, concatenate some maps first: there the norms follow timm's backbone, as
    they follow ours.

    Raises:
        UserError: the backbone is not a published variant.
    """
    import timm

    peer = copy.deepcopy(detector)
    own, neck = peer.backbone, peer.neck
    variants = (arch for arch in CLASSIFIERS if FasterNet(arch).arch == own.arch)
    arch = next(variants, None)
    if arch is None:
        raise UserError('a detector is compared with timm only where its backbone is a published variant')
    backbone = timm.create_model(f'fasternet_{arch}', features_only=True, out_indices=own.out_indices).eval()
    backbone.requires_grad_(False)
    values = own.state_dict()
    for name, tensor in recognize(backbone.state_dict(), 'of timm').tensors.items():
        tensor.copy_(values[name])
    norms = [getattr(own, f'norm{2 * stage}') for stage in own.out_indices]
    if not isinstance(neck, FPN):
        peer.backbone = _WithNorms(backbone, norms)
        return peer
    peer.backbone = backbone
    for norm, lateral in zip(norms[neck.start_level :], neck.lateral_convs):
        fold_norm_before(norm, lateral.conv)
    return peer


class _WithNorms(nn.Module):
    """A backbone with a norm after each of its maps."""

    def __init__(self, backbone: nn.Module, norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.backbone, self.norms = backbone, nn.ModuleList(norms)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(norm(x) for norm, x in zip(self.norms, self.backbone(x)))


def _exported(cfg: Config, detector: nn.Module, task: DetectorTask, runtime: str, precision: str) -> nn.Module:
    from ..datasets.image_pipeline import pipeline_that_resizes
    from ..deployment.exported_models import use_exported
    from ..deployment.exporter import export

    file_format, suffix = dict(onnxruntime=('onnx', '.onnx'), openvino=('openvino', '.xml'))[runtime]
    with tempfile.TemporaryDirectory(prefix='fasternet_mm-') as folder:
        weights, file, image = (str(Path(folder, name)) for name in ('weights.pth', f'detector{suffix}', 'timed.png'))
        torch.save(detector.state_dict(), weights)
        cv2.imwrite(image, task.pixels().numpy().transpose(1, 2, 0))
        cfg = copy.deepcopy(cfg)
        cfg.test_dataloader.dataset.pipeline = pipeline_that_resizes({}, 'mmdet')
        calibration = [image] if precision == 'int8' else []
        size = None if task.any_size else (task.height, task.width)
        export(cfg, weights, out=file, format=file_format, size=size, calibration=calibration)
        use_exported(cfg, file, bf16=precision == 'bfloat16')
        return build_model(cfg).eval()
