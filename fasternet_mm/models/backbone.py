"""FasterNet as a backbone for dense prediction.

Chen et al., "Run, Don't Walk: Chasing Higher FLOPS for Faster Neural Networks", CVPR 2023,
https://arxiv.org/abs/2303.03667. The file needs PyTorch and MMEngine alone and can be used without the
rest of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

ARCHITECTURES: dict[str, dict[str, Any]] = {
    't0': dict(embed_dim=40, depths=(1, 2, 8, 2), act='GELU'),
    't1': dict(embed_dim=64, depths=(1, 2, 8, 2), act='GELU'),
    't2': dict(embed_dim=96, depths=(1, 2, 8, 2), act='ReLU'),
    's': dict(embed_dim=128, depths=(1, 2, 13, 2), act='ReLU'),
    'm': dict(embed_dim=144, depths=(3, 4, 18, 3), act='ReLU'),
    'l': dict(embed_dim=192, depths=(3, 4, 18, 3), act='ReLU'),
}
"""The six published variants (paper, table 9); what a dict ``arch`` leaves out comes from `ARCH_DEFAULTS`."""

ARCH_DEFAULTS: dict[str, Any] = dict(mlp_ratio=2.0, n_div=4, act='ReLU')
"""The paper's hidden channels per channel, channels per convolved one, and activation of the larger variants."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    'ReLU': nn.ReLU,
    'GELU': nn.GELU,
    'SiLU': nn.SiLU,
    'Hardswish': nn.Hardswish,
}
"""What ``act_cfg`` may name without MMEngine's registry; none of them is random."""

RECOMPUTED_BYTES = 2**20
"""Size of a block's hidden activations, in bytes, from which on they are recomputed for the backward pass instead of
stored. Below, there is little memory to save, and launching two more operations takes longer than they do."""

MIN_INPUT_SIZE = 32
"""Pixels in height and in width; below it the last stage, at stride 32, has no pixel left."""


class InvalidArgument(ValueError):
    """An argument is outside what a class or function of this package accepts; the message names both."""


class ImageTooSmall(InvalidArgument):
    """An image has fewer than 32 pixels in height or width."""


