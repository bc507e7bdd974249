"""Networks as functions of tensors alone, with no branch on any number, so that exporters can follow them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import torch
import torch.nn.functional as F
from mmdet.models import DetDataPreprocessor
from mmseg.models import SegDataPreProcessor
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import Upsample
from torch import Tensor, nn

from ..errors import UserError


class Preparation(nn.Module):
    """What MMDetection's and MMSegmentation's data preprocessors do to images of one size.

    Args:
        mean, std: per channel, after ``bgr_to_rgb``.
        bgr_to_rgb: turn the order of the channels around.
        pad_size_divisor: pad on the right and at the bottom to a multiple of it.
        pad_value: of the padding, after normalization.

    Shape:
        uint8 ``(N, 3, H, W)`` to float32 ``(N, 3, H', W')``.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], bgr_to_rgb: bool, pad_size_divisor: int, pad_value: float
    ) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))
        self.bgr_to_rgb = bgr_to_rgb
        self.pad_size_divisor = pad_size_divisor
        self.pad_value = pad_value

    def forward(self, images: Tensor) -> Tensor:
        x = images.float()
        if self.bgr_to_rgb:
            x = x[:, [2, 1, 0]]
        x = (x - self.mean) / self.std
        # Written without a negative number, which ONNX divides in another way than PyTorch, and so that torch.export
        # knows that the result is not below the size.
        divisor = self.pad_size_divisor
        bottom, right = ((size + divisor - 1) // divisor * divisor - size for size in x.shape[-2:])
        return F.pad(x, (0, right, 0, bottom), value=self.pad_value)


def preparation_settings(preprocessor: nn.Module) -> dict[str, Any]:
    """Arguments of `Preparation` that do what a model's own data preprocessor does in testing.

    Raises:
        UserError: it is of another kind.
    """
    if type(preprocessor) is DetDataPreprocessor:
        bgr_to_rgb = preprocessor._channel_conversion
        padding = dict(pad_size_divisor=preprocessor.pad_size_divisor, pad_value=preprocessor.pad_value)
    elif type(preprocessor) is SegDataPreProcessor and not preprocessor.test_cfg:
        # MMSegmentation's name, and that of OneDL's fork of it.
        own_name = 'channel_conversion' if hasattr(preprocessor, 'channel_conversion') else '_channel_conversion'
        bgr_to_rgb = getattr(preprocessor, own_name)
        padding = dict(pad_size_divisor=1, pad_value=0)
    else:
        refuse('model.data_preprocessor', preprocessor, 'DetDataPreprocessor, or SegDataPreProcessor without test_cfg')
    if not preprocessor._enable_normalize or preprocessor.mean.numel() != 3:
        raise UserError('model.data_preprocessor does not normalize three channels: set its mean and std to three each')
    mean, std = preprocessor.mean.flatten().tolist(), preprocessor.std.flatten().tolist()
    return dict(mean=mean, std=std, bgr_to_rgb=bgr_to_rgb, **padding)


class Graph(nn.Module):
    """What is exported: images to named tensors.

    Args:
        preparation: what comes before the network. None: the images are prepared already, float32.

    Attributes:
        task: 'backbone', 'detection' or 'segmentation'.
        outputs: the name of each output, and the axes whose lengths vary: their numbers, and names for the lengths.
        size_divisor: the height and width of images must be multiples of it.
        mask_stride: of a detector with ``mask_logits``, how many pixels each of their cells is high and wide.
    """

    task: str
    outputs: Mapping[str, Mapping[int, str]]
    size_divisor: int = 1
    mask_stride: int | None = None

    def __init__(self, preparation: Preparation | None) -> None:
        super().__init__()
        self.prepare = preparation or nn.Identity()


class BackboneGraph(Graph):
    """``(N, 3, H, W)`` to the backbone's maps, named ``map0``, ``map1``, … from the finest."""

    task = 'backbone'

    def __init__(self, backbone: nn.Module, preparation: Preparation | None) -> None:
        super().__init__(preparation)
        self.backbone = backbone
        maps = range(len(backbone.out_indices))
        self.outputs = {f'map{i}': {0: 'batch', 2: f'height{i}', 3: f'width{i}'} for i in maps}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.backbone(self.prepare(images))


class SegmenterGraph(Graph):
    """``(N, 3, H, W)`` to the class of each pixel, and the decode head's logits.

    ``labels`` are ``(N, H, W)``. ``logits`` are ``(N, classes, h, w)``, at the head's own resolution: callers that
    scale them or average over several images decide on classes afterwards.
    """

    task = 'segmentation'
    outputs: ClassVar = dict(
        labels={0: 'batch', 1: 'height', 2: 'width'},
        logits={0: 'batch', 2: 'logits_height', 3: 'logits_width'},
    )

    def __init__(self, segmenter: nn.Module, preparation: Preparation | None) -> None:
        super().__init__(preparation)
        _make_traceable(segmenter)
        self.segmenter = segmenter

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        head = self.segmenter.decode_head
        logits = head(self.segmenter.extract_feat(self.prepare(images)))
        scaled = F.interpolate(logits, images.shape[-2:], mode='bilinear', align_corners=head.align_corners)
        return scaled.argmax(1), logits


class AdaptiveMean(nn.Module):
    """`nn.AdaptiveAvgPool2d` as two matrix products, which ONNX has for every size of the input."""

    def __init__(self, output_size: int | tuple[int, int]) -> None:
        super().__init__()
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else output_size

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self._weights(x, *sizes) for sizes in zip(x.shape[-2:], self.output_size))
        return rows @ x @ columns.T

    @staticmethod
    def _weights(x: Tensor, size: int, cells: int) -> Tensor:
        """``(cells, size)``: each cell is the mean of the pixels that it touches."""
        cell = torch.arange(cells, device=x.device)[:, None]
        start, end = cell * size // cells, ((cell + 1) * size + cells - 1) // cells
        pixel = torch.arange(size, device=x.device)
        return ((pixel >= start) & (pixel < end)).to(x.dtype) / (end - start)


