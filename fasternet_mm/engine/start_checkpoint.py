"""The weights that a new training starts from, taken from any checkpoint as far as it is of the same model."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from torch import Tensor

from ..datasets.checks import classes_of, set_class_count
from ..errors import UserError
from ..models.backbone import FasterNet
from ..weights.checkpoint_layouts import recognize
from ..weights.classes import class_difference, recorded_classes
from ..weights.hugging_face import pinned
from ..weights.loading import fit_weights
from ..weights.sources import read_checkpoint
from .runner import build_model
from .work_dir import trained_checkpoint

SCRATCH = 'scratch'
"""The word for random weights where a checkpoint could be named; a folder of that name is ``./scratch``."""

MASK_PARTS = 'roi_head.mask_head.', 'bbox_head.mask_head.', 'bbox_head.kernel_convs.', 'bbox_head.rtm_kernel.'
"""Beginnings of names of tensors that a detector of masks has beside what the same detector of boxes has."""

KINDS = {
    'roi_head.bbox_head.0.': 'a Cascade R-CNN',
    'roi_head.mask_head.': 'a Mask R-CNN',
    'roi_head.': 'a Faster R-CNN',
    'bbox_head.rtm_kernel.': 'an RTMDet-Ins',
    'bbox_head.rtm_cls.': 'an RTMDet',
    'bbox_head.': 'another detector',
    'decode_head.': 'a segmenter',
    'head.': 'a classifier',
}
"""What a checkpoint is of, by the beginning of a name in it; the first one that is there counts."""


def start_from(cfg: Config, source: str, allow_mismatch: bool = False) -> str:
    """Set a config to start its training from the weights of a checkpoint.

    A checkpoint of the same kind of model, which is one whose parts have the same names, gives all its weights; where
    it was trained on other classes, all but those of the layers that depend on them; where one of both has no masks,
    all but those for masks. A checkpoint of anything else with a FasterNet gives its backbone.

    Args:
        cfg: with the data of the training, whose classes count; its ``load_from`` and ``load_options`` are changed, or
            the ``init_cfg`` of its backbone.
        source: a work directory, see `trained_checkpoint`; as `local_file` takes it; or `SCRATCH`.
        allow_mismatch: take what fits by name and shape. Default: an error where something does not fit.

    Returns:
        What is taken, for people.

    Raises:
        UserError: there is no such checkpoint, or its weights do not fit.
    """
    if source == SCRATCH:
        cfg.model.backbone.init_cfg, cfg.load_from = None, None
        return 'random weights'
    name = trained_checkpoint(Path(source)) if Path(source).is_dir() else pinned(source)
    checkpoint = read_checkpoint(name, mmap=True)
    stored = recognize(checkpoint, name).tensors
    model = build_model(cfg)
    own = model.state_dict()
    origin = f'{source if Path(source).is_dir() else name}{_progress(checkpoint)}'
    if _parts(stored) == _parts(own) or (allow_mismatch and _parts(stored) & _parts(own)):
        left_out, reasons = _differing_layers(cfg, checkpoint, stored, own)
        options = {'leave_out': left_out} if left_out else {}
        if allow_mismatch:
            options['allow_mismatch'] = True
        fit = fit_weights(model, checkpoint, name, **options)
        cfg.load_from, cfg.load_options = name, ConfigDict(options)
        return f'{origin}: {len(fit.pairs)} of {len(own)} tensors{reasons}'
    kind = next((kind for start, kind in KINDS.items() if _starting(stored, start)), 'a backbone')
    if not isinstance(model.backbone, FasterNet):
        raise UserError(
            f'checkpoint {name} is of {kind}, with other parts than {cfg.model.type}, and of such only a FasterNet is '
            f'taken: name a checkpoint of {cfg.model.type}'
        )
    options = {'allow_mismatch': True} if allow_mismatch else {}
    fit = fit_weights(model.backbone, checkpoint, name, **options)
    cfg.model.backbone.init_cfg = ConfigDict(type='Pretrained', checkpoint=name, **options)
    cfg.load_from = None
    return f'{origin}: the backbone alone, {len(fit.pairs)} tensors, of {kind}'


def class_layers(cfg: Config, own: dict[str, Tensor]) -> list[str]:
    """Beginnings of names of a model's tensors whose shape depends on the number of classes, one for each layer.

    They are found by building the model for one class more.

    Args:
        cfg: of the model, and of the data with its classes.
        own: the model's tensors.
    """
    other = Config(dict(model=copy.deepcopy(cfg.model), default_scope=cfg.get('default_scope', 'mmengine')))
    set_class_count(other.model, len(classes_of(cfg, 'train') or ()) + 1)
    shapes = {name: value.shape for name, value in build_model(other).state_dict().items()}
    layers = (name.rpartition('.')[0] for name, value in own.items() if value.shape != shapes[name])
    return [*dict.fromkeys(f'{layer}.' for layer in layers)]


def _progress(checkpoint: dict[str, Any]) -> str:
    """', epoch 12' of a training that is counted by the epoch, ', step 800' of others, '' of none."""
    meta = checkpoint.get('meta')
    for unit, key in (('epoch', 'epoch'), ('step', 'iter')):
        if isinstance(meta, dict) and isinstance(meta.get(key), int) and meta[key]:
            return f', {unit} {meta[key]}'
    return ''


def _parts(tensors: Iterable[str]) -> set[str]:
    """What a model has beside its backbone, and what only masks need: names such as 'neck.fpn_convs'."""
    others = [name for name in tensors if not name.startswith(('backbone.', *MASK_PARTS))]
    return {'.'.join(name.split('.')[:2]) for name in others}


def _differing_layers(
    cfg: Config, checkpoint: dict[str, Any], stored: dict[str, Tensor], own: dict[str, Tensor]
) -> tuple[list[str], str]:
    """Beginnings of names that are not to be taken, and why, for people."""
    reasons = []
    masks = [part for part in MASK_PARTS if bool(_starting(stored, part)) != bool(_starting(own, part))]
    layers = []
    recorded, classes = recorded_classes(checkpoint), classes_of(cfg, 'train')
    if not (recorded and classes) or class_difference(recorded, classes):
        layers = [layer for layer in class_layers(cfg, own) if not layer.startswith(tuple(masks))]
        of_classes = _starting(own, *layers)
        if not (recorded and classes) and all(_same_shape(stored, own, name) for name in of_classes):
            layers = []  # all that can be told of the classes is that there are as many
    if layers:
        reasons.append(f'{len(of_classes)} of its {f"{len(recorded)} " if recorded else ""}classes')
    if masks:
        reasons.append(f'{len(_starting(own, *masks) or _starting(stored, *masks))} for masks')
    return [*layers, *masks], f', all but {" and ".join(reasons)}' if reasons else ''


def _starting(names: Iterable[str], *starts: str) -> list[str]:
    return [name for name in names if name.startswith(starts)]


def _same_shape(stored: dict[str, Tensor], own: dict[str, Tensor], name: str) -> bool:
    return name in stored and stored[name].shape == own[name].shape
