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


def inspect(source: str, configs: Sequence[str]) -> list[tuple[str, str]]:
    """Rows of a description: a heading, which may be empty to continue the one above, and text.

    Args:
        source: see `local_file`.
        configs: config files to try; those with another backbone are passed over.

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
    fits = list(_fits(checkpoint, weights, source, configs)) if weights.arch else []
    rows += zip(['fits', *[''] * len(fits)], fits or ['no config here'])
    return rows


def _training(checkpoint: dict[str, Any]) -> str:
    try:
        check_training_state(checkpoint, '')
    except UserError:
        return 'weights alone'
    meta = checkpoint['meta']
    return f'after epoch {meta["epoch"]}, iteration {meta["iter"]}; --resume goes on'


def _fits(checkpoint: dict[str, Any], weights: Weights, source: str, configs: Sequence[str]) -> Iterator[str]:
    """Per config with this variant, what the checkpoint could be for it."""
    for path in configs:
        cfg = load_config(path)
        backbone = cfg.get('model', {}).get('backbone', {})
        arch = resolve_arch(backbone.arch) if backbone.get('type') == 'fasternet_mm.FasterNet' else {}
        if any(arch.get(key) != weights.arch[key] for key in ('embed_dim', 'depths')):
            continue
        model = build_model(cfg)
        whole, part = _refusal(model, checkpoint, source), _refusal(model.backbone, checkpoint, source)
        if not whole:
            yield f'{path}, the whole model'
        elif not part:
            why = '' if weights.backbone is weights.tensors else f'; not the whole model: it {whole}'
            yield f'{path}, its backbone{why}'
        else:
            yield f'not {path}: it {part}'


def _refusal(model: nn.Module, checkpoint: dict[str, Any], source: str) -> str:
    try:
        fit_weights(model, checkpoint, source)
    except UserError as error:
        return str(error).removeprefix(f'checkpoint {source} ')
    return ''
