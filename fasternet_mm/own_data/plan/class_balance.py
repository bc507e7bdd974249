"""Which classes are rare, and how often images that have them are seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..layouts.annotated_data import DetectionData, OwnData

RARE = 0.1
"""A class that a smaller share of the training images has is rare."""


@dataclass(frozen=True)
class ClassBalance:
    """How often images are seen in an epoch.

    Attributes:
        times: how often those with a rare class are, by its name.
        repeated: by how many images an epoch is longer.
    """

    times: dict[str, int]
    repeated: int

    def __str__(self) -> str:
        return ', '.join(f'images with {name} are seen {times} times' for name, times in self.times.items())


def balance_classes(data: OwnData) -> ClassBalance:
    """Repeat images with rare classes, as MMEngine's ``ClassBalancedDataset`` does with ``oversample_thr=RARE``.

    An image is seen the square root of `RARE` over the share of images that have its rarest class, rounded up, where
    that is above 1 (LVIS, arXiv 1908.03195, section 5.1). Label maps are not repeated: most have most classes.
    """
    if not isinstance(data, DetectionData):
        return ClassBalance({}, 0)
    content = data.splits['train']
    classes: dict[int, set[int]] = {image['id']: set() for image in content['images']}
    for annotation in content['annotations']:  # ignored regions too, which MMEngine counts
        classes[annotation['image_id']].add(annotation['category_id'])
    times = {}
    for category in content['categories']:
        images = sum(category['id'] in of_image for of_image in classes.values())
        factor = math.sqrt(RARE * len(classes) / images) if images else 1.0
        if factor > 1:
            times[category['id']] = math.ceil(factor)
    seen = sum(max((times.get(category, 1) for category in of_image), default=1) for of_image in classes.values())
    names = {category['id']: category['name'] for category in content['categories']}
    return ClassBalance({names[number]: many for number, many in times.items()}, seen - len(classes))
