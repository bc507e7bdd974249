"""Exported files as models of MMEngine, so that they are tested and applied as any other model is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.utils import samplelist_boxtype2tensor
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from mmseg.models import EncoderDecoder
from mmseg.models.segmentors import BaseSegmentor
from torch import Tensor

from ..datasets.checks import meta_of_test_set
from ..datasets.image_pipeline import config_of_model
from ..errors import UserError
from ..models.single_stage.rtmdet_ins_head import enlarge_masks
from ..registry import MODELS
from ..weights.classes import class_difference
from .description import Description
from .graphs import preparation_settings
from .mask_pasting import paste_masks
from .runtimes import open_runtime

MODEL_TYPES = {'detection': 'fasternet_mm.ExportedDetector', 'segmentation': 'fasternet_mm.ExportedSegmenter'}


def use_exported(cfg: Config, path: str, *, bf16: bool = False, trust_program: bool = False) -> None:
    """Put an exported file in the place of a config's model, after checking that it does what the config says.

    Args:
        cfg: an MMDetection or MMSegmentation config; its ``model`` changes, and ``load_from`` is none any more.
        path, bf16, trust_program: see `open_runtime`.

    Raises:
        UserError: the file cannot be used, or was exported for other classes or with other settings.
    """
    description, model = _description_and_model(path, bf16, trust_program)
    _check_config(cfg, description, path)
    # The rest of the model's config stays, since the checks of data read its heads.
    cfg.model = {**cfg.model, **model}
    cfg.load_from = None


def exported_config(path: str, *, bf16: bool = False, trust_program: bool = False) -> Config:
    """A config that is enough for predictions of an exported file, from what the file says of itself.

    Images are resized and padded as the config of the export did. Where the file takes images of one size alone, and
    the config did not pad to it, they are resized to it, whatever their shape. A segmenter looks at whole images.

    Args:
        path, bf16, trust_program: see `open_runtime`.

    Raises:
        UserError: the file cannot be used, or does not say enough.
    """
    description, model = _description_and_model(path, bf16, trust_program)
    scope = 'mmdet' if description.task == 'detection' else 'mmseg'
    resize = description.resize
    if description.size:
        height, width = description.size
        if (resize or {}).get('pad', {}).get('size') != [width, height]:
            resize = dict(scale=(width, height), keep_ratio=False)
    if resize is None:
        raise UserError(f'{path} does not say how images are resized for it: give the config of the export before it')
    if scope == 'mmseg':
        model['test_cfg'] = dict(mode='whole')
    return config_of_model(model, scope, description.classes, description.palette, resize)


def _description_and_model(path: str, bf16: bool, trust_program: bool) -> tuple[Description, dict[str, Any]]:
    description = open_runtime(path, bf16=bf16, trust_program=trust_program).description
    if description.task not in MODEL_TYPES:
        raise UserError(f'{path} is a backbone alone, which predicts nothing: export without --backbone')
    return description, dict(type=MODEL_TYPES[description.task], file=path, bf16=bf16, trust_program=trust_program)


def _check_config(cfg: Config, description: Description, path: str) -> None:
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    task = 'segmentation' if cfg.model.type.endswith('EncoderDecoder') else 'detection'
    difference = class_difference(description.classes, meta_of_test_set(cfg)['classes'])
    if difference:
        raise UserError(
            f'{path} was exported with other classes than those of the config: {difference}; give the config of the '
            'export, or export again'
        )
    preparation = preparation_settings(MMENGINE_MODELS.build(cfg.model.data_preprocessor))
    for setting, in_file, in_config in (
        ('the task', description.task, task),
        ('model.data_preprocessor', description.preparation, preparation),
        ('model.test_cfg', description.test_cfg, fixed_settings(cfg) if task == 'detection' else {}),
    ):
        if in_file != in_config:
            raise UserError(
                f'{path} was exported with {setting} {in_file}, but the config has {in_config}: give the '
                'config of the export, or export again'
            )


def fixed_settings(cfg: Config) -> dict[str, Any]:
    """``model.test_cfg`` in JSON's types: what an exported detector cannot change any more."""
    return json.loads(json.dumps(cfg.model.test_cfg))


