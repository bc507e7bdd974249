"""A trained model, applied to images."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from logging import WARNING
from os import PathLike
from typing import Any, overload

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement, InstanceData

from ..acceleration import optimization
from ..acceleration.precision import check_dtype, short_dtype
from ..datasets.checks import meta_of_test_set
from ..datasets.image_pipeline import ImagePipeline
from ..datasets.image_reading import ImageSource, is_url, read_image
from ..datasets.large_images import LargeImage, is_large
from ..deployment.formats import format_of, runs_in_bfloat16
from ..devices import device_of_choice
from ..engine.config import merge_options
from ..engine.logits_hook import has_broken_logits
from ..engine.runner import build_model
from ..engine.trained_model import find_trained_model
from ..errors import UserError
from ..evaluation.coco_results import category_ids, encode_masks
from ..models.backbone import InvalidArgument
from ..visualization.palette import palette_of
from ..weights.classes import load_trained
from ..weights.hugging_face import is_on_hub
from .prediction import Prediction
from .tiles import OVERLAP, WHOLE_LABELS, Tiling, predict_tiles


class Predictor:
    """Finds objects, or labels pixels, in images of any kind.

    ``Predictor('work_dirs/mine')('street.jpg')`` gives a `Prediction`.

    Args:
        source: a work directory of a training; or a config, with ``checkpoint``; or an exported file alone; or a
            checkpoint of a training, or a published model ('mask_rcnn_fasternet_s_coco', or 'hf://user/name' on the
            Hugging Face hub), alone: see `find_trained_model`. Configs are Python, which runs: take them from people
            you trust. What checkpoints, models on the hub, ONNX and OpenVINO files hold is never executed.
        checkpoint: weights of exactly the config's model, see `local_file`; or an exported file, which brings its own
            network. Default: the work directory's own.
        device: as for PyTorch. Default: CUDA when there is one. Exported files run on the CPU, see `open_runtime`.
        batch_size: how many images, or tiles of one, go through the network together, where they follow each other in
            one size; the results are those of single images but for rounding. Default: 1.
        channel_order: of arrays: 'bgr', as OpenCV reads, or 'rgb', as Pillow does. Default: 'bgr'.
        allow_mismatch: take from the checkpoint what fits, and let its classes have other names. Default: False.
        optimize: run a model of PyTorch as `fasternet_mm.optimize` makes it. Default: True.
        dtype: compute in 'float16', on CUDA, or 'bfloat16', where the device can; both are faster and less exact.
            Default: None, in float32.
        bf16: the same as ``dtype='bfloat16'``. Default: False.
        trust_program: run an exported file although it is a program: see `open_runtime`. Default: False.
        cfg_options: changes of the config: 'key=value', as with ``--cfg-options``.
        tile: height and width in pixels: larger images are predicted in tiles of this size, each prepared as an image
            is, and TIFF files of more than 89 million pixels are read by parts. Default: None, as the config says that
            the model was trained, else in one piece.
        overlap: of tiles that follow each other, at least, as a share of their height and width. Default: 0.2.
        tile_whole: also look for objects in the image as a whole, for those larger than a tile. Default: False.

    Attributes:
        classes: the names of the classes that the model knows, by label.
        is_segmenter: whether it labels pixels.

    Raises:
        UserError: config and checkpoint do not fit, in tensors or classes, or one or the device cannot be used.
        InvalidArgument: an argument is outside what is accepted.
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
        optimize: bool = True,
        bf16: bool = False,
        dtype: str | None = None,
        trust_program: bool = False,
        cfg_options: Sequence[str] = (),
        tile: tuple[int, int] | None = None,
        overlap: float = OVERLAP,
        tile_whole: bool = False,
    ) -> None:
        if isinstance(tile, int):
            raise InvalidArgument(f'tile={tile}: give height and width in pixels, such as (640, 640)')
        self.tiling = Tiling(tuple(tile), overlap, tile_whole) if tile else None
        if batch_size < 1:
            raise InvalidArgument(f'batch_size={batch_size}: use a whole number, at least 1')
        if channel_order not in ('bgr', 'rgb'):
            raise InvalidArgument(f"channel_order={channel_order!r}: use 'bgr' or 'rgb'")
        arithmetic = short_dtype(dtype, bf16)
        precision = 'bfloat16' if bf16 else dtype
        self.device = _usable(device or device_of_choice())
        self.batch_size, self.channel_order = batch_size, channel_order
        self.cfg, weights = _find_model(source, checkpoint, cfg_options, precision, trust_program)
        if weights is not None:
            check_dtype(arithmetic, torch.device(self.device).type)
            if arithmetic and not optimize:
                raise InvalidArgument(f'optimize=False computes in float32: leave it or dtype={precision!r} out')
        trained = self.cfg.get('tile')
        if self.tiling is None and trained:
            self.tiling = Tiling(tuple(trained.tile), trained.overlap)
            print_log('images larger than {}x{} (H x W) are predicted in tiles'.format(*trained.tile), 'current')
        self.model = build_model(self.cfg)
        meta = meta_of_test_set(self.cfg)
        self.classes: tuple[str, ...] = tuple(meta['classes'])
        self.palette = palette_of(meta)
        if weights is not None:
            load_trained(self.model, weights, self.classes, allow_mismatch)
        self.model.to(self.device).eval()
        if weights is not None and optimize:
            self.model = optimization.optimize(self.model, arithmetic)
        # By name, since importing MMSegmentation's models takes seconds, and a detector does without.
        self.is_segmenter = any(kind.__name__ == 'BaseSegmentor' for kind in type(self.model).__mro__)
        if self.is_segmenter and self.tiling and self.tiling.whole:
            raise UserError(WHOLE_LABELS)
        self.pipeline = ImagePipeline(self.cfg)

    @cached_property
    def category_ids(self) -> list[int]:
        """The id of each class: that of the test annotations where they exist, else COCO's own, else 1, 2, 3, …."""
        evaluator = self.cfg.get('test_evaluator') or {}
        annotations = evaluator.get('ann_file') if hasattr(evaluator, 'get') else None
        return category_ids(annotations or '', self.classes)

    @overload
    def __call__(self, images: ImageSource) -> Prediction: ...  # type: ignore[overload-overlap]  # a str is iterable

    @overload
    def __call__(self, images: Iterable[ImageSource]) -> list[Prediction]: ...

    def __call__(self, images: ImageSource | Iterable[ImageSource]) -> Prediction | list[Prediction]:
        """The prediction of one image, or the list of those of several.

        Args:
            images: one of what `read_image` takes, or any iterable of them.

        Raises:
            UserError: an image cannot be read, or has a size that the model cannot take.
        """
        if isinstance(images, ImageSource) or not isinstance(images, Iterable):
            return next(self.stream([images]))
        return list(self.stream(images))

    def stream(self, images: Iterable[ImageSource], broken: list[UserError] | None = None) -> Iterator[Prediction]:
        """Predictions one after the other, in order, for videos and more images than memory holds.

        Args:
            images: what `read_image` takes; read when needed, at most ``batch_size`` ahead.
            broken: a list for the errors of images that cannot be predicted, whatever goes wrong with them; such
                images are left out. Default: None, the first error is raised.
        """
        if isinstance(images, ImageSource):
            raise InvalidArgument('stream() takes several images: give a list of them, or a video from open_video()')
        batch: list[dict[str, Any]] = []
        for number, image in enumerate(images, start=1):
            name = str(image) if isinstance(image, str | PathLike) else f'image {number}'
            try:
                data = self._prepare(image, name)
            except Exception as error:
                if broken is None:
                    raise
                broken.append(named_error(error, name))
                continue
            if data['packed'] is None:
                yield from self._predict(batch, broken) if batch else ()
                yield from self._predict([data], broken)
                batch = []
                continue
            # MMDetection would pad images of several sizes to one, which changes predictions near their edges.
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
        source = name if isinstance(image, str | PathLike) else ''
        by_parts = self.tiling and source and not is_url(source) and is_large(source)
        pixels = LargeImage(source) if by_parts else read_image(image, self.channel_order)
        if self.tiling and self.tiling.divides(pixels.shape):
            return dict(image=pixels, source=source, name=name, packed=None)
        if isinstance(pixels, LargeImage):  # but not larger than a tile, of which memory holds some
            pixels = pixels[0 : pixels.shape[0], 0 : pixels.shape[1]]
        try:
            packed = self.pipeline(pixels, source)
        except cv2.error as error:  # a side would have no pixel, or too many
            height, width = pixels.shape[:2]
            raise UserError(
                f'{name}: an image of {height}x{width} pixels (H x W) cannot be resized: use one that is less narrow'
            ) from error
        sizes = pixels.shape, packed['inputs'].shape
        return dict(image=pixels, source=source, name=name, packed=packed, sizes=sizes)

    def _predict(self, batch: list[dict[str, Any]], broken: list[UserError] | None) -> list[Prediction]:
        try:
            return [self._to_prediction(data, sample.cpu()) for data, sample in zip(batch, self._samples(batch))]
        except Exception as error:
            if broken is None and isinstance(error, InvalidArgument):
                raise named_error(error, batch[0]['name']) from error  # all images of a batch have one size
            if broken is None:
                raise
            if len(batch) == 1:
                broken.append(named_error(error, batch[0]['name']))
                return []
        # One image can spoil a batch, or memory be too small for all: each alone, now that the first try is freed.
        return [prediction for data in batch for prediction in self._predict([data], broken)]

    def _samples(self, batch: list[dict[str, Any]]) -> Sequence[BaseDataElement]:
        (first, *_), predict = batch, self.model.test_step
        if first['packed'] is None and self.tiling:  # it goes alone
            return [predict_tiles(predict, self.pipeline, first['image'], self.tiling, self.batch_size)]
        with torch.no_grad():
            return predict(pseudo_collate([data['packed'] for data in batch]))

    def _to_prediction(self, data: dict[str, Any], sample: BaseDataElement) -> Prediction:
        boxes, scores, labels = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
        masks = label_map = None
        if 'pred_instances' in sample:
            objects = _finite(sample.pred_instances, data['name'])
            boxes, scores, labels = (objects[key].numpy() for key in ('bboxes', 'scores', 'labels'))
            masks = objects.get('masks')
            masks = encode_masks(masks.numpy()) if isinstance(masks, torch.Tensor) else masks
        if has_broken_logits(sample):
            print_log(f'{data["name"]}: the logits are not finite, and the labels mean nothing', 'current', WARNING)
        if 'pred_sem_seg' in sample:
            dtype = np.uint8 if len(self.classes) < 256 else np.uint16
            label_map = sample.pred_sem_seg.data[0].numpy().astype(dtype, copy=False)
        large = data['image'] if isinstance(data['image'], LargeImage) else None
        return Prediction(
            image=(large.reduced if large else data['image'])[..., ::-1],
            source=data['source'],
            classes=self.classes,
            palette=self.palette,
            category_ids=[] if self.is_segmenter else self.category_ids,
            boxes=boxes,
            scores=scores,
            labels=labels,
            encoded_masks=masks,
            label_map=label_map,
            large=large,
        )


