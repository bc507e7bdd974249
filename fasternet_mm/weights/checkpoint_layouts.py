"""Whose names a checkpoint's tensors carry: recognized by the names themselves and translated to ours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError, few
from ..models.backbone import ARCH_DEFAULTS, ARCHITECTURES

WRAPPERS = ('state_dict_ema', 'state_dict', 'model')
"""Keys under which checkpoints keep their tensors; averaged weights come first, as in timm."""

PREFIXES = ('module.', 'model.', 'backbone.', '_orig_mod.')
"""What DistributedDataParallel, Lightning, detectors and `torch.compile` put before every name."""

HEAD = ('avgpool_pre_head.', 'head.')
"""The classification head; everything else of the authors' classifier is the backbone."""

STEM = 'patch_embed.proj.weight'
"""The first convolution; a FasterNet is known by it."""

TIMM_NAMES = (
    (r'^stages[._](\d+)\.downsample\.', lambda match: f'stages.{2 * int(match[1]) - 1}.'),
    (r'^stages[._](\d+)\.blocks\.', lambda match: f'stages.{2 * int(match[1])}.blocks.'),
    (r'^conv_head\.', 'avgpool_pre_head.1.'),
    (r'^classifier\.', 'head.'),
)
"""How timm's names begin, and ours in their place."""

ORIGINS = {
    'mmengine_version': ' of MMEngine',
    'mmdet_version': ' of MMDetection 2',
    'mmseg_version': ' of MMSegmentation 0',
}
"""Keys of a checkpoint's ``meta`` and the generation of OpenMMLab that writes it; the first that is there counts."""


@dataclass(frozen=True)
class Weights:
    """Tensors by our names.

    Attributes:
        tensors: of a classifier or a bare backbone named as in `FasterNetClassifier` and `FasterNet`; of anything else
            as in the file, less what stood before every name.
        layout: what the file is, in words.
        arch: the variant as a dict (``embed_dim``, ``depths``, ``mlp_ratio``, ``n_div``, ``in_channels``), as its
            shapes tell; None where there is no FasterNet in it. Shapes do not tell the activation.
    """

    tensors: dict[str, Tensor]
    layout: str
    arch: dict[str, Any] | None

    @property
    def backbone(self) -> dict[str, Tensor]:
        """The part that `FasterNet` can hold, and the classification head."""
        if not any(name.startswith('backbone.') for name in self.tensors):
            return self.tensors
        return {
            name.removeprefix('backbone.'): value
            for name, value in self.tensors.items()
            if name.startswith('backbone.')
        }


def recognize(checkpoint: dict[str, Any], name: str, prefix: str | None = None) -> Weights:
    """Find the tensors in a checkpoint and tell what they belong to.

    Args:
        checkpoint: what was read from a file, or a model's ``state_dict()``.
        name: what to call it in messages.
        prefix: take only names that start so, without it ('teacher.').

    Raises:
        UserError: there are no tensors, there is something else among them, or one is bigger than what was stored.
    """
    tensors, wrapper = _unwrap(checkpoint)
    _check_tensors(tensors, name)
    if prefix:
        start = prefix.rstrip('.') + '.'
        tensors = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        if not tensors:
            raise UserError(f'checkpoint {name} has no tensors whose names start with {start!r}')
    tensors = _without_prefixes(tensors, name)
    layout = 'model'
    if STEM in tensors:
        if any('.downsample.' in key for key in tensors) or 'conv_head.weight' in tensors:
            layout, tensors = "timm's FasterNet", _renamed(tensors, _timm_to_ours, name)
        elif any(key.startswith(HEAD) for key in tensors):
            layout = 'classifier'
        else:
            layout = 'backbone'
    elif f'backbone.{STEM}' in tensors:
        layout = 'detector or segmenter'
    meta = checkpoint.get('meta')
    origin = next((o for key, o in ORIGINS.items() if isinstance(meta, dict) and key in meta), '')
    description = layout + origin + (f", in '{wrapper}'" if wrapper else '')
    return Weights(tensors, description, _arch(Weights(tensors, '', None).backbone))


def arch_name(arch: dict[str, Any]) -> str:
    """'FasterNet-S' for a published variant, also one cut off after fewer stages; else its sizes."""
    for name, known in ARCHITECTURES.items():
        same = all(arch[key] == ARCH_DEFAULTS[key] for key in ('mlp_ratio', 'n_div'))
        depths = known['depths'][: len(arch['depths'])]
        if same and (arch['embed_dim'], arch['depths']) == (known['embed_dim'], depths):
            return f'FasterNet-{name.upper()}'
    return f'a FasterNet with embed_dim {arch["embed_dim"]} and depths {"-".join(map(str, arch["depths"]))}'


def _unwrap(checkpoint: dict[str, Any]) -> tuple[dict[str, Any], str]:
    for wrapper in WRAPPERS:
        if isinstance(checkpoint.get(wrapper), dict):
            return checkpoint[wrapper], wrapper
    return checkpoint, ''


def _check_tensors(tensors: dict[str, Any], name: str) -> None:
    others = [repr(key)[:40] for key, value in tensors.items() if not (_is_name(key) and isinstance(value, Tensor))]
    if len(others) == len(tensors):
        content = few(others) or 'nothing'
        raise UserError(f'checkpoint {name} holds no tensors, not even under {", ".join(WRAPPERS)}: it has {content}')
    if others:
        raise UserError(f'checkpoint {name} mixes tensors with other entries: {few(others)}')
    for key, value in tensors.items():
        plain = value.layout is torch.strided and not value.is_meta and not value.is_quantized
        if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f'checkpoint {name}: {key} of shape {tuple(value.shape)} is not stored in full')


def _is_name(key: Any) -> bool:
    """Names go into messages, where a terminal would obey what is not printable."""
    return isinstance(key, str) and key.isprintable()


def _without_prefixes(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    tensors = _renamed(tensors, lambda key: key.replace('_orig_mod.', ''), name)
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), None):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _timm_to_ours(key: str) -> str:
    for pattern, ours in TIMM_NAMES:
        key = re.sub(pattern, ours, key)
    return key


def _renamed(tensors: dict[str, Tensor], rename: Callable[[str], str], name: str) -> dict[str, Tensor]:
    renamed = {rename(key): value for key, value in tensors.items()}
    if len(renamed) < len(tensors):
        raise UserError(f'checkpoint {name} names some tensors twice, once with and once without a prefix')
    return renamed


def _arch(tensors: dict[str, Tensor]) -> dict[str, Any] | None:
    embedding, convolved, hidden = (
        tensors.get(key)
        for key in (
            STEM,
            'stages.0.blocks.0.spatial_mixing.partial_conv3.weight',
            'stages.0.blocks.0.mlp.0.weight',
        )
    )
    if embedding is None or convolved is None or hidden is None:
        return None
    dim = len(embedding)
    blocks = {tuple(key.split('.')[1:4:2]) for key in tensors if re.match(r'stages\.\d+\.blocks\.\d+\.', key)}
    depths = Counter(int(stage) for stage, _ in blocks)
    return dict(
        embed_dim=dim,
        depths=tuple(depths[stage] for stage in sorted(depths)),
        mlp_ratio=len(hidden) / dim,
        n_div=dim // max(len(convolved), 1),
        in_channels=embedding.shape[1] if embedding.dim() == 4 else 0,
    )
