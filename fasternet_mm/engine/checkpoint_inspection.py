"""What a checkpoint file holds, and which models it fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from ..errors import UserError
from ..models.backbone import resolve_arch
from ..weights.checkpoint_layouts import Weights, arch_name, recognize
from ..weights.loading import fit_weights
from ..weights.sources import local_file, read_checkpoint
from ..weights.training_state import check_training_state
from .config import load_config
from .runner import build_model


def inspect(source: str, configs: Sequence[str], reasons: bool = False) -> list[tuple[str, str]]:
    """Rows of a description: a heading and text.

    Args:
        source: see `local_file`.
        configs: config files to try; those with another backbone are passed over.
        reasons: also say why the checkpoint does not fit a config, as a whole or at all, a row each. Default: False.

    Raises:
        UserError: the checkpoint cannot be read.
    """
    with local_file(source) as path:
        rows = [('file', f'{path}, {path.stat().st_size / 1e6:,.1f} MB')]
    checkpoint = read_checkpoint(source, mmap=True)
    weights = recognize(checkpoint, source)
    tensors = weights.tensors.values()
    types = sorted({str(value.dtype).removeprefix('torch.') for value in tensors if value.is_floating_point()})
    not_finite = [name for name, value in weights.tensors.items() if not value.isfinite().all()]
    rows += [
        ('layout', weights.layout),
        ('network', arch_name(weights.arch) if weights.arch else 'not a FasterNet'),
        ('tensors', f'{len(tensors)} with {sum(value.numel() for value in tensors) / 1e6:.2f} M numbers'),
        ('type', ', '.join(types) or 'no floating point'),
        ('finite', f'no: {", ".join(not_finite)}' if not_finite else 'all'),
        ('training', _training(checkpoint)),
    ]
    if 'head.weight' in weights.tensors:
        rows.append(('classes', str(len(weights.tensors['head.weight']))))
    tries = list(_tries(checkpoint, weights, source, configs)) if weights.arch else []
    wholes = [path for path, whole, _ in tries if not whole]
    backbones = [path for path, whole, part in tries if whole and not part]
    rows += [
        ('fits', ', '.join(wholes) or 'no config here'),
        ('backbone', f'fits {", ".join(backbones) or "no other"}'),
    ]
    if reasons:
        rows += [('misfit', f'{path}: it {part or whole}') for path, whole, part in tries if whole]
    return rows


def _training(checkpoint: dict[str, Any]) -> str:
    try:
        check_training_state(checkpoint, '')
    except UserError:
        return 'weights alone'
    meta = checkpoint['meta']
    return f'after epoch {meta["epoch"]}, iteration {meta["iter"]}; --resume goes on'


def _tries(
    checkpoint: dict[str, Any], weights: Weights, source: str, configs: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """Per config with this variant why the checkpoint is not its whole model and not its backbone; '' where it is."""
    for path in configs:
        cfg = load_config(path)
        backbone = cfg.get('model', {}).get('backbone', {})
        arch = resolve_arch(backbone.arch) if backbone.get('type') == 'fasternet_mm.FasterNet' else {}
        if any(arch.get(key) != weights.arch[key] for key in ('embed_dim', 'depths')):
            continue
        model = build_model(cfg)
        yield path, _refusal(model, checkpoint, source), _refusal(model.backbone, checkpoint, source)


def _refusal(model: nn.Module, checkpoint: dict[str, Any], source: str) -> str:
    try:
        fit_weights(model, checkpoint, source)
    except UserError as error:
        return str(error).removeprefix(f'checkpoint {source} ')
    return ''
