"""What an exported file says of itself, so that it is used as it was meant."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UserError

KEY = 'fasternet_mm'
"""Under this name every format holds a `Description`, as JSON."""

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Description:
    """What an exported file takes, does and gives.

    Attributes:
        task: 'backbone', 'detection' or 'segmentation'.
        outputs: the names of the outputs, in their order: see `fasternet_mm.deployment.graphs`.
        classes: their names, by label.
        palette: a color for each, RGB; empty where the data set has none.
        preparation: arguments of `Preparation`: what happens to images before the network.
        prepared: whether that is left to the caller: the file takes float32 images then, else uint8.
        size: (H, W) where it takes images of this size alone.
        min_size: images must be as high and as wide, in pixels.
        weights: 'float32', 'float16' or 'int8'.
        test_cfg: of a detector, the settings that are fixed in the file.
        align_corners: of a segmenter, how logits are scaled.
        resize: how the config of the export resizes images, which the file leaves to the caller: arguments of
            ``Resize``, {} where it does not; None where it does more than that.
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

    def to_json(self) -> str:
        return json.dumps(dict(format_version=FORMAT_VERSION, **asdict(self)))

    @classmethod
    def from_json(cls, text: str | None, name: str) -> Description:
        """Read what a file has under `KEY`; ``name`` is the file in messages.

        Raises:
            UserError: there is nothing, or not a description of this version.
        """
        if text is None:
            raise UserError(f'{name} was not written by tools/export.py: export the model with it')
        try:
            content = json.loads(text)
            version = content.pop('format_version')
            if version == FORMAT_VERSION:
                return cls(**_checked(content))
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f'{name} has a damaged description: export the model again') from error
        raise UserError(
            f'{name} has a description of version {version!r}, but this release reads version {FORMAT_VERSION}: '
            'export the model again, with this release'
        )

    def check_size(self, height: int, width: int) -> None:
        """Raise `ValueError`, as networks do, for an image that the file cannot take."""
        if self.size and [height, width] != list(self.size):
            raise ValueError(
                f'an image of {width}x{height} pixels: the exported file takes {self.size[1]}x{self.size[0]} alone; '
                'resize it, or export without --size'
            )
        if min(height, width) < self.min_size:
            raise ValueError(
                f'an image of {width}x{height} pixels is too small for the exported file: resize or pad it to at '
                f'least {self.min_size}x{self.min_size}'
            )


def _checked(content: dict[str, Any]) -> dict[str, Any]:
    """Raise `ValueError` or the like unless values are of the types that `Description` has: it may be a stranger's."""
    preparation = content['preparation']
    numbers = [*preparation['mean'], *preparation['std'], preparation['pad_size_divisor'], preparation['pad_value']]
    numbers += [content['min_size'], *(content['size'] or [0, 0])]
    resize = content.get('resize')
    if resize:
        numbers += resize['scale']
    names = [content['task'], content['weights'], *content['outputs'], *content['classes']]
    if not (
        all(type(number) in (int, float) for number in numbers)
        and all(type(name) is str for name in names)
        and all(type(channel) is int for color in content['palette'] for channel in color)
        and (len(preparation['mean']), len(preparation['std'])) == (3, 3)
        and (not resize or (len(resize['scale']), type(resize['keep_ratio'])) == (2, bool))
    ):
        raise ValueError('a value of another type')
    return content
