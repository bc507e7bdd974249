"""What an exported file says of itself, so that it is used as it was meant."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UserError
from ..models.backbone import ImageTooSmall, InvalidArgument

KEY = 'fasternet_mm'
"""Under this name every format holds a `Description`, as JSON."""

FORMAT_VERSION = 2
"""Of `Description`'s fields. The names of a file's inputs are not among them: runtimes read these from the file."""

READABLE = (1, 2)
"""Versions that are read. Version 1 has no `size_divisor`, no `mask_stride` and no padding in `resize`; their defaults
are right for its files, whose networks need none of them."""


@dataclass(frozen=True)
class Description:
    """What an exported file takes, does and gives.

    Attributes:
        task: 'backbone', 'detection' or 'segmentation'.
        outputs: the names of the outputs, in their order: see `fasternet_mm.deployment.graphs`.
        classes: their names, by label.
        palette: a color for each, RGB; empty where the data set has none.
        preparation: arguments of `Preparation`: what happens to images before the network.
        prepared: whether preparation is left to the caller: then the file takes float32 images, else uint8.
        size: (H, W) where it takes images of this size alone, else None.
        min_size: the least height and width of images, in pixels.
        weights: 'float32', 'float16' or 'int8'.
        test_cfg: of a detector, the settings that are fixed in the file.
        align_corners: of a segmenter, how logits are scaled.
        resize: how images are resized and padded before the file takes them, see `resizing`; {} where they are not;
            None where the config of the export does more with them.
        size_divisor: height and width of images must be multiples of it.
        mask_stride: of a detector with ``mask_logits``, which are of the whole image, how many pixels each of their
            cells is high and wide; None where a file has no masks, or ``masks`` over each box.
    """

    task: str
    outputs: Sequence[str]
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    preparation: Mapping[str, Any]
    prepared: bool
    size: Sequence[int] | None
    min_size: int
    weights: str
    test_cfg: Mapping[str, Any]
    align_corners: bool
    resize: Mapping[str, Any] | None = None
    size_divisor: int = 1
    mask_stride: int | None = None

    def to_json(self) -> str:
        return json.dumps(dict(format_version=FORMAT_VERSION, **asdict(self)))

    @classmethod
    def from_json(cls, text: str | None, name: str) -> Description:
        """Read what a file has under `KEY`; ``name`` is the file in messages.

        Raises:
            UserError: there is nothing, or not a description of this version.
        """
        if text is None:
            raise UserError(f'{name} was not written by fasternet-mm export: export the model with it')
        damaged = f'{name} has a damaged description: export the model again'
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(damaged) from error
        if not isinstance(content, dict) or 'format_version' not in content:
            raise UserError(damaged)
        version = content.pop('format_version')
        if version not in READABLE:
            raise UserError(
                f'{name} has a description of version {version!r}, but this release reads versions '
                f'{READABLE[0]} to {READABLE[-1]}: export the model again, with this release'
            )
        try:
            description = cls(**content)
            if not description._has_right_types():
                raise UserError(damaged)
        except (LookupError, TypeError) as error:  # a field is missing, unknown, or a number where a list should be
            raise UserError(damaged) from error
        return description

    def _has_right_types(self) -> bool:
        """Whether values are of the types that they should be: the description may be a stranger's."""
        preparation = self.preparation
        resize = {'scale': [1, 1], 'keep_ratio': True, 'pad': {'value': [0] * 3}, **(self.resize or {})}
        pad = {'size': [1, 1], 'size_divisor': 1, **resize['pad']}
        lists = dict(mean=preparation['mean'], std=preparation['std'], scale=resize['scale'], size=self.size or [1, 1])
        lists |= dict(pad_size=pad['size'], pad_value=pad['value'])
        lengths = {name: len(values) for name, values in lists.items()}
        numbers = [number for values in lists.values() for number in values]
        numbers += [preparation['pad_size_divisor'], preparation['pad_value'], self.min_size, self.mask_stride or 1]
        divisors = self.size_divisor, pad['size_divisor']
        return (
            lengths == dict(mean=3, std=3, scale=2, size=2, pad_size=2, pad_value=3)
            and all(type(number) in (int, float) for number in numbers)
            and all(type(text) is str for text in [self.task, self.weights, *self.outputs, *self.classes])
            and all(type(channel) is int for color in self.palette for channel in color)
            and type(resize['keep_ratio']) is bool
            and all(type(divisor) is int and divisor > 0 for divisor in divisors)
        )

    def check_size(self, height: int, width: int) -> None:
        """Raise `InvalidArgument` for an image that the file cannot take, `ImageTooSmall` if that is why."""
        image = f'an image of {height}x{width} pixels (H x W)'
        if self.size and [height, width] != list(self.size):
            raise InvalidArgument(
                f'{image}: the exported file takes images of {self.size[0]}x{self.size[1]} alone; resize it, or export '
                'without --size'
            )
        if height % self.size_divisor or width % self.size_divisor:
            fitting = [-(-side // self.size_divisor) * self.size_divisor for side in (height, width)]
            raise InvalidArgument(
                f'{image}: the network of the exported file takes heights and widths that are multiples of '
                f'{self.size_divisor}; pad it to {fitting[0]}x{fitting[1]}'
            )
        if min(height, width) < self.min_size:
            raise ImageTooSmall(
                f'{image} is too small for the exported file: resize or pad it to at least '
                f'{self.min_size}x{self.min_size}'
            )
