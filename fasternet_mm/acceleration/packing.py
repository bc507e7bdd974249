"""Convolutions and fully connected layers on oneDNN's fused kernels, with weights in the order that these want.

PyTorch has these kernels for its own compiler, under private names. Another release may rename or change them, so each
kind of layer tries its own against PyTorch's public ones before the first use: see `kernels_work`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks import Swish
from mmengine.logging import print_log
from torch import Tensor, nn

from ..models import FasterNet, FasterNetBlock, FasterNetClassifier, FasterNetStage
from ..models.backbone import is_compiling
from .folding import called_modules, has_hooks, runs_as

ACTIVATIONS = {
    nn.ReLU: ('relu', torch.relu_),
    nn.GELU: ('gelu', F.gelu),
    nn.SiLU: ('swish', partial(F.silu, inplace=True)),
    Swish: ('swish', partial(F.silu, inplace=True)),
    nn.Hardswish: ('hardswish', partial(F.hardswish, inplace=True)),
}
"""What oneDNN applies as it writes a convolution's result: its name for it, and PyTorch's own function."""

ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""By type, the difference between two kernels' results of about 1 that rounding explains, absolute and relative."""

STRIP_BYTES = 4 * 2**20
"""Hidden activations that a block makes at a time: few enough for the cache."""


