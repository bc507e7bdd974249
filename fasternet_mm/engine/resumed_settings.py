"""What a training that goes on has to keep, and what of its config is another than before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size

from ..errors import UserError, few
from ..weights.reading import read_meta
from ..weights.sources import local_file
from .recorded_config import values_of

PROCESSES = 'processes'
"""The key in a checkpoint's ``meta`` for the number of processes that trained."""

COMPARED = 'model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader'
"""Parts of a config that say what is trained and how."""

NOT_COMPARED = {'batch_size', 'num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'init_cfg'}
"""Settings in these parts that change nothing in a training that goes on. The batch is told by itself."""


def refuse_other_steps(cfg: Config) -> None:
    """Raise `UserError` where the optimizer or the schedule is of another type than in the checkpoint to go on from.

    MMEngine would give each the state of the other.
    """
    _, recorded = _recorded(cfg)
    if not recorded:
        return
    for which, types in (('optimizer', _optimizer), ('schedule', _schedule)):
        before, now = types(recorded), types(cfg)
        if before != now:
            raise UserError(
                f'{cfg.load_from} was trained with the {which} {before}, and the config has {now}, which cannot go on '
                f'from its state: keep the {which}, or begin a new training with --start {cfg.load_from}'
            )


def keep_settings(cfg: Config) -> None:
    """Take over from the checkpoint that training goes on from what would make it another one, and tell what differs.

    The seed stays, which MMEngine reads when the order of images is made already. Another number of processes shares
    the same images per step.

    Args:
        cfg: with ``resume`` and ``load_from``; it is changed.

    Raises:
        UserError: the processes cannot share the images of a step.
    """
    meta, recorded = _recorded(cfg)
    told = [_keep_seed(cfg, meta.get('seed')), _share_batch(cfg, recorded, meta.get(PROCESSES))]
    told.append(_differences(cfg, recorded))
    if get_rank() == 0:
        for line in filter(None, told):
            print(line, flush=True)


def _recorded(cfg: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the checkpoint says besides its tensors, and its config; that is empty where it has expressions."""
    with local_file(cfg.load_from) as path:
        meta = read_meta(path, cfg.load_from)
    try:
        return meta, values_of(meta['cfg'])
    except (KeyError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return meta, {}


def _keep_seed(cfg: Config, seed: int | None) -> str:
    given = cfg.get('randomness', {}).get('seed')
    if seed is None:
        return ''
    cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed}
    if given in (None, seed):
        return ''
    return f'The seed stays {seed}, with which this training began; {given} would be for a new one.'


def _share_batch(cfg: Config, recorded: Mapping[str, Any], processes: int | None) -> str:
    """Divide the images of a step by the processes that there are now, where their number is another."""
    before = recorded.get('train_dataloader', {}).get('batch_size')
    now = get_world_size()
    if not before or not processes:
        return ''
    total, given = before * processes, cfg.train_dataloader.batch_size * now
    if given == total:
        return ''
    if processes == now:
        return f'A step had {total} images, and has {given} from here on, as the config says; the schedule stays.'
    if total % now:
        raise UserError(
            f'{cfg.load_from} was trained with steps of {total} images in {processes} processes, which {now} cannot '
            f'share: go on with a number that divides {total}'
        )
    cfg.train_dataloader.batch_size = total // now
    return f'A step keeps its {total} images: {total // now} in each of {now} processes, after {before} in {processes}.'


def _differences(cfg: Config, recorded: Mapping[str, Any]) -> str:
    if not recorded:
        return (
            f'Whether settings differ from those before is not known: the config in {cfg.load_from} is missing, or has '
            'expressions, which are not executed.'
        )
    before, now = (_flat({part: values.get(part) for part in COMPARED}) for values in (recorded, cfg.to_dict()))
    changed = [
        f'{name} {before.get(name, "missing")} -> {now.get(name, "missing")}'
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not NOT_COMPARED & {*name.split('.')}
    ]
    if not changed:
        return ''
    return (
        f"Other settings than before: {few(changed)}. The optimizer's settings, the learning rate and its schedule go "
        'on as they were; what else is new counts from here on.'
    )


def _optimizer(values: Mapping[str, Any]) -> str:
    optimizer = (values.get('optim_wrapper') or {}).get('optimizer') or {}
    return _name(optimizer)


def _schedule(values: Mapping[str, Any]) -> str:
    """The types of its parts, one after the other."""
    parts = values.get('param_scheduler') or []
    return ', '.join(map(_name, [parts] if isinstance(parts, Mapping) else parts)) or 'none'


def _name(settings: Mapping[str, Any]) -> str:
    """A type without the registry or module that it is in."""
    return str(settings.get('type')).rpartition('.')[2]


def _flat(value: Any, name: str = '') -> dict[str, Any]:
    """Values by their path, such as 'optim_wrapper.optimizer.lr'."""
    if not isinstance(value, (Mapping, list, tuple)):
        return {name: value}
    parts = value.items() if isinstance(value, Mapping) else enumerate(value)
    flat: dict[str, Any] = {}
    for key, part in parts:
        flat.update(_flat(part, f'{name}.{key}' if name else str(key)))
    return flat
