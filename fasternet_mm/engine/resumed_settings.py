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

COMPARED = 'model', 'optim_wrapper', 'param_scheduler', 'train_cfg'
"""Parts of a config that say what is trained and how."""


def keep_settings(cfg: Config) -> None:
    """Take over from the checkpoint that training goes on from what would make it another one, and tell what differs.

    The seed stays, which MMEngine reads when the order of images is made already. Another number of processes shares
    the same images per step. The optimizer must be of the same type.

    Args:
        cfg: with ``resume`` and ``load_from``; it is changed.

    Raises:
        UserError: the training cannot go on with these settings.
    """
    with local_file(cfg.load_from) as path:
        meta = read_meta(path, cfg.load_from)
    try:
        recorded = values_of(meta['cfg'])
    except (KeyError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        recorded = {}  # a config with expressions in it, which are not executed
    told = [_keep_seed(cfg, meta.get('seed')), _share_batch(cfg, recorded, meta.get(PROCESSES))]
    told.append(_differences(cfg, recorded))
    if get_rank() == 0:
        for line in filter(None, told):
            print(line, flush=True)


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
        return ''
    before, now = ({part: values.get(part) for part in COMPARED} for values in (recorded, cfg.to_dict()))
    types = [(values['optim_wrapper'] or {}).get('optimizer', {}).get('type') for values in (before, now)]
    if types[0] != types[1]:
        raise UserError(
            f'{cfg.load_from} was trained by {types[0]}, and the config has {types[1]}, which cannot go on from its '
            f'state: keep the optimizer, or begin a new training with --start {cfg.load_from}'
        )
    before, now = _flat(before), _flat(now)
    changed = [
        f'{name} {before.get(name, "missing")} -> {now.get(name, "missing")}'
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and 'init_cfg' not in name
    ]
    if not changed:
        return ''
    return (
        f'Other settings than before: {few(changed)}. The learning rate and its schedule go on as they were; what else '
        'is new counts from here on.'
    )


def _flat(value: Any, name: str = '') -> dict[str, Any]:
    """Values by their path, such as 'optim_wrapper.optimizer.lr'."""
    if not isinstance(value, (Mapping, list, tuple)):
        return {name: value}
    parts = value.items() if isinstance(value, Mapping) else enumerate(value)
    flat: dict[str, Any] = {}
    for key, part in parts:
        flat.update(_flat(part, f'{name}.{key}' if name else str(key)))
    return flat