@MODELS.register_module()
class ExportedDetector(BaseModel):
    """A detector in an exported file: predictions as MMDetection's own detectors make them.

    Args:
        file, bf16, trust_program: see `open_runtime`.
        network: the rest of the config of the model that was exported; unused.
    """

    def __init__(self, file: str, bf16: bool = False, trust_program: bool = False, **network: Any) -> None:
        runtime = open_runtime(file, bf16=bf16, trust_program=trust_program)
        description = runtime.description
        preprocessor = dict(type='mmdet.DetDataPreprocessor', **description.preparation)
        super().__init__(preprocessor if description.prepared else None)
        self.runtime = runtime
        settings = description.test_cfg.get('rcnn', description.test_cfg)  # those of a single-stage detector are flat
        self.mask_threshold = settings.get('mask_thr_binary', 0.5)

    def forward(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[DetDataSample], mode: str = 'predict'
    ) -> Sequence[DetDataSample]:
        """Give each sample its ``pred_instances``, in pixels of the image as it was before resizing.

        Raises:
            InvalidArgument: the file cannot take images of this size.
        """
        for image, sample in zip(inputs, data_samples):
            sample.pred_instances = self._predict(image, sample)
        samplelist_boxtype2tensor(data_samples)
        return data_samples

    def _predict(self, image: Tensor, sample: DetDataSample) -> InstanceData:
        outputs = self.runtime(image)
        height, width = sample.img_shape[:2]
        scale_x, scale_y = sample.get('scale_factor', (1.0, 1.0))
        # A prepared image is padded, and boxes reach into the padding.
        boxes = outputs['boxes'].min(torch.tensor((width, height, width, height)).float())
        boxes = boxes / torch.tensor((scale_x, scale_y, scale_x, scale_y))
        objects = InstanceData(bboxes=boxes, scores=outputs['scores'], labels=outputs['labels'].long())
        if 'masks' in outputs:
            objects.masks = paste_masks(outputs['masks'], boxes, *sample.ori_shape[:2], self.mask_threshold)
        if 'mask_logits' in outputs:
            stride = self.runtime.description.mask_stride
            objects.masks = enlarge_masks(
                outputs['mask_logits'], stride, (scale_y, scale_x), sample.ori_shape[:2], self.mask_threshold
            )
        return objects


@MODELS.register_module()
class ExportedSegmenter(EncoderDecoder):
    """A segmenter in an exported file: MMSegmentation's `EncoderDecoder`, whole or sliding, with the network replaced.

    Args:
        file, bf16, trust_program: see `open_runtime`.
        test_cfg: as in MMSegmentation: ``mode`` 'whole' or 'slide', the latter with ``crop_size`` and ``stride``.
        network: the rest of the config of the model that was exported; unused.
    """

    def __init__(
        self,
        file: str,
        bf16: bool = False,
        trust_program: bool = False,
        test_cfg: Mapping[str, Any] | None = None,
        **network: Any,
    ) -> None:
        runtime = open_runtime(file, bf16=bf16, trust_program=trust_program)
        description = runtime.description
        preprocessor = dict(type='mmseg.SegDataPreProcessor')
        if description.prepared:
            preprocessor |= {key: description.preparation[key] for key in ('mean', 'std', 'bgr_to_rgb')}
        # Not EncoderDecoder's own constructor, which would build the network.
        BaseSegmentor.__init__(self, preprocessor)
        self.runtime = runtime
        self.test_cfg = test_cfg
        self.align_corners = description.align_corners
        self.out_channels = len(description.classes)

    def encode_decode(self, inputs: Tensor, batch_img_metas: Sequence[Mapping[str, Any]]) -> Tensor:
        """Logits ``(N, classes, H, W)`` of images ``(N, 3, H, W)``.

        Raises:
            InvalidArgument: the file cannot take images of this size.
        """
        logits = torch.cat([self.runtime(image)['logits'] for image in inputs])
        return F.interpolate(logits, inputs.shape[-2:], mode='bilinear', align_corners=self.align_corners)
