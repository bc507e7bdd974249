"""Which weights training on data of one's own starts from."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict

from ...engine.start_checkpoint import SCRATCH, start_from
from ...errors import UserError
from ...weights.catalog import CATALOG
from ...weights.sources import read_checkpoint


def choose_start(cfg: Config, source: str | None = None, allow_mismatch: bool = False) -> str:
    """Set a config to start from what the user names, or else from the best weights that can be had here.

    Args:
        cfg: with the data of the training; it is changed.
        source: what the user names, see `start_from`. Default: what the config says; else what was trained on COCO, all
            of it or the backbone; else what was trained on ImageNet; else random weights.
        allow_mismatch: see `start_from`.

    Returns:
        A description of them for people; on the lines after it, why better ones could not be had.

    Raises:
        UserError: what the user names cannot be had, or does not fit.
    """
    if cfg.get('resume'):
        return f'{cfg.load_from}, where it stopped'
    if source == SCRATCH:
        start_from(cfg, source)
    elif source:
        return start_from(cfg, source, allow_mismatch)
    elif cfg.get('load_from'):
        return cfg.load_from
    backbone = cfg.model.backbone
    coco = f'mask_rcnn_fasternet_{backbone.get("arch")}_coco'
    notes = []
    if coco in CATALOG and 'decode_head' not in cfg.model and not source:
        try:
            return start_from(cfg, coco)
        except UserError as error:
            notes.append(str(error))
    initial = backbone.get('init_cfg') or {}
    if initial.get('type') == 'Pretrained':
        try:
            read_checkpoint(initial.checkpoint, mmap=True)
            return '\n'.join([f'{initial.checkpoint}, in the backbone', *notes])
        except UserError as error:
            notes.append(str(error))
            initial = {}
    if not initial:
        # As the small configs of configs/shapes: the authors' own initialization is made for hundreds of epochs.
        backbone.init_cfg = ConfigDict(type='Kaiming', layer='Conv2d', nonlinearity='relu')
    return '\n'.join(['random weights, which need much more data and time', *notes])


def lacks_weights(cfg: Config, source: str | None = None) -> bool:
    """Whether a new training can only start from random weights: neither named ones nor published ones can be had."""
    if source or cfg.get('load_from'):
        return source == SCRATCH
    backbone = cfg.model.backbone
    initial = backbone.get('init_cfg') or {}
    names = [f'mask_rcnn_fasternet_{backbone.get("arch")}_coco'] if 'decode_head' not in cfg.model else []
    names = [name for name in names if name in CATALOG]
    if initial.get('type') == 'Pretrained':
        names.append(initial.checkpoint)
    return not any(_can_be_had(name) for name in names)


def _can_be_had(name: str) -> bool:
    try:
        read_checkpoint(name, mmap=True)
    except UserError:
        return False
    return True