class PartialConv(nn.Module):
    """PConv: a 3x3 convolution over the first ``dim // n_div`` channels; the others pass through (section 3.2).

    The result never shares memory with the input, so a shortcut around it stays intact in every mode.

    Args:
        dim: channels of input and output.
        n_div: one channel in ``n_div`` is convolved. Default: 4.

    Shape:
        ``(N, dim, H, W)`` to ``(N, dim, H, W)``, in the input's dtype and memory format.

    Raises:
        InvalidArgument: ``n_div`` leaves no channel to convolve.
    """

    def __init__(self, dim: int, n_div: int = 4) -> None:
        super().__init__()
        if not 1 <= n_div <= dim:
            raise InvalidArgument(f'n_div={n_div} does not divide {dim} channels: use 1 to {dim}; the paper uses 4')
        self.dim_conv = dim // n_div
        self.partial_conv3 = nn.Conv2d(self.dim_conv, self.dim_conv, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        convolved, untouched = x.split([self.dim_conv, x.shape[1] - self.dim_conv], dim=1)
        # Under autocast the convolution answers in the lower precision; the untouched part keeps its own,
        # so cat promotes and nothing that merely passes through is rounded.
        return torch.cat((self.partial_conv3(convolved), untouched), dim=1)


class DropPath(nn.Module):
    """Stochastic depth: drops whole samples of a residual branch in training (https://arxiv.org/abs/1603.09382).

    Args:
        drop_prob: probability that a sample's branch is dropped, 0 <= ``drop_prob`` < 1; survivors are scaled by
            ``1 / (1 - drop_prob)``.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return x
        keep = 1 - self.drop_prob
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob:.3f}'


class FasterNetBlock(nn.Module):
    """PConv, then two pointwise convolutions with norm and activation only between them (section 3.3, figure 4).

    Args:
        dim: channels of input and output.
        mlp_ratio: hidden channels of the pointwise pair, as a multiple of ``dim``. Default: 2.
        n_div: see `PartialConv`. Default: 4.
        drop_path: probability of dropping the branch in training. Default: 0.
        layer_scale_init_value: initial value of a learned scale per channel on the branch; 0 means none. Default: 0.
        norm_cfg: norm layer of the pointwise pair. Default: ``dict(type='BN')``.
        act_cfg: activation of the pointwise pair. Default: ``dict(type='ReLU')``.
        with_cp: recompute the whole branch in the backward pass instead of storing it; otherwise only its norm and
            activation are recomputed, see `RecomputingBranch`. Default: False.

    Shape:
        ``(N, dim, H, W)`` to ``(N, dim, H, W)``.
    """

    def __init__(
        self,
        dim: int,
        mlp_ratio: float = 2.0,
        n_div: int = 4,
        drop_path: float = 0.0,
        layer_scale_init_value: float = 0.0,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.spatial_mixing = PartialConv(dim, n_div)
        self.mlp = nn.Sequential(
            nn.Conv2d(dim, hidden, 1, bias=False),
            build_norm(norm_cfg, hidden),
            build_activation(act_cfg),
            nn.Conv2d(hidden, dim, 1, bias=False),
        )
        self.layer_scale = nn.Parameter(torch.full((dim,), layer_scale_init_value)) if layer_scale_init_value else None
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        branch = self._trained_branch(x) if self.training and torch.is_grad_enabled() else self._branch(x)
        if self.layer_scale is not None:
            branch = branch * self.layer_scale[:, None, None]
        return x + self.drop_path(branch)

    def _branch(self, x: Tensor) -> Tensor:
        return self.mlp(self.spatial_mixing(x))

    def _trained_branch(self, x: Tensor) -> Tensor:
        """The same, with less memory or in less time where that is possible."""
        if self.with_cp:
            # Activations from elsewhere may be random.
            preserve_rng_state = type(self.mlp[2]) not in ACTIVATIONS.values()
            options: dict[str, Any] = dict(use_reentrant=False, preserve_rng_state=preserve_rng_state)
            if not is_compiling():  # the compiler updates statistics once by itself and takes no context_fn
                contexts = nullcontext(), _FrozenRunningStats(self)
                options['context_fn'] = lambda: contexts
            return checkpoint(self._branch, x, **options)
        modules = None if is_compiling() else _plain_modules(self)
        if modules is None or x.numel() == x.shape[1]:  # the norm refuses a single value
            return self._branch(x)
        partial, expand, norm, activation, reduce = modules
        tensors = x, partial.weight, expand.weight, reduce.weight
        dtype = _autocast_dtype(x)
        if dtype is not None:
            tensors = x.to(dtype), *(layer.weight.to(dtype) for layer in (partial, expand, reduce))
        if norm.training:
            norm.num_batches_tracked.add_(1)
        statistics = norm.running_mean, norm.running_var, norm.training, norm.momentum, norm.eps
        hidden_bytes = tensors[0].nbytes // x.shape[1] * expand.out_channels
        branch = branch_arithmetic if hidden_bytes < RECOMPUTED_BYTES else RecomputingBranch.apply
        return branch(*tensors, norm.weight, norm.bias, statistics, _DIFFERENTIABLE[type(activation)])[0]


def _plain_modules(block: FasterNetBlock) -> tuple[Any, ...] | None:
    """PConv's convolution and the four modules after it, where `branch_arithmetic` computes what they do.

    None stands for other modules, and for those that somebody watches.
    """
    mixing, mlp = block.spatial_mixing, block.mlp
    modules = mixing, mixing.partial_conv3, mlp, *mlp
    for module in modules:
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
            return None
    if len(modules) != 7:
        return None
    _, partial, _, expand, norm, activation, reduce = modules
    is_plain = (
        type(mixing) is PartialConv
        and type(partial) is type(expand) is type(reduce) is nn.Conv2d
        and partial.bias is expand.bias is reduce.bias is None
        and type(norm).forward is _BatchNorm.forward
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and type(activation) in _DIFFERENTIABLE
        and getattr(activation, 'approximate', 'none') == 'none'
    )
    return (partial, expand, norm, activation, reduce) if is_plain else None


class DifferentiableActivation(NamedTuple):
    """An elementwise function that may overwrite its argument, and its derivative.

    Attributes:
        function: from a tensor to a tensor.
        backward: from the result's gradient, and what ``function`` got and may have overwritten, to the gradient.
    """

    function: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


_DIFFERENTIABLE = {
    nn.ReLU: DifferentiableActivation(
        torch.relu_, lambda gradient, x: torch.ops.aten.threshold_backward.default(gradient, x, 0)
    ),
    nn.GELU: DifferentiableActivation(nn.functional.gelu, torch.ops.aten.gelu_backward.default),
}

BatchNormArguments = tuple[Tensor | None, Tensor | None, bool, float, float]
"""Of ``torch.native_batch_norm``: running mean and variance, whether the batch's own are used, momentum, eps."""


def branch_arithmetic(
    x: Tensor,
    partial: Tensor,
    expand: Tensor,
    reduce: Tensor,
    scale: Tensor,
    shift: Tensor,
    statistics: BatchNormArguments,
    activation: DifferentiableActivation,
) -> tuple[Tensor, ...]:
    """What the modules of a `FasterNetBlock` compute, without them: their calls take longer than small maps do.

    Args:
        x: ``(N, C, H, W)``.
        partial, expand, reduce: weights of PConv and of the two PWConvs.
        scale, shift: of the norm.
        statistics: the norm's other arguments; its running statistics are updated.
        activation: after the norm.

    Returns:
        The branch ``(N, C, H, W)``, and on the way to it: PConv's result, the hidden activations before the norm, and
        their mean and inverse standard deviation.
    """
    channels = partial.shape[0]
    convolved, untouched = x.split_with_sizes((channels, x.shape[1] - channels), dim=1)
    convolved = torch.conv2d(convolved, partial, None, 1, 1)
    mixed = torch.cat((convolved, untouched), dim=1)
    hidden = torch.conv2d(mixed, expand)
    normed, mean, inverse_std = torch.native_batch_norm(hidden, scale, shift, *statistics)
    return torch.conv2d(activation.function(normed), reduce), mixed, hidden, mean, inverse_std


class RecomputingBranch(torch.autograd.Function):
    """`branch_arithmetic`, with a backward pass that repeats what is cheap instead of storing it.

    Autograd stores a block's input, PConv's result, the hidden activations, and these after norm and activation: with
    ReLU 1 + 1 + 2 + 2 times the size of a map, with GELU two more. Here all of what comes after the norm is repeated.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor]:
        *tensors, statistics, activation = arguments
        branch, *intermediate = branch_arithmetic(*arguments)
        ctx.save_for_backward(*tensors, *intermediate)
        # The backward pass takes the same statistics, and updates nothing.
        ctx.statistics = (None, None, True, 0.0, statistics[4]) if statistics[2] else statistics
        ctx.activation = activation
        return (branch,)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, mixed, hidden, mean, inverse_std = ctx.saved_tensors
        x, partial, expand, reduce, scale, shift = tensors
        if torch.is_grad_enabled():  # somebody differentiates the gradients as well
            branch = branch_arithmetic(x, partial, expand, reduce, scale, shift, ctx.statistics, ctx.activation)[0]
            return *torch.autograd.grad(branch, tensors, gradient, create_graph=True), None, None
        running_mean, running_var, of_batch, _, eps = ctx.statistics
        normed = torch.native_batch_norm(hidden, scale, shift, *ctx.statistics)[0]
        activated = ctx.activation.function(normed)
        gradient, of_reduce = _conv_gradients(gradient, activated, reduce)
        gradient = ctx.activation.backward(gradient, normed)
        gradient, of_scale, of_shift = torch.ops.aten.native_batch_norm_backward.default(
            gradient, hidden, scale, running_mean, running_var, mean, inverse_std, of_batch, eps, (True, True, True)
        )
        gradient, of_expand = _conv_gradients(gradient, mixed, expand)
        channels = partial.shape[0]
        gradient[:, :channels], of_partial = _conv_gradients(gradient[:, :channels], x[:, :channels], partial)
        return gradient, of_partial, of_expand, of_reduce, of_scale, of_shift, None, None


def _conv_gradients(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the input and the weight of a convolution that keeps the size of its maps."""
    padding = weight.shape[2] // 2, weight.shape[3] // 2
    geometry = (1, 1), padding, (1, 1), False, (0, 0), 1
    mask = True, True, False
    return torch.ops.aten.convolution_backward.default(gradient, x, weight, None, *geometry, mask)[:2]


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast lets convolutions of ``x`` compute in; None where it leaves them alone."""
    device = x.device.type
    if device == 'meta' or x.dtype == torch.float64:
        return None
    if hasattr(torch, 'get_autocast_dtype'):
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    if device == 'cpu':  # PyTorch 2.1 to 2.3
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


class FasterNetStage(nn.Module):
    """Blocks of one resolution.

    Args:
        dim: channels.
        depth: number of blocks.
        drop_path: one probability per block, or one for all. Default: 0.
        block_args: the other arguments of `FasterNetBlock`.

    Shape:
        ``(N, dim, H, W)`` to ``(N, dim, H, W)``.
    """

    def __init__(self, dim: int, depth: int, drop_path: float | Sequence[float] = 0.0, **block_args: Any) -> None:
        super().__init__()
        rates = [drop_path] * depth if isinstance(drop_path, (int, float)) else drop_path
        if len(rates) != depth:
            raise InvalidArgument(f'{len(rates)} drop_path rates for {depth} blocks: give one per block, or one number')
        self.blocks = nn.Sequential(*(FasterNetBlock(dim, drop_path=rate, **block_args) for rate in rates))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class PatchEmbed(nn.Module):
    """Embedding: 4x4 convolution of stride 4, then norm. ``(N, in_channels, H, W)`` to ``(N, dim, H//4, W//4)``."""

    def __init__(self, in_channels: int, dim: int, norm_cfg: dict | None = None) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, 4, stride=4, bias=False)
        self.norm = build_norm(norm_cfg, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class PatchMerging(nn.Module):
    """Merging: 2x2 convolution of stride 2, then norm. ``(N, dim, H, W)`` to ``(N, 2*dim, H//2, W//2)``."""

    def __init__(self, dim: int, norm_cfg: dict | None = None) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(dim, 2 * dim, 2, stride=2, bias=False)
        self.norm = build_norm(norm_cfg, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x))


class FasterNetModule(BaseModule):
    """What the backbone and the classifier share: how their weights begin.

    Args:
        init_cfg: MMEngine's initialization. Default: truncated normal of std 0.02, the authors' choice.
    """

    pretrained_scope: str | None = None
    """The registries' scope in which the initializer ``Pretrained`` is looked up; None is the default scope."""

    def __init__(self, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg or dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02))

    def init_weights(self) -> None:
        for cfg in [self.init_cfg] if isinstance(self.init_cfg, dict) else self.init_cfg or []:
            if self.pretrained_scope and cfg.get('type') == 'Pretrained':
                cfg['_scope_'] = self.pretrained_scope  # whatever a config says that inherits from 'mmdet::…'
        super().init_weights()


