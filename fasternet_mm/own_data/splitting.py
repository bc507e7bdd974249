"""A validation part for data that comes without one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from .content import Instances, LabelMaps
from .pictures import Picture

TOO_FEW = 10
"""Below so many pictures there is nothing to split: they are trained on and evaluated on."""

SHARE = 0.2
"""Of the pictures, for validation."""


def ensure_validation(data: Instances | LabelMaps, pictures: dict[str, list[Picture]], seed: int) -> str:
    """Give the data, and what is known of its ``pictures``, a part 'val' where they have none.

    Returns:
        How, for people.
    """
    if 'val' in data.splits:
        return 'as the data has it'
    if 'test' in data.splits:
        data.splits['val'], pictures['val'] = data.splits['test'], pictures['test']
        return 'as the data has it; test serves as val, too'
    known = pictures['train']
    if len(known) < TOO_FEW:
        data.splits['val'], pictures['val'] = data.splits['train'], known
        return f'none: fewer than {TOO_FEW} pictures are evaluated on as well, which says nothing about other pictures'
    chosen, whole = split_pictures([picture.labels for picture in known], seed), data.splits['train']
    for split, part in (('train', [not one for one in chosen]), ('val', chosen)):
        data.splits[split], pictures[split] = _part(whole, part), _part(known, part)
    return f'{SHARE:.0%} of the pictures for validation, of each class the same share (seed {seed})'


def _part(whole: Any, chosen: Sequence[bool]) -> Any:
    if isinstance(whole, list):
        return [one for one, take in zip(whole, chosen) if take]
    images = [image for image, take in zip(whole['images'], chosen) if take]
    ids = {image['id'] for image in images}
    return {**whole, 'images': images, 'annotations': [one for one in whole['annotations'] if one['image_id'] in ids]}


def split_pictures(labels: Sequence[Sequence[Hashable]], seed: int) -> list[bool]:
    """Choose pictures for validation so that each class has the same share of them.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD
    2011): the class that fewest of the remaining pictures have is dealt out first, each of its pictures to the part
    that lacks it most.

    Args:
        labels: per picture the classes that are in it.
        seed: of the order in which pictures are dealt out.

    Returns:
        For each picture, whether it is for validation.
    """
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    of_class: dict[Hashable, list[int]] = {}
    for picture in order:
        for label in set(labels[picture]) or {None}:
            of_class.setdefault(label, []).append(picture)
    # How many pictures of each class, and in all, each part still wants: training, validation.
    shares = 1 - SHARE, SHARE
    wanted = {label: [share * len(pictures) for share in shares] for label, pictures in of_class.items()}
    wanted_in_all = [share * len(labels) for share in shares]
    chosen: dict[int, int] = {}
    while len(chosen) < len(labels):
        remaining = {label: [p for p in pictures if p not in chosen] for label, pictures in of_class.items()}
        of_class = {label: pictures for label, pictures in remaining.items() if pictures}
        rarest = min(of_class, key=lambda label: len(of_class[label]))
        for picture in of_class.pop(rarest):
            part = max((0, 1), key=lambda part: (wanted[rarest][part], wanted_in_all[part]))
            chosen[picture] = part
            wanted_in_all[part] -= 1
            for label in set(labels[picture]) or {None}:
                wanted[label][part] -= 1
    return [chosen[picture] == 1 for picture in range(len(labels))]