class PackedLayer:
    """Weights reordered for oneDNN, kept for the size of input seen last.

    The order depends on that size. PyTorch's own layers reorder at every call, which takes as long as the convolution
    where maps are small and weights many.
    """

    weight: nn.Parameter
    on_trial = False
    """Whether it is one of those that try the kernels, and so uses them whatever they compute."""

    _pack: tuple[Any, Tensor] | None = None

    @classmethod
    def trials(cls, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
        """What small layers of this kind compute, and what PyTorch's own layers compute in their place."""
        raise NotImplementedError

    def _packed(self, size: torch.Size) -> Tensor:
        weight = self.weight
        key = size, weight.dtype, weight.data_ptr(), weight._version
        pack = self._pack  # read once, since another thread may replace it
        if pack is None or pack[0] != key:
            self._pack = pack = key, self._reordered(size)
        return pack[1]

    def _reordered(self, size: torch.Size) -> Tensor:
        raise NotImplementedError

    def _has_kernel(self, x: Tensor) -> bool:
        return (
            x.is_cpu
            and x.dtype == self.weight.dtype
            and x.dtype in ROUNDING
            and x.numel() > 0
            and torch.backends.mkldnn.enabled
            and not is_compiling()
            and not torch.jit.is_tracing()
            and (self.on_trial or kernels_work(type(self), x.dtype))
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_pack': None}  # oneDNN's tensors can be neither copied nor pickled


@cache
def kernels_work(kind: type[PackedLayer], dtype: torch.dtype) -> bool:
    """Whether the kernels behind a kind of layer are there and compute what PyTorch's own do; warns where not.

    They are tried once in a process, which takes milliseconds.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        with _as_everywhere('cpu'), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            for computed, expected in kind.trials(dtype):
                torch.testing.assert_close(computed, expected, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])
    except Exception as error:  # a private operator that was changed may raise anything
        _tell_slower(f'{kind.__name__} in {dtype}', error)
        return False
    return True


@contextmanager
def _as_everywhere(device: str) -> Iterator[None]:
    """A trial happens in whatever context a layer is first called, and its outcome holds in all of them."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
        yield


def _tell_slower(layer: str, error: Exception) -> None:
    reason = str(error).partition('\n')[0] or type(error).__name__
    print_log(
        f"{layer} runs on PyTorch's own kernels, which are slower: the fused ones of PyTorch {torch.__version__} are "
        f'not as expected ({reason})',
        logger='current',
        level=logging.WARNING,
    )


@cache
def fused_product_works(device: str) -> bool:
    """Whether PyTorch's private product of matrices with bias and ReLU is there and right; tried once on a device."""
    try:
        with _as_everywhere(device):
            a, b = torch.arange(48.0, device=device).sub(20).div(8).view(2, 4, 6)
            bias = torch.arange(4.0, device=device).sub(2)
            torch.testing.assert_close(torch._addmm_activation(bias, a, b.t()), (a @ b.t() + bias).relu())
    except Exception as error:
        _tell_slower('PackedBlock', error)
        return False
    return True


class PackedConv2d(PackedLayer, nn.Conv2d):
    """A convolution with the activation after it. Where oneDNN cannot, PyTorch's own kernels compute the same.

    Args:
        conv: its parameters are shared. Padding, if any, is with zeros.
        activation: a key of `ACTIVATIONS`. Default: None.
    """

    def __init__(self, conv: nn.Conv2d, activation: type[nn.Module] | None = None) -> None:
        shape = conv.in_channels, conv.out_channels, conv.kernel_size
        geometry = conv.stride, conv.padding, conv.dilation, conv.groups
        super().__init__(*shape, *geometry, bias=conv.bias is not None, device='meta')
        self.weight, self.bias = conv.weight, conv.bias
        self.onednn_activation, self.activation = ACTIVATIONS.get(activation, ('none', None))
        self.geometry = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self.train(conv.training)

    @classmethod
    def trials(cls, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
        plain = nn.Conv2d(6, 8, 3, padding=1, device='cpu', dtype=dtype)
        maps = torch.randn(2, 8, 5, 7, device='cpu').to(dtype, memory_format=torch.channels_last)
        for activation in (None, *ACTIVATIONS):
            layer = cls(plain, activation)
            layer.on_trial = True
            expected = plain(maps[:, :6])
            yield layer(maps[:, :6]), activation()(expected) if activation else expected
        total = maps.clone()
        layer.add_to(total, maps[:, :6])
        yield total, maps + plain(maps[:, :6])

    def forward(self, x: Tensor) -> Tensor:
        if not (self._has_kernel(x) and x.dim() == 4):
            x = super().forward(x)
            return self.activation(x) if self.activation else x
        options = *self.geometry, self.onednn_activation, [], 'none'
        return torch.ops.mkldnn._convolution_pointwise(x, self._packed(x.shape), self.bias, *options)

    def add_to(self, total: Tensor, x: Tensor) -> None:
        """Add the convolution of ``x``, without activation, to ``total`` in place; both are channels_last maps."""
        if not self._has_kernel(x):
            total.add_(super().forward(x))
            return
        options = *self.geometry, 'add', 1.0, None, [], None
        torch.ops.mkldnn._convolution_pointwise_.binary(total, x, self._packed(x.shape), self.bias, *options)

    def _reordered(self, size: torch.Size) -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.geometry, list(size))


class PackedLinear(PackedLayer, nn.Linear):
    """A fully connected layer. A single row is left to PyTorch: reading the weights takes its time, in any order."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device='meta')
        self.weight, self.bias = linear.weight, linear.bias
        self.train(linear.training)

    @classmethod
    def trials(cls, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
        plain = nn.Linear(6, 8, device='cpu', dtype=dtype)
        layer = cls(plain)
        layer.on_trial = True
        rows = torch.randn(5, 6, device='cpu').to(dtype)
        yield layer(rows), plain(rows)

    def forward(self, x: Tensor) -> Tensor:
        if not (self._has_kernel(x) and x.dim() == 2 and len(x) > 1):
            return super().forward(x)
        return torch.ops.mkldnn._linear_pointwise(x, self._packed(x.shape), self.bias, 'none', [], '')

    def _reordered(self, size: torch.Size) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(self.weight, size[0])


class PackedBlock(nn.Module):
    """A folded `FasterNetBlock` that overwrites its input with its result: nobody else may need that input.

    The shortcut is the input itself, to which the last convolution adds. Everything before that is made for a strip of
    pixels at a time and stays in the cache: PConv's result beside the untouched channels, and the hidden activations.

    On a GPU it is a whole map at a time: see `_on_gpu`.
    """

    def __init__(self, block: FasterNetBlock) -> None:
        super().__init__()
        self.partial_conv3 = block.spatial_mixing.partial_conv3
        self.expand, self.reduce = block.mlp[0], block.mlp[3]

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        if x.is_cuda:
            return self._on_gpu(x)
        dim_conv = self.partial_conv3.in_channels
        convolved, untouched = _pixels(self.partial_conv3(x[:, :dim_conv])), _pixels(x)[:, dim_conv:]
        strips = 1
        if self.expand._has_kernel(x):
            strips = math.ceil(len(untouched) * self.expand.out_channels * x.element_size() / STRIP_BYTES)
        for total, *mixed in zip(*(rows.chunk(strips) for rows in (_pixels(x), convolved, untouched))):
            self.reduce.add_to(_map(total), self.expand(_map(torch.cat(mixed, dim=1))))
        return x

    def _on_gpu(self, x: Tensor) -> Tensor:
        """The same with few launches, and without those that are slow on a part of the channels.

        PConv gets a copy of its channels, a quarter of the map: cuDNN has only slow kernels for a view of them. In
        float16 and bfloat16 the pointwise convolutions are products of matrices, the pixels' and the weights'. These
        take bias, ReLU and the shortcut along as they write their result, for which cuDNN's convolutions need passes of
        their own over the map. In float32 they stay convolutions, which PyTorch lets compute in TensorFloat-32 by
        default, and products of matrices not.
        """
        dim_conv = self.partial_conv3.in_channels
        convolved, untouched = x[:, :dim_conv], x[:, dim_conv:]
        convolved = self.partial_conv3(convolved.contiguous(memory_format=torch.channels_last))
        mixed = torch.cat((convolved, untouched), dim=1)
        if x.dtype == torch.float32 or self.reduce.bias is not None:
            return x.add_(self.reduce(self.expand(mixed)))
        hidden = self._expanded(_pixels(mixed.contiguous(memory_format=torch.channels_last)))
        _pixels(x).addmm_(hidden, self.reduce.weight.flatten(1).t())
        return x

    def _expanded(self, pixels: Tensor) -> Tensor:
        weight, bias = self.expand.weight.flatten(1), self.expand.bias
        if self.expand.activation is torch.relu_ and bias is not None and fused_product_works(pixels.device.type):
            return torch._addmm_activation(bias, pixels, weight.t())
        hidden = F.linear(pixels, weight, bias)
        return self.expand.activation(hidden) if self.expand.activation else hidden


def _pixels(x: Tensor) -> Tensor:
    """A channels_last ``(N, C, H, W)`` as ``(N*H*W, C)``, in the same memory."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _map(pixels: Tensor) -> Tensor:
    """``(P, C)`` as a channels_last map ``(1, C, 1, P)``, in the same memory."""
    return pixels.t()[None, :, None]


def pack(model: nn.Module) -> None:
    """Give a folded model in evaluation mode, in place, the layers of this module; see `fold_batch_norms`.

    Layers of derived types or with hooks stay as they are. An activation is fused with the convolution before it where
    MMCV's ``ConvModule`` or an ``nn.Sequential`` shows that nothing else takes that one's result.
    """
    for module in called_modules(model):
        _fuse_activations(module)
    packed: dict[nn.Module, nn.Module] = {}  # what is shared between places stays shared
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child not in packed and _packable(child):
                packed[child] = PackedConv2d(child) if isinstance(child, nn.Conv2d) else PackedLinear(child)
            if child in packed:
                setattr(module, name, packed[child])
    for module in model.modules():
        if any(runs_as(module, kind) for kind in (FasterNet, FasterNetClassifier)):
            for stage in module.stages:  # what enters it is for it alone
                if runs_as(stage, FasterNetStage):
                    stage.blocks = nn.Sequential(*map(_packed_block, stage.blocks))


def _fuse_activations(module: nn.Module) -> None:
    if runs_as(module, ConvModule) and module.order == ('conv', 'norm', 'act') and module.with_activation:
        fused = _fused(module.conv, module.activate) if _is_identity(module.norm) else None
        if fused:
            module.conv, module.activate = fused, nn.Identity()
    elif runs_as(module, nn.Sequential):
        children = [(name, child) for name, child in module._modules.items() if not _is_identity(child)]
        for (conv_name, conv), (activation_name, activation) in pairwise(children):
            fused = _fused(conv, activation)
            if fused:
                setattr(module, conv_name, fused)
                setattr(module, activation_name, nn.Identity())


def _fused(conv: nn.Module, activation: nn.Module) -> PackedConv2d | None:
    exact = type(activation) in ACTIVATIONS and getattr(activation, 'approximate', 'none') == 'none'
    if not (exact and isinstance(conv, nn.Conv2d) and _packable(conv)) or has_hooks(activation):
        return None
    return PackedConv2d(conv, type(activation))


def _packable(module: nn.Module | None) -> bool:
    zeros_around = type(module) is nn.Conv2d and module.padding_mode == 'zeros' and isinstance(module.padding, tuple)
    return (zeros_around or type(module) is nn.Linear) and not has_hooks(module)


def _is_identity(module: nn.Module | None) -> bool:
    return module is None or type(module) is nn.Identity


def _packed_block(block: nn.Module) -> nn.Module:
    """Itself where something in it is not as in the paper, or watched."""
    if type(block) is not FasterNetBlock or any(map(has_hooks, block.modules())):
        return block
    expand, norm, activation, reduce = block.mlp
    packed = all(type(conv) is PackedConv2d for conv in (block.spatial_mixing.partial_conv3, expand, reduce))
    return PackedBlock(block) if packed and _is_identity(norm) and _is_identity(activation) else block
