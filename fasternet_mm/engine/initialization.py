"""Initial weights as a config asks for them, by ``init_cfg``: checked before a run."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from ..errors import UserError, nearest
from ..models.backbone import FasterNetModule
from .config import constructor_arguments


def initializers(model: nn.Module) -> Iterator[tuple[nn.Module, Any]]:
    """Each module that has an ``init_cfg``, with the initializer that it asks for, once for each.

    Raises:
        UserError: an initializer is unknown, or does not take what it is given.
    """
    for path, module in model.named_modules():
        where = '.'.join(filter(None, ('model', path, 'init_cfg')))
        for init_cfg in _as_list(getattr(module, 'init_cfg', None), where):
            plain = type(module).init_weights in (BaseModule.init_weights, FasterNetModule.init_weights)
            if 'type' not in init_cfg and not plain:
                continue  # such as MMDetection's PVT, which reads what it needs by itself
            yield module, _build(init_cfg, where)
            for override in _as_list(init_cfg.get('override'), f'{where}.override'):
                arguments = {key: value for key, value in override.items() if key != 'name'}
                if arguments:  # else they are the same as around it
                    _build(arguments, f'{where}.override')


def leave_out_pretrained(model: nn.Module) -> None:
    """Drop what would fetch and read pretrained weights of the model's parts; other kinds of ``init_cfg`` stay."""
    for path, module in model.named_modules():
        parts = _as_list(getattr(module, 'init_cfg', None), path)
        others = [part for part in parts if part.get('type') not in ('Pretrained', PretrainedInit)]
        if len(others) < len(parts):
            module.init_cfg = others or None


def _as_list(init_cfg: Any, where: str) -> list[dict[str, Any]]:
    parts = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg] if init_cfg else []
    if not all(isinstance(part, dict) for part in parts):
        raise UserError(
            f"{where} is {init_cfg!r}: give a dict, such as dict(type='Kaiming', layer='Conv2d'), or a list"
        )
    return list(parts)


def _build(init_cfg: dict[str, Any], where: str) -> Any:
    arguments = {key: value for key, value in init_cfg.items() if key not in ('type', 'override', '_scope_')}
    kind = init_cfg.get('type')
    with WEIGHT_INITIALIZERS.switch_scope_and_registry(init_cfg.get('_scope_')) as registry:
        built = registry.get(kind) if isinstance(kind, str) else kind
    if not inspect.isclass(built):
        raise UserError(f'{where}: type={kind!r} is unknown; it may be {", ".join(WEIGHT_INITIALIZERS.module_dict)}')
    accepted = sorted(constructor_arguments(built))
    for key in arguments:
        if key not in accepted:
            hint = nearest(key, accepted, f'it takes {", ".join(accepted)}')
            raise UserError(f'{where}: {kind} has no {key!r}; {hint}')
    try:
        return built(**arguments)
    except (TypeError, ValueError, AssertionError) as error:  # what MMEngine's initializers say of their arguments
        raise UserError(f'{where}: {kind} cannot be made: {" ".join(str(error).split())}') from error
