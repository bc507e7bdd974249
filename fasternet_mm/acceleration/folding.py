"""Batch norms folded into convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from mmcv.cnn import ConvModule
from mmengine.model.utils import _BatchNormXd  # what it makes of SyncBN where there is one process
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..models.backbone import FasterNetBlock, PatchEmbed, PatchMerging

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, _BatchNormXd)

TAKEN_APART = {'TaskDecomposition': 'reduction_conv'}
"""Classes, by name, with a ``ConvModule`` that they do not call: TOOD's multiplies its weights by others, and calls the
norm and the activation alone."""


def fold_batch_norms(model: nn.Module) -> None:
    """Fold each batch norm of a model in evaluation mode, in place, into the convolution whose result it alone takes.

    Which those are is known from the module that calls them: FasterNet's embedding and mergings; MMCV's ``ConvModule``
    where the norm comes right after the convolution; neighbors in an ``nn.Sequential``, as in FasterNet's blocks.
    Layer scale goes into the last convolution of its block. Each pair gets a convolution of its own, so what is shared
    between places, as are convolutions in MMDetection's ``RTMDetSepBNHead``, is folded with each place's norm.

    Convolutions and norms of derived types or with hooks and norms without running statistics stay as they are, and so
    do the output norms of `FasterNet`: what they take also goes on to the next stage.
    """
    for module in called_modules(model):
        for conv_name, norm_name in _pairs(module):
            conv, norm = getattr(module, conv_name), getattr(module, norm_name)
            if _foldable(conv, norm):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
        if type(module) is FasterNetBlock and module.layer_scale is not None:
            last = module.mlp[3]
            last.weight.data = last.weight.data * module.layer_scale.data[:, None, None, None]
            module.layer_scale = None


def fold_norm_before(norm: nn.Module, conv: nn.Conv2d) -> None:
    """Let a 1x1 convolution, in place, do the work of the batch norm whose result it takes as well."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    conv.bias = nn.Parameter(conv(shift[None, :, None, None]).flatten(), requires_grad=False)
    conv.weight = nn.Parameter(conv.weight * scale[:, None, None], requires_grad=False)


def called_modules(model: nn.Module) -> list[nn.Module]:
    """All modules but those of which others use the parts, see `TAKEN_APART`."""
    apart = {
        id(getattr(module, TAKEN_APART[kind.__name__]))
        for module in model.modules()
        for kind in type(module).__mro__
        if kind.__name__ in TAKEN_APART
    }
    return [module for module in model.modules() if id(module) not in apart]


def _pairs(module: nn.Module) -> Sequence[tuple[str, str]]:
    """Names of the children of which the second takes the first one's result, and nothing else does."""
    if runs_as(module, PatchEmbed):
        return [('proj', 'norm')]
    if runs_as(module, PatchMerging):
        return [('reduction', 'norm')]
    if runs_as(module, ConvModule):
        follows = module.with_norm and module.order.index('norm') == module.order.index('conv') + 1
        folds_itself = getattr(module, 'efficient_conv_bn_eval_forward', None)
        return [('conv', module.norm_name)] if follows and not folds_itself else []
    return list(pairwise(module._modules)) if runs_as(module, nn.Sequential) else []


def runs_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether it is of a kind, or of one derived from it that has the same forward pass."""
    return isinstance(module, kind) and type(module).forward is kind.forward


def _foldable(conv: nn.Module, norm: nn.Module) -> bool:
    return (
        type(conv) is nn.Conv2d
        and type(norm) in BATCH_NORMS
        and isinstance(norm.running_mean, Tensor)
        and not has_hooks(conv)
        and not has_hooks(norm)
    )


def has_hooks(module: nn.Module) -> bool:
    """Whether something happens around its forward pass, as with PyTorch's older spectral and weight norm."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