def named_error(error: Exception, name: str) -> UserError:
    """An error as a sentence that names its image or video: what is wrong with that, or that the program failed."""
    if isinstance(error, UserError):
        return error
    traceback.clear_frames(error.__traceback__)  # they keep batches in memory
    if isinstance(error, InvalidArgument):
        named = UserError(f'{name}: {error}')
    else:
        kind = f'{type(error).__module__}.{type(error).__name__}'.removeprefix('builtins.')
        reason = f'{kind}: {error}'.strip().partition('\n')[0]
        named = UserError(f'{name} failed ({reason})')
    named.__cause__ = error
    return named


def _finite(objects: InstanceData, name: str) -> InstanceData:
    """The objects whose box and score are finite; the log tells how many are not."""
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
        reason = str(error).strip().partition('\n')[0].partition('. ')[0]  # PyTorch goes on with all it has instead
        raise UserError(
            f"device {device!r} cannot be used here ({reason}): give 'cpu', or 'cuda' where there is a GPU"
        ) from error
    return device


def _find_model(
    source: str | PathLike | Config,
    checkpoint: str | PathLike | None,
    cfg_options: Sequence[str],
    dtype: str | None,
    trust_program: bool,
) -> tuple[Config, str | None]:
    """The config that a user means, and the weights for its model, unless that is an exported file."""
    is_path = not isinstance(source, Config) and not is_on_hub(source)
    if checkpoint is None and is_path and format_of(source):
        from ..deployment.exported_models import exported_config  # takes seconds: it brings MMDetection's models

        cfg = exported_config(str(source), bf16=runs_in_bfloat16(str(source), dtype), trust_program=trust_program)
        merge_options(cfg, cfg_options)
        return cfg, None
    cfg, weights = find_trained_model(source, checkpoint, cfg_options)
    if not format_of(weights):
        return cfg, weights
    from ..deployment.exported_models import use_exported

    use_exported(cfg, weights, bf16=runs_in_bfloat16(weights, dtype), trust_program=trust_program)
    return cfg, None
