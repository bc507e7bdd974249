"""Networks to compare: FasterNet, timm's FasterNet, and those that the paper compares it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UserError, nearest
from ..extras import require
from ..models import FasterNet, FasterNetClassifier
from ..models.multiply_adds import Complexity, complexity
from ..models.published import CLASSIFIERS

OURS = tuple(f'fasternet_{arch}' for arch in CLASSIFIERS)

SLICING = ':slicing'
"""Behind the name of timm's FasterNet: it writes PConv's result into a copy of its input; else it splits and joins."""

PUBLISHED = {
    'timm/poolformer_s12': (77.2, 'arXiv 2111.11418'),
    'timm/poolformer_s24': (80.3, 'arXiv 2111.11418'),
    'timm/poolformer_s36': (81.4, 'arXiv 2111.11418'),
    'timm/pvt_v2_b0': (70.5, 'arXiv 2106.13797'),
    'timm/pvt_v2_b1': (78.7, 'arXiv 2106.13797'),
    'timm/pvt_v2_b2': (82.0, 'arXiv 2106.13797'),
    'timm/ghostnet_100': (73.9, 'arXiv 1911.11907'),
    'timm/mobilevit_xxs': (69.0, 'arXiv 2110.02178'),
    'timm/mobilevit_xs': (74.8, 'arXiv 2110.02178'),
    'timm/mobilevit_s': (78.4, 'arXiv 2110.02178'),
}
"""By network, ImageNet-1k top-1 in per cent, and the paper that reports it. TorchVision's come with its weights."""

PEERS = (
    'torchvision/resnet50',
    'torchvision/convnext_tiny',
    'torchvision/swin_t',
    'torchvision/mobilenet_v2',
    'torchvision/mobilenet_v3_large',
    'torchvision/shufflenet_v2_x1_5',
    *PUBLISHED,
)

FASTERNETS = tuple(name for ours in OURS for name in (ours, f'timm/{ours}', f'timm/{ours}{SLICING}'))
"""Every variant, ours and timm's in both modes."""


class Accuracy(NamedTuple):
    """ImageNet-1k top-1 in per cent, as published, and by whom."""

    top1: float
    source: str


@dataclass(frozen=True)
class NetworkTask:
    """A network, and the images that it gets.

    Attributes:
        network: 'fasternet_s' for ours, 'timm/NAME', 'torchvision/NAME'; 'timm/fasternet_s:slicing' for timm's other
            mode.
        form: 'classifier', or 'backbone': maps for dense prediction, four of FasterNet.
        batch, height, width: of the images, in pixels.
        device: 'cpu' or 'cuda'.
    """

    network: str
    form: str = 'classifier'
    batch: int = 1
    height: int = 224
    width: int = 224
    device: str = 'cpu'

    @property
    def is_ours(self) -> bool:
        return '/' not in self.network

    def images(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, 3, self.height, self.width, generator=generator).to(self.device)


def default_networks(form: str) -> tuple[str, ...]:
    """All that are compared by default. TorchVision's have no form for dense prediction."""
    return (*FASTERNETS, *(name for name in PEERS if form == 'classifier' or name.startswith('timm/')))


def check_networks(names: Sequence[str], form: str) -> None:
    """Raise `UserError` unless all can be built."""
    if any(name.startswith('timm/') for name in names):
        require('timm', 'comparing with timm/…')
    for name in names:
        known = _known(name)
        plain = name.removesuffix(SLICING) if name.startswith('timm/fasternet_') else name
        if plain not in known:
            hint = nearest(name, known, f'use fasternet_s, timm/NAME, timm/fasternet_s{SLICING} or torchvision/NAME')
            raise UserError(f'network {name} is unknown: {hint}')
        if form == 'backbone' and name.startswith('torchvision/'):
            raise UserError(f"--form backbone: {name} has no maps for dense prediction, compare with timm's networks")


def _known(name: str) -> Sequence[str]:
    package = name.partition('/')[0]
    if package == 'timm':
        import timm

        return [f'timm/{model}' for model in timm.list_models()]
    if package == 'torchvision':
        from torchvision import models

        return [f'torchvision/{model}' for model in models.list_models(module=models)]
    return OURS


def published_size(name: str) -> int:
    """The side of the images for which the network's accuracy is published."""
    return 256 if 'mobilevit_' in name else 224


def published_accuracy(name: str) -> Accuracy | None:
    """None where it is not known here."""
    package, _, model = name.rpartition('/')
    if package == 'torchvision':
        from torchvision.models import get_model_weights

        weights = get_model_weights(model).DEFAULT
        return Accuracy(round(weights.meta['_metrics']['ImageNet-1K']['acc@1'], 1), f'TorchVision, {weights}')
    arch = model.partition(':')[0].removeprefix('fasternet_')
    if arch in CLASSIFIERS:
        return Accuracy(CLASSIFIERS[arch].top1, 'arXiv 2303.03667')
    return Accuracy(*PUBLISHED[name]) if name in PUBLISHED else None


def own_baseline(name: str) -> str:
    """What a network is compared with by default: a FasterNet with timm's in its default mode, another with itself."""
    model = name.rpartition('/')[2].partition(':')[0]
    return f'timm/{model}' if model in OURS else name


def new_network(name: str, form: str) -> nn.Module:
    """With random weights, in evaluation mode, without gradients."""
    torch.manual_seed(0)
    package, _, model = name.rpartition('/')
    model, _, mode = model.partition(':')
    if package == 'torchvision':
        from torchvision.models import get_model

        net = get_model(model, weights=None)
    elif package == 'timm':
        import timm

        options = dict(pconv_fw_type=mode) if mode else {}
        net = timm.create_model(model, features_only=form == 'backbone', **options)
    else:
        net = (FasterNet if form == 'backbone' else FasterNetClassifier)(model.removeprefix('fasternet_'))
    return net.eval().requires_grad_(False)


@lru_cache(maxsize=1)  # engines that take the same network come one after another
def shared_network(name: str, form: str, device: str) -> nn.Module:
    return new_network(name, form).to(device)


@lru_cache(maxsize=1)
def count(task: NetworkTask) -> Complexity:
    """Parameters of the network, and multiply-adds of one call on all images."""
    of_one_image = complexity(new_network(task.network, task.form), task.height, task.width)
    return Complexity(of_one_image.parameters, task.batch * of_one_image.macs)
