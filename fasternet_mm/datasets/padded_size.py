"""The size to which a config pads its images."""

from __future__ import annotations

from mmengine.config import Config

from .checks import dataset_of_test


def padded_size(cfg: Config) -> tuple[int, int] | None:
    """(height, width) of all images after the test pipeline, None where it has no ``Pad`` to a fixed size."""
    for step in dataset_of_test(cfg).get('pipeline', ()):
        if str(step['type']).rpartition('.')[2] == 'Pad' and isinstance(step.get('size'), (tuple, list)):
            width, height = step['size']
            return height, width
    return None
