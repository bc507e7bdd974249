"""Fitting a checkpoint to a model: what may differ, what is said about it, and the loading itself."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import UserError, few
from ..models.backbone import FasterNet
from .checkpoint_layouts import HEAD, STEM, Weights, arch_name, recognize
from .sources import read_checkpoint


@dataclass(frozen=True)
class Fit:
    """A checkpoint matched with a model, before anything is loaded.

    Attributes:
        source: where the checkpoint came from.
        layout: what it is, in words.
        pairs: per tensor that will be loaded its name, the model's tensor and the checkpoint's.
        initialized: the model's tensors that keep their initial values.
        left_out: the checkpoint's tensors that are not used.
        notes: what was accepted only because an option says so.
    """

    source: str
    layout: str
    pairs: list[tuple[str, Tensor, Tensor]]
    initialized: list[str]
    left_out: list[str]
    notes: list[str]

    def __str__(self) -> str:
        types = sorted({str(stored.dtype) for _, own, stored in self.pairs if stored.dtype != own.dtype})
        converted = f' (from {", ".join(types).replace("torch.", "")})' if types else ''
        line = (
            f'weights: {self.source} ({self.layout}): {len(self.pairs)} tensors loaded{converted}, '
            f'{_counted(self.initialized, "initialized")}, {_counted(self.left_out, "left out")}'
        )
        return '; '.join([line, *self.notes])

    @torch.no_grad()
    def load(self) -> None:
        """Copy the tensors into the model, say so in one line of MMEngine's log, and warn of NaN and infinity."""
        broken = []
        for name, own, stored in self.pairs:
            # A counter of batches that someone stored in half precision may have become infinite.
            own.copy_(stored if own.is_floating_point() else stored.nan_to_num())
            # A sum is cheaper than isfinite; where it is not finite, it may still have overflowed.
            if own.is_floating_point() and not own.sum().isfinite() and not own.isfinite().all():
                broken.append(name)
        print_log(str(self), logger='current')
        if broken:
            print_log(
                f'weights: {self.source} has NaN or infinite numbers in {_counted(broken, "tensors")}: '
                'fetch or train it again',
                logger='current',
                level=logging.WARNING,
            )


def load_weights(model: nn.Module, source: str, **options: Any) -> Fit:
    """Load a checkpoint into a model, strictly: exactly what was asked for, or nothing at all.

    A `FasterNet` takes its part of any checkpoint of a classifier, detector, segmenter or backbone, with the authors',
    timm's or MMEngine's names. Only output norms may be missing from that part, and only the classification head and
    what belongs to outputs that the model does not have may be left over. Any other model takes a checkpoint of exactly
    its own tensors.

    Args:
        model: any module.
        source: a published name, a path, a URL: see `local_file`.
        options: see `fit_weights`.

    Returns:
        What was loaded; one line of MMEngine's log says the same.

    Raises:
        UserError: the checkpoint cannot be read, or does not fit; the model is then as it was before.
    """
    fit = fit_weights(model, read_checkpoint(source, mmap=True), source, **options)
    fit.load()
    return fit


