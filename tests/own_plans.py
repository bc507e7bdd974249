"""Plans for data of one's own. Configs are loaded once: MMEngine reads hundreds of files for those with a base."""

import copy
import functools

from fasternet_mm.engine.config import load_config
from fasternet_mm.own_data.plan.training_plan import read_data, use_own_data


@functools.cache
def _loaded(path, options):
    return load_config(path, list(options))


def fresh_config(path, options=()):
    return copy.deepcopy(_loaded(path, tuple(options)))


def planned(config, folder, work_dir, options=(), ignored=None, **settings):
    """The config for the data in a folder, and the plan."""
    cfg = fresh_config(config, options)
    cfg.work_dir = str(work_dir)
    return cfg, use_own_data(cfg, read_data(str(folder), cfg, ignored), **settings)