class FasterNet(FasterNetModule):
    """FasterNet backbone with one map per requested stage, each through a norm of its own.

    Stages beyond the last requested one are not built. Parameter names are those of the authors' code.

    Args:
        arch: 't0', 't1', 't2', 's', 'm', 'l', or a dict with ``embed_dim``, ``depths`` and, optionally,
            ``mlp_ratio`` (2), ``n_div`` (4), ``act`` ('ReLU'). Default: 's'.
        out_indices: stages whose maps are returned, ascending; stage ``i`` has stride ``4 * 2**i``.
            Default: (0, 1, 2, 3).
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0 at the first. Default: 0.
        layer_scale_init_value: see `FasterNetBlock`. Default: 0, as published.
        frozen_stages: -1 freezes nothing, 0 the embedding, ``i`` also the first ``i`` stages with their mergings:
            no gradients, and evaluation mode. The output norms stay trainable, since no published classification
            checkpoint holds them. Default: -1.
        norm_eval: keep every batch norm in evaluation mode, its statistics unchanged, while training. Default: False.
        norm_cfg: norm layers. Default: ``dict(type='BN')``.
        act_cfg: activation; overrides the variant's own. Default: None.
        with_cp: activation checkpointing of every block: less memory, one more forward pass. Default: False.
        in_channels: channels of the image. Default: 3.
        init_cfg: MMEngine's initialization. Default: truncated normal of std 0.02, the authors' choice.

    Shape:
        ``(N, in_channels, H, W)``, H and W >= 32, to a tuple of ``(N, embed_dim * 2**i, H // s, W // s)`` with
        ``s = 4 * 2**i`` for ``i`` in ``out_indices``.

    Raises:
        InvalidArgument: an argument is outside what is accepted.
        ImageTooSmall: in ``forward``, an image has fewer than 32 pixels in height or width.
    """

    def __init__(
        self,
        arch: str | dict[str, Any] = 's',
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        with_cp: bool = False,
        in_channels: int = 3,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.arch = resolve_arch(arch)
        depths = self.arch['depths']
        self.out_indices = _checked_out_indices(out_indices, len(depths))
        if not 0 <= drop_path_rate < 1:
            raise InvalidArgument(f'drop_path_rate={drop_path_rate!r}: use a number from 0 up to, not including, 1')
        if frozen_stages not in range(-1, len(depths) + 1):
            raise InvalidArgument(
                f'frozen_stages={frozen_stages!r}: use -1 (nothing), 0 (embedding) or 1 to {len(depths)} (also stages)'
            )
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

        self.patch_embed = PatchEmbed(in_channels, self.arch['embed_dim'], norm_cfg)
        drop_paths = torch.linspace(0, drop_path_rate, sum(depths), device='cpu').split(list(depths))
        self.channels = [self.arch['embed_dim'] * 2**i for i in range(self.out_indices[-1] + 1)]
        # The authors number stages and mergings in one list: stage i stands at 2*i, the merging before it at 2*i-1.
        self.stages = nn.ModuleList()
        for i, dim in enumerate(self.channels):
            if i > 0:
                self.stages.append(PatchMerging(dim // 2, norm_cfg))
            stage = FasterNetStage(
                dim,
                depths[i],
                drop_path=drop_paths[i].tolist(),
                mlp_ratio=self.arch['mlp_ratio'],
                n_div=self.arch['n_div'],
                layer_scale_init_value=layer_scale_init_value,
                norm_cfg=norm_cfg,
                act_cfg=act_cfg or dict(type=self.arch['act']),
                with_cp=with_cp,
            )
            self.stages.append(stage)
        for i in self.out_indices:
            self.add_module(f'norm{2 * i}', build_norm(norm_cfg, self.channels[i]))
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        check_input_size(x)
        x = self.patch_embed(x)
        maps = []
        for position, stage in enumerate(self.stages):
            x = stage(x)
            if position % 2 == 0 and position // 2 in self.out_indices:
                maps.append(getattr(self, f'norm{position}')(x))
        return tuple(maps)

    def train(self, mode: bool = True) -> FasterNet:
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for module in (self.patch_embed, *self.stages[: max(0, 2 * self.frozen_stages - 1)]):
            module.eval()
            module.requires_grad_(False)


def check_input_size(x: Tensor) -> None:
    """Raise `ImageTooSmall` for an image smaller than 32 pixels in height or width."""
    if x.shape[-2] < MIN_INPUT_SIZE or x.shape[-1] < MIN_INPUT_SIZE:
        raise ImageTooSmall(
            f'an image of {x.shape[-2]}x{x.shape[-1]} pixels (H x W) is too small for FasterNet: '
            f'resize or pad it to at least {MIN_INPUT_SIZE}x{MIN_INPUT_SIZE}'
        )


def resolve_arch(arch: str | dict[str, Any]) -> dict[str, Any]:
    """The complete description of a variant: ``embed_dim``, ``depths``, ``mlp_ratio``, ``n_div``, ``act``.

    Raises:
        InvalidArgument: the name is unknown, or the dict has unknown keys, missing keys or impossible values.
    """
    if isinstance(arch, str):
        if arch not in ARCHITECTURES:
            raise InvalidArgument(f'arch={arch!r} is unknown: use one of {", ".join(ARCHITECTURES)}, or a dict')
        return {**ARCH_DEFAULTS, **ARCHITECTURES[arch]}
    accepted = {'embed_dim', 'depths', *ARCH_DEFAULTS}
    wrong = sorted(set(arch) - accepted) + sorted({'embed_dim', 'depths'} - set(arch))
    if wrong:
        raise InvalidArgument(
            f'arch has unknown or missing keys {wrong}: needs embed_dim, depths; may have mlp_ratio, n_div, act'
        )
    arch = {**ARCH_DEFAULTS, **arch, 'depths': tuple(arch['depths'])}
    if not arch['depths'] or min(arch['depths']) < 1 or arch['embed_dim'] < 1:
        raise InvalidArgument(
            f'arch with embed_dim={arch["embed_dim"]}, depths={arch["depths"]}: all must be at least 1'
        )
    return arch


def build_norm(cfg: dict | None, channels: int) -> nn.Module:
    """The norm layer that an MMEngine-style ``norm_cfg`` describes; ``requires_grad`` is honored. Default: BN."""
    cfg = dict(cfg or dict(type='BN'))
    requires_grad = cfg.pop('requires_grad', True)
    kind = cfg.pop('type')
    if kind == 'GN':
        norm = nn.GroupNorm(num_channels=channels, **cfg)
    else:
        norm = _layer_class(kind, {'BN': nn.BatchNorm2d, 'SyncBN': nn.SyncBatchNorm})(channels, **cfg)
    return norm.requires_grad_(requires_grad)


def build_activation(cfg: dict | None) -> nn.Module:
    """The activation that an MMEngine-style ``act_cfg`` describes. Default: ReLU."""
    cfg = dict(cfg or dict(type='ReLU'))
    kind = cfg.pop('type')
    if kind == 'ReLU':
        cfg.setdefault('inplace', True)
    return _layer_class(kind, ACTIVATIONS)(**cfg)


def _layer_class(kind: str | type, known: dict[str, type]) -> type:
    """PyTorch's own layers first, so that the file works where no MMCV has filled MMEngine's registry."""
    layer = kind if isinstance(kind, type) else known.get(kind) or MODELS.get(kind)
    if layer is None:
        raise InvalidArgument(f'layer type {kind!r} is unknown: use {", ".join(known)}, or one registered in MMEngine')
    return layer


def _checked_out_indices(out_indices: Sequence[int], num_stages: int) -> tuple[int, ...]:
    out_indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    possible = range(num_stages)
    if not out_indices or list(out_indices) != [i for i in possible if i in out_indices]:
        raise InvalidArgument(
            f'out_indices={out_indices}: use ascending stage numbers out of {tuple(possible)}, at least one'
        )
    return out_indices


def is_compiling() -> bool:
    """Whether PyTorch is reading the code for its compiler or for export, not running it."""
    if hasattr(torch.compiler, 'is_compiling'):
        return torch.compiler.is_compiling()
    return torch._dynamo.is_compiling()  # PyTorch 2.1 and 2.2


class _FrozenRunningStats:
    """Context in which batch norms normalize as in training but leave their running statistics alone.

    Activation checkpointing runs layers twice, or more often where a graph is walked more than once; without this the
    statistics would move each time. A class, since such a context is entered repeatedly.
    """

    def __init__(self, module: nn.Module) -> None:
        self.norms: list[Any] = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]

    def __enter__(self) -> None:
        self.states = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, num_batches_tracked) in zip(self.norms, self.states):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches_tracked
