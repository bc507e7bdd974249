"""Which weights training on data of one's own starts from."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict

from ...engine.runner import build_model
from ...errors import UserError
from ...weights.catalog import CATALOG
from ...weights.loading import fit_weights
from ...weights.sources import read_checkpoint

HEADS = 'roi_head.bbox_head.fc_cls.', 'roi_head.bbox_head.fc_reg.', 'roi_head.mask_head.'
"""The beginnings of the names of tensors that depend on the classes, or that a detector without masks lacks."""


def choose_start(cfg: Config) -> str:
    """Set a config to start from the best weights that can be had here.

    Returns:
        A description of them for people; on the lines after it, why better ones could not be had.
    """
    if cfg.get('load_from'):
        return f'{cfg.load_from}, where it stopped' if cfg.get('resume') else cfg.load_from
    backbone = cfg.model.backbone
    coco = f'mask_rcnn_fasternet_{backbone.get("arch")}_coco'
    notes = []
    if coco in CATALOG and 'roi_head' in cfg.model:
        try:
            return f'{coco}, heads of its own classes left out ({_start_from_coco(cfg, coco)} tensors)'
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


def _start_from_coco(cfg: Config, source: str) -> int:
    """Take a published Mask R-CNN where all but the heads of its classes, and its mask head, fit the config's model."""
    options = dict(new_heads=True)
    if not cfg.model.roi_head.get('mask_head'):
        options['allow_mismatch'] = True
    fit = fit_weights(build_model(cfg), read_checkpoint(source, mmap=True), source, **options)
    if not all(name.startswith(HEADS) for name in (*fit.initialized, *fit.left_out)):
        raise UserError(f'{source} does not fit this model')
    cfg.load_from, cfg.load_options = source, ConfigDict(options)
    return len(fit.pairs)
