"""``init_cfg=dict(type='Pretrained')``, loaded strictly and read safely.

MMEngine 0.10 initializes from pretrained weights with ``strict=False`` and a line in the log, and reads by plain
`torch.load`. FasterNet finds `StrictPretrainedInit` in this package's registry; other networks get it within
`strict_loading`, as in our runner. Both go when MMEngine is strict and safe by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.runner import CheckpointLoader
from torch import nn

from ..models.backbone import FasterNetModule
from ..registry import WEIGHT_INITIALIZERS
from .loading import load_weights
from .sources import read_checkpoint


@WEIGHT_INITIALIZERS.register_module(name='Pretrained')
class StrictPretrainedInit(PretrainedInit):
    """``init_cfg=dict(type='Pretrained', …)``: by `load_weights` for whatever has a FasterNet in it.

    Other networks get MMEngine's own, lenient initialization, which they are written for.

    Args:
        checkpoint: see `local_file`.
        prefix: as in MMEngine: take only the tensors whose names start so.
        map_location: as in MMEngine, for other networks; ours load through the CPU.
        stem, new_heads, allow_mismatch: see `fit_weights`.
    """

    def __init__(
        self,
        checkpoint: str,
        prefix: str | None = None,
        map_location: Any = 'cpu',
        stem: str | None = None,
        new_heads: bool = False,
        allow_mismatch: bool = False,
    ) -> None:
        super().__init__(checkpoint, prefix, map_location)
        self.options = dict(prefix=prefix, stem=stem, new_heads=new_heads, allow_mismatch=allow_mismatch)

    def __call__(self, module: nn.Module) -> None:
        if not has_fasternet(module):
            super().__call__(module)
            return
        load_weights(module, self.checkpoint, **self.options)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())


def has_fasternet(module: nn.Module) -> bool:
    return any(isinstance(part, FasterNetModule) for part in module.modules())


@contextmanager
def strict_loading() -> Iterator[None]:
    """``with strict_loading():`` every network's ``Pretrained`` is as strict as `load_weights`, and reads as safely."""
    initializers = MMENGINE_WEIGHT_INITIALIZERS.module_dict
    pretrained, load = initializers['Pretrained'], vars(CheckpointLoader)['load_checkpoint']
    initializers['Pretrained'] = StrictPretrainedInit
    CheckpointLoader.load_checkpoint = _load_for_mmengine
    try:
        yield
    finally:
        initializers['Pretrained'] = pretrained
        CheckpointLoader.load_checkpoint = load


def _load_for_mmengine(filename: str, map_location: Any = None, logger: Any = None) -> dict[str, Any]:
    """Onto the CPU, wherever MMEngine wants it: it copies from there, and a GPU need not hold everything twice."""
    checkpoint = read_checkpoint(filename)
    if not filename.startswith('mmcls://'):
        return checkpoint
    # MMEngine's own loader of these classifiers keeps the backbone alone, under its bare names.
    state = checkpoint.get('state_dict', checkpoint)
    return {name.removeprefix('backbone.'): value for name, value in state.items() if name.startswith('backbone.')}
