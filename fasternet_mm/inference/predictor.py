"""A trained model, applied to images."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from logging import WARNING
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement, InstanceData

from ..acceleration.optimization import optimize
from ..datasets.checks import meta_of_test_set
from ..datasets.image_pipeline import ImagePipeline
from ..datasets.image_reading import ImageSource, read_image
from ..deployment.recorded_config import recorded_config
from ..deployment.runtimes import is_exported
from ..engine.config import load_config, merge_options
from ..engine.logits_hook import has_broken_logits
from ..engine.runner import build_model
from ..engine.work_dir import config_and_checkpoint
from ..errors import UserError
from ..evaluation.coco_results import category_ids, encode_masks
from ..visualization.palette import palette_of
from ..weights.classes import load_trained
from .prediction import Prediction


class Predictor:
    """Finds objects, or labels pixels, in images of any kind.

    ``Predictor('work_dirs/mine')('street.jpg')`` gives a `Prediction`.

    Args:
        source: a work directory of a training; or a config file, with ``checkpoint``; or an exported file alone; or a
            checkpoint of a training alone, of a model like those in ``configs/``. Configs are Python, which runs: take
            them from people you trust. What checkpoints, ONNX and OpenVINO files hold is never executed.
        checkpoint: weights of exactly the config's model, see `local_file`; or an exported file, which brings its own
            network. Default: the work directory's own, see `config_and_checkpoint`.
        device: as for PyTorch. Default: CUDA when there is one. Exported files run on the CPU, see `open_engine`.
        batch_size: so many images go through the network together, where they follow each other in one size; the
            results are those of single images but for rounding. Default: 1.
        channel_order: of arrays: 'bgr', as OpenCV reads, or 'rgb', as Pillow does. Default: 'bgr'.
        allow_mismatch: take from the checkpoint what fits, and let its classes have other names. Default: False.
        optimized: run a model of PyTorch as `optimize` makes it. Default: True.
        bf16: compute in bfloat16, not exactly. Default: False.
        trusted: an exported file may be a program: see `open_engine`. Default: False.
        options: changes of the config: 'key=value', as with ``--cfg-options``.

    Attributes:
        classes: the names of what the model knows, by label.
        is_segmenter: whether it labels pixels.

    Raises:
        UserError: config and checkpoint do not fit, in tensors or classes, or one or the device cannot be used.
        ValueError: the device does not compute in bfloat16, or an argument is unknown.
    """

    def __init__(
        self,
        source: str | PathLike | Config,
        checkpoint: str | PathLike | None = None,
        device: str | None = None,
        *,
        batch_size: int = 1,
        channel_order: str = 'bgr',
        allow_mismatch: bool = False,
        optimized: bool = True,
        bf16: bool = False,
        trusted: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        if batch_size < 1:
            raise ValueError(f'batch_size={batch_size}: at least 1 is needed')
        if channel_order not in ('bgr', 'rgb'):
            raise ValueError(f"channel_order={channel_order!r}: use 'bgr' or 'rgb'")
        self.device = _usable(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        self.batch_size, self.channel_order = batch_size, channel_order
        self.cfg, weights = _find(source, checkpoint, options, 'bfloat16' if bf16 else 'float32', trusted)
        self.model = build_model(self.cfg)
        meta = meta_of_test_set(self.cfg)
        self.classes, self.palette = tuple(meta['classes']), palette_of(meta)
        if weights is not None:
            load_trained(self.model, weights, self.classes, allow_mismatch)
        self.model.to(self.device).eval()
        if weights is not None and optimized:
            self.model = optimize(self.model, torch.bfloat16 if bf16 else None)
        # By name, since importing MMSegmentation's models takes seconds, and a detector does without.
        self.is_segmenter = any(kind.__name__ == 'BaseSegmentor' for kind in type(self.model).__mro__)
        self.pipeline = ImagePipeline(self.cfg)

    @cached_property
    def category_ids(self) -> list[int]:
        """The id of each class: the test annotations' where they are at hand, else COCO's own, else 1, 2, 3, …."""
        evaluator = self.cfg.get('test_evaluator') or {}
        annotations = evaluator.get('ann_file') if hasattr(evaluator, 'get') else None
        return category_ids(annotations or '', self.classes)

    def __call__(self, images: ImageSource | Iterable[ImageSource]) -> Prediction | list[Prediction]:
        """The prediction of one image, or the list of those of several.

        Args:
            images: one of what `read_image` takes, or any iterable of them.

        Raises:
            UserError: one is not an image, or of a size that the model cannot take.
        """
        if isinstance(images, ImageSource | bytearray | memoryview) or not isinstance(images, Iterable):
            return next(self.stream([images]))
        return list(self.stream(images))

    def stream(self, images: Iterable[ImageSource], broken: list[UserError] | None = None) -> Iterator[Prediction]:
        """Predictions one after the other, in order, for videos and more images than memory holds.

        Args:
            images: what `read_image` takes; read when needed, at most ``batch_size`` ahead.
            broken: takes the errors of images that cannot be predicted, which are then left out. Default: None, the
                first one is raised.
        """
        batch: list[dict[str, Any]] = []
        for number, image in enumerate(images, start=1):
            name = str(image) if isinstance(image, str | PathLike) else f'image {number}'
            try:
                data = self._prepare(image, name)
            except UserError as error:
                if broken is None:
                    raise
                broken.append(error)
                continue
            # MMDetection would pad images of several sizes to one, which changes what is found near their edges.
            if batch and data['sizes'] != batch[0]['sizes']:
                yield from self._predict(batch, broken)
                batch = []
            batch.append(data)
            if len(batch) == self.batch_size:
                yield from self._predict(batch, broken)
                batch = []
        if batch:
            yield from self._predict(batch, broken)

    def _prepare(self, image: ImageSource, name: str) -> dict[str, Any]:
        pixels = read_image(image, self.channel_order)
        source = name if isinstance(image, str | PathLike) else ''
        try:
            packed = self.pipeline(pixels, source)
        except Exception as error:  # by OpenCV, NumPy, …, mostly of the size
            height, width = pixels.shape[:2]
            raise UserError(
                f'{name}: an image of {width}x{height} pixels cannot be prepared ({_line(error)})'
            ) from error
        sizes = pixels.shape, packed['inputs'].shape
        return dict(image=pixels, source=source, name=name, packed=packed, sizes=sizes)

    def _predict(self, batch: list[dict[str, Any]], broken: list[UserError] | None) -> list[Prediction]:
        try:
            with torch.no_grad():
                samples = self.model.test_step(pseudo_collate([data['packed'] for data in batch]))
            return [self._to_prediction(data, sample.cpu()) for data, sample in zip(batch, samples)]
        except Exception as error:  # of the size, of memory, of whatever a model stumbles over
            if broken is None and isinstance(error, ValueError):
                raise named_error(error, batch[0]['name']) from error
            if broken is None:
                raise
            if len(batch) == 1:
                broken.append(named_error(error, batch[0]['name']))
                return []
        # One image can spoil a batch, or memory be too small for all: each alone, now that the first try is freed.
        return [prediction for data in batch for prediction in self._predict([data], broken)]

    def _to_prediction(self, data: dict[str, Any], sample: BaseDataElement) -> Prediction:
        boxes, scores, labels = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
        masks = label_map = None
        if 'pred_instances' in sample:
            found = _finite(sample.pred_instances, data['name'])
            boxes, scores, labels = (found[key].numpy() for key in ('bboxes', 'scores', 'labels'))
            masks = encode_masks(found.masks.numpy()) if 'masks' in found else None
        if has_broken_logits(sample):
            print_log(f'{data["name"]}: the logits are not finite, and the labels mean nothing', 'current', WARNING)
        if 'pred_sem_seg' in sample:
            kind = np.uint8 if len(self.classes) < 256 else np.uint16
            label_map = sample.pred_sem_seg.data[0].numpy().astype(kind)
        return Prediction(
            image=data['image'][..., ::-1],
            source=data['source'],
            classes=self.classes,
            palette=self.palette,
            category_ids=[] if self.is_segmenter else self.category_ids,
            boxes=boxes,
            scores=scores,
            labels=labels,
            encoded_masks=masks,
            label_map=label_map,
        )


def named_error(error: Exception, name: str) -> UserError:
    """What went wrong with an image, with its name."""
    if isinstance(error, UserError):
        return error
    traceback.clear_frames(error.__traceback__)  # in which batches lie in memory
    named = UserError(f'{name}: {error}' if isinstance(error, ValueError) else f'{name} failed ({_line(error)})')
    named.__cause__ = error
    return named


def _line(error: Exception) -> str:
    return (
        f'{type(error).__module__}.{type(error).__name__}: {error}'.removeprefix('builtins.').strip().partition('\n')[0]
    )


def _finite(objects: InstanceData, name: str) -> InstanceData:
    """The objects whose box and score are numbers; others are said in the log."""
    finite = objects.bboxes.isfinite().all(dim=1) & objects.scores.isfinite()
    if finite.all():
        return objects
    text = f'{name}: {int((~finite).sum())} of {len(finite)} objects have a box or score that is not finite: left out'
    print_log(text, 'current', WARNING)
    return objects[finite]


def _usable(device: str) -> str:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an unknown name, or a kind that PyTorch or the machine lacks
        reason = str(error).strip().partition('\n')[0]
        raise UserError(
            f"device {device!r} cannot be used here ({reason}): give 'cpu', or 'cuda' where there is a GPU"
        ) from error
    return device


def _find(
    source: str | PathLike | Config,
    checkpoint: str | PathLike | None,
    options: Sequence[str],
    precision: str,
    trusted: bool,
) -> tuple[Config, str | None]:
    """The config that a user means, and the weights for its model, unless that is an exported file."""
    if checkpoint is None and not isinstance(source, Config) and is_exported(str(source)):
        from ..deployment.exported_models import exported_config  # takes seconds: it brings MMDetection's models

        cfg = exported_config(str(source), precision, trusted)
        merge_options(cfg, options)
        return cfg, None
    if isinstance(source, Config):
        cfg = source
        merge_options(cfg, options)
    elif checkpoint is None and Path(source).is_file() and Path(source).suffix != '.py':
        cfg, checkpoint = recorded_config(str(source)), source
        merge_options(cfg, options)
    else:
        config, checkpoint = config_and_checkpoint(str(source), checkpoint and str(checkpoint))
        cfg = load_config(config, options)
    if checkpoint is None:
        raise UserError('a config alone is not enough: add a checkpoint')
    if not is_exported(str(checkpoint)):
        return cfg, str(checkpoint)
    from ..deployment.exported_models import use_exported

    use_exported(cfg, str(checkpoint), precision, trusted)
    return cfg, None