def fit_weights(
    model: nn.Module,
    checkpoint: dict[str, Any],
    source: str,
    prefix: str | None = None,
    stem: str | None = None,
    new_heads: bool = False,
    allow_mismatch: bool = False,
    leave_out: str | Sequence[str] = (),
) -> Fit:
    """Match a checkpoint that was read with a model; nothing is loaded yet.

    Args:
        model: see `load_weights`.
        checkpoint: see `read_checkpoint`.
        source: what to call it in messages.
        prefix: take only the tensors whose names start so ('teacher.'). Default: all.
        stem: for images of another number of channels, how the filters of the first convolution become theirs:
            'repeat' takes them in turn, 'average' gives each channel their mean; both keep the size of the response.
            With 'average', one gray channel is answered as three equal ones were. Default: an error.
        new_heads: keep the initial values of layers that differ only by the number of classes. Default: an error.
        allow_mismatch: load what fits by name and shape, and list the rest. Default: an error.
        leave_out: one or several beginnings of names of tensors that are not taken, whether or not they would fit: the
            model's keep their initial values. Default: none.

    Raises:
        UserError: the checkpoint does not fit, or neither it nor the model has what ``leave_out`` names.
    """
    weights = recognize(checkpoint, source, prefix)
    own = recognize(model.state_dict(), 'of this model')
    stored = weights.backbone if isinstance(model, FasterNet) else weights.tensors
    if stem:
        stored = _with_stem(stored, own, stem)

    leave_out = (leave_out,) if isinstance(leave_out, str) else tuple(leave_out)
    for beginning in leave_out:
        if not any(name.startswith(beginning) for name in (*own.tensors, *stored)):
            roots = dict.fromkeys(name.partition('.')[0] for name in (*own.tensors, *stored))
            raise UserError(
                f'leave_out={beginning!r} is the beginning of no tensor; they begin with {few([*roots], 8)}'
            )
    skipped = [name for name in own.tensors if name.startswith(leave_out)]
    asked = [name for name in own.tensors if name not in set(skipped)]
    missing = [name for name in asked if name not in stored]
    unknown = [name for name in stored if name not in own.tensors and not name.startswith(leave_out)]
    unfit = [name for name in asked if name in stored and not _fits(own.tensors[name], stored[name])]
    fitting = [name for name in asked if name in stored and name not in set(unfit)]
    classes = _classes(model, {name: (stored[name].shape, own.tensors[name].shape) for name in unfit})
    wrong = dict(
        missing=[name for name in missing if not _may_be_missing(model, name, stored)],
        unknown=[name for name in unknown if not _may_be_left_out(model, name)],
        unfit=[] if new_heads and classes else unfit,
    )

    notes = [f'not taken: {", ".join(leave_out)}'] if leave_out else []
    if new_heads and classes:
        notes.append(f'initialized for {classes[1]} classes instead of {classes[0]}: {", ".join(unfit)}')
    if any(wrong.values()):
        if not (allow_mismatch and fitting):
            raise UserError(f'checkpoint {source} {_explanation(weights, own, stored, classes, **wrong)}')
        notes += [f'accepted though {kind}: {", ".join(names)}' for kind, names in wrong.items() if names]
    used = set(fitting) if stored is weights.tensors else {f'backbone.{name}' for name in fitting} | set(fitting)
    return Fit(
        source,
        ', '.join([weights.layout] + ([arch_name(weights.arch)] if weights.arch else [])),
        [(name, own.tensors[name], stored[name]) for name in fitting],
        missing + unfit + skipped,
        [name for name in weights.tensors if name not in used],
        notes,
    )


def _fits(own: Tensor, stored: Tensor) -> bool:
    if own.shape != stored.shape or stored.is_complex():
        return False
    return stored.is_floating_point() or not own.is_floating_point()


def _may_be_missing(model: nn.Module, name: str, stored: Collection[str]) -> bool:
    """An output norm of the backbone, all of it: half a norm is a damaged checkpoint."""
    norm = re.match(r'norm\d+\.', name)
    return isinstance(model, FasterNet) and norm is not None and not any(other.startswith(norm[0]) for other in stored)


def _may_be_left_out(model: nn.Module, name: str) -> bool:
    """The classification head, and what belongs to outputs that this backbone was built without."""
    if not isinstance(model, FasterNet):
        return False
    norm, stage = re.match(r'(norm\d+)\.', name), re.match(r'stages\.(\d+)\.', name)
    without_norm = norm is not None and not hasattr(model, norm[1])
    without_stage = stage is not None and int(stage[1]) >= len(model.stages)
    return name.startswith(HEAD) or without_norm or without_stage


def _with_stem(stored: dict[str, Tensor], own: Weights, stem: str) -> dict[str, Tensor]:
    if stem not in ('repeat', 'average'):
        raise UserError(f"stem={stem!r} is unknown: use 'repeat' or 'average'")
    name = next((name for name in (STEM, f'backbone.{STEM}') if name in stored and name in own.tensors), None)
    if name is None or stored[name].shape[1] == own.tensors[name].shape[1]:
        return stored
    filters, channels = stored[name].float(), own.tensors[name].shape[1]
    if stem == 'average':
        filters = filters.mean(1, keepdim=True)
    repeated = filters[:, torch.arange(channels) % filters.shape[1]]
    return {**stored, name: repeated * (stored[name].shape[1] / channels)}


