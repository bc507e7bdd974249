"""Trained networks by the names that they have on the Hugging Face hub."""

from __future__ import annotations

from torch import nn

from ..datasets.checks import meta_of_test_set
from ..errors import UserError
from ..models.backbone import ARCHITECTURES, FasterNet
from ..weights.checkpoint_layouts import arch_name, recognize
from ..weights.classes import load_trained
from ..weights.hugging_face import SCHEME, is_on_hub, pinned
from ..weights.loading import fit_weights
from ..weights.reading import read_meta
from ..weights.sources import local_file, read_checkpoint
from .runner import build_model
from .trained_model import find_trained_model


def from_pretrained(name: str, revision: str | None = None) -> nn.Module:
    """The trained network of a repository on the Hugging Face hub, on the CPU and in eval mode.

    For predictions from images, take ``Predictor('hf://user/name')``.

    Args:
        name: 'user/name', or as elsewhere 'hf://user/name@revision'.
        revision: a branch, a tag or a commit. Default: 'main'.

    Returns:
        Of what ``fasternet-mm push`` published, MMDetection's detector or MMSegmentation's segmenter, with its config
        as ``cfg``, and ``classes`` and ``palette`` in ``dataset_meta``, as MMDetection's ``init_detector`` gives it. Of
        a FasterNet alone or a classifier, such as timm's, a `FasterNet` that gives all four maps.

    Raises:
        UserError: there is no such repository or revision, it cannot be had, or it holds something else.
    """
    source = name if is_on_hub(name) else f'{SCHEME}{name}'
    source = pinned(f'{source}@{revision}' if revision else source)
    with local_file(source) as path:
        is_described = bool(read_meta(path, source))
    return _described_model(source) if is_described else _backbone(source)


def _described_model(source: str) -> nn.Module:
    cfg, weights = find_trained_model(source)
    model = build_model(cfg)
    model.cfg, model.dataset_meta = cfg, meta_of_test_set(cfg)
    load_trained(model, weights, model.dataset_meta['classes'])
    return model.eval()


def _backbone(source: str) -> FasterNet:
    checkpoint = read_checkpoint(source, mmap=True)
    weights = recognize(checkpoint, source)
    variant = arch_name(weights.arch).removeprefix('FasterNet-').lower() if weights.arch else None
    if variant not in ARCHITECTURES or weights.layout == 'detector or segmenter':
        raise UserError(
            f'{source} holds {weights.layout if weights.arch else "no FasterNet"}, and does not say its config: give '
            'a model that fasternet-mm push published, or a FasterNet of a published variant'
        )
    backbone = FasterNet(variant)
    fit_weights(backbone, checkpoint, source).load()
    return backbone.eval()