def _make_traceable(module: nn.Module) -> None:
    """Replace layers that exporters refuse, or whose sizes they take for constants, by equal ones."""
    for name, child in module.named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d):
            setattr(module, name, AdaptiveMean(child.output_size))
        elif isinstance(child, Upsample) and child.size is None:
            options = dict(scale_factor=child.scale_factor, mode=child.mode, align_corners=child.align_corners)
            setattr(module, name, nn.Upsample(**options))
        else:
            _make_traceable(child)


def check_segmenter(segmenter: nn.Module) -> None:
    """Raise `UserError` unless the decode head is of a kind that is exported."""
    head = segmenter.decode_head
    if not isinstance(head, BaseDecodeHead) or head.out_channels < 2:
        refuse('model.decode_head', head, 'a single head with an output for each class')
    if (type(head).predict, type(head).predict_by_feat) != (BaseDecodeHead.predict, BaseDecodeHead.predict_by_feat):
        refuse('model.decode_head', head, 'a head that predicts as UPerHead and FPNHead do')


def check_types(place: str, module: Any, *accepted: type) -> None:
    """Raise `UserError` unless the module at ``place`` of the config is of an accepted class itself."""
    if type(module) not in accepted:
        refuse(place, module, ', '.join(dict.fromkeys(kind.__name__ for kind in accepted)))


def check_settings(settings: Mapping[str, bool]) -> None:
    """Raise `UserError` with the first condition that a detector does not meet."""
    for condition, met in settings.items():
        if not met:
            raise UserError(f'this detector cannot be exported: {condition}')


def refuse(place: str, module: Any, accepted: str) -> NoReturn:
    raise UserError(f'{place} is a {type(module).__name__}, which cannot be exported: it can be {accepted}')