def _classes(model: nn.Module, unfit: dict[str, tuple[torch.Size, torch.Size]]) -> tuple[int, int] | None:
    """The checkpoint's number of classes and the model's, if that difference explains all that does not fit."""
    possible: set[tuple[int, int]] | None = None
    for name, (stored, own) in unfit.items():
        classes = _num_classes(model, name)
        if classes is None or not own or len(stored) != len(own) or stored[1:] != own[1:]:
            return None
        # A layer has k numbers per class, and some one more, for the background.
        explanations = set()
        for background in (0, 1):
            per_class, rest = divmod(own[0] - background, classes)
            if per_class and not rest and (stored[0] - background) % per_class == 0:
                explanations.add(((stored[0] - background) // per_class, classes))
        possible = explanations if possible is None else possible & explanations
    return min(possible) if possible else None


def _num_classes(model: nn.Module, name: str) -> int | None:
    """``num_classes`` of the innermost module around a tensor that has one."""
    if name.startswith(('backbone.', 'neck.')):
        return None
    module: Any = model
    number = None
    for part in (*name.split('.')[:-1], ''):
        if isinstance(getattr(module, 'num_classes', None), int):
            number = module.num_classes
        module = getattr(module, part, None)
    return number


def _explanation(
    weights: Weights,
    own: Weights,
    stored: dict[str, Tensor],
    classes: tuple[int, int] | None,
    missing: list[str],
    unknown: list[str],
    unfit: list[str],
) -> str:
    """Why a checkpoint does not fit, and what to do: the second half of a sentence."""
    if own.arch and not weights.arch:
        return f'holds no FasterNet: its tensors are {few(list(weights.tensors), 3)}; name a checkpoint that does'
    if STEM in weights.tensors and f'backbone.{STEM}' in own.tensors:
        return (
            f'is a {weights.layout}, and a whole detector or segmenter is asked for: to start the training of one from '
            'it, fasternet-mm train CONFIG --start CHECKPOINT'
        )
    if own.arch and weights.arch:
        if not _same_variant(own.arch, weights.arch):
            return f'is of {arch_name(weights.arch)}, the model is {arch_name(own.arch)}: take the one that fits'
        if [name.removeprefix('backbone.') for name in unfit] == [STEM] and not missing and not unknown:
            return (
                f'is for images of {weights.arch["in_channels"]} channels, the model for {own.arch["in_channels"]}: '
                "say what to do with the first convolution, stem='repeat' or stem='average'"
            )
    if classes and not missing and not unknown:
        return (
            f'was trained on {classes[0]} classes, the model has {classes[1]} ({few(unfit, 3, counted=True)}): use the '
            'config that it was trained with; to train it on other classes, fasternet-mm train CONFIG --start '
            'CHECKPOINT'
        )
    differences = [
        f'{len(names)} {kind} ({few(names, 3, counted=True)})'
        for kind, names in (('missing', missing), ('unknown', unknown))
        if names
    ]
    if unfit:
        shapes = f'{tuple(stored[unfit[0]].shape)} instead of {tuple(own.tensors[unfit[0]].shape)}'
        differences.append(f'{len(unfit)} of another shape or type ({few(unfit, 3, counted=True)}: {shapes})')
    return (
        f'({weights.layout}) is not of this model: tensors {"; ".join(differences)}; use the config that it was '
        'trained with, or take what fits with --allow-mismatch (to train, with --start CHECKPOINT --allow-mismatch)'
    )


def _same_variant(own: dict[str, Any], stored: dict[str, Any]) -> bool:
    """Depths compare as far as both go: a model is built without the stages after its last output."""
    same = all(own[key] == stored[key] for key in ('embed_dim', 'mlp_ratio', 'n_div'))
    return same and all(a == b for a, b in zip(own['depths'], stored['depths']))


def _counted(names: list[str], label: str) -> str:
    """'16 initialized (norm0, norm2, norm4, norm6)': a count, and the modules where there are few, else their roots."""
    modules = dict.fromkeys(name.rpartition('.')[0] for name in names)
    if len(modules) > 6:
        modules = dict.fromkeys(name.partition('.')[0] for name in names)
    return f'{len(names)} {label}' + (f' ({", ".join(modules)})' if names else '')
