"""The classes that a checkpoint was trained on, as it says itself, beside those that a config gives it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.logging import print_log
from torch import nn

from ..errors import UserError
from .loading import fit_weights
from .sources import read_checkpoint

ALLOW = 'where the same classes have other names, add --allow-mismatch'
"""What to do where a difference is intended, as half a sentence."""


def recorded_classes(checkpoint: dict[str, Any]) -> list[str] | None:
    """The names, in the order of the labels, as MMEngine and MMCV write them in training; None where there are none."""
    meta = checkpoint.get('meta')
    if not isinstance(meta, dict):
        return None
    data = meta.get('dataset_meta')
    for place in (data if isinstance(data, dict) else {}, meta):
        for key in ('classes', 'CLASSES'):  # the latter in MMDetection 2 and MMSegmentation 0
            names = place.get(key)
            if isinstance(names, (str, np.ndarray)):
                names = [names] if isinstance(names, str) else names.ravel().tolist()
            if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
                return list(names)
    return None


def class_difference(recorded: Sequence[str], own: Sequence[str]) -> str | None:
    """The first difference in number, names or order, as half a sentence; None where there is none.

    Names may differ in case, in spaces around them, and in underscores for spaces: MMDetection has written
    'traffic_light', too.

    Args:
        recorded: the classes in a file, by label.
        own: the classes of the config, by label.
    """
    for label, (name, own_name) in enumerate(zip(recorded, own)):
        if _plain(name) != _plain(own_name):
            return f'label {label} is {name!r} in the file and {own_name!r} in the config'
    if len(recorded) == len(own):
        return None
    label = min(len(recorded), len(own))
    more, place = (recorded, 'file') if len(recorded) > len(own) else (own, 'config')
    return (
        f'the file has {len(recorded)} and the config {len(own)}; only the {place} has label {label}, {more[label]!r}'
    )


def _plain(name: str) -> str:
    return name.replace('_', ' ').strip().casefold()


def check_classes(
    checkpoint: dict[str, Any], source: str, classes: Sequence[str] | None, advice: str | None = ALLOW
) -> None:
    """Compare the classes that a checkpoint was trained on with those of the config that it is used with.

    Labels are numbers: with other names, or the same names in another order, every metric and prediction would be
    about the wrong classes.

    Args:
        checkpoint: see `read_checkpoint`.
        source: what to call it in messages.
        classes: the config's; None where it does not say them.
        advice: what to do where the difference is intended, for the error. None: it is, and is only logged. Default:
            `ALLOW`.

    Raises:
        UserError: the classes differ.
    """
    recorded = recorded_classes(checkpoint)
    difference = class_difference(recorded, classes) if recorded and classes else None
    if not difference:
        return
    sentence = f'checkpoint {source} was trained on other classes than those of the config: {difference}'
    if advice:
        raise UserError(f'{sentence}; use the config that it was trained with, which its work directory has; {advice}')
    print_log(f'{sentence}; its heads are taken as they are', logger='current', level=logging.WARNING)


def load_trained(model: nn.Module, source: str, classes: Sequence[str], allow_mismatch: bool = False) -> None:
    """`load_weights` for a whole model, with a check of the classes that it was trained on.

    Args:
        model: see `load_weights`.
        source: see `local_file`.
        classes: by label; empty where there are none to compare.
        allow_mismatch: load what fits, whatever the names of the classes, and log the difference. Default: False.

    Raises:
        UserError: the checkpoint cannot be read, does not fit, or was trained on other classes.
    """
    checkpoint = read_checkpoint(source, mmap=True)
    fit = fit_weights(model, checkpoint, source, allow_mismatch=allow_mismatch)
    check_classes(checkpoint, source, classes, advice=None if allow_mismatch else ALLOW)
    fit.load()
