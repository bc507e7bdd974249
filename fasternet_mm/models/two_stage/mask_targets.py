"""What the mask head learns of each RoI: its object's mask, cropped and resized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.structures.mask import BitmapMasks, mask_target
from mmdet.structures.mask.structures import BaseInstanceMasks
from torch import Tensor
from torch.nn.modules.utils import _pair

from ...ops.roi_align import align_rois

LARGEST_GROUP = 2**26
"""Pixels of masks that are in float32 at a time, 256 MB: 60 objects at 800x1333. A single image may have more."""


def mask_targets(
    masks: Sequence[BaseInstanceMasks],
    boxes: Tensor,
    images: np.ndarray,
    objects: np.ndarray,
    train_cfg: Mapping[str, Any],
) -> Tensor:
    """MMDetection's ``mask_target``, for the RoIs of all images together.

    Only masks that belong to a RoI go to the device, each once, however many RoIs share it.

    Args:
        masks: of the objects, per image. `PolygonMasks` are cropped on the host, image by image, as in MMDetection.
        boxes: ``(K, 4)``, the RoIs, xyxy in pixels.
        images: ``(K,)``, the image of each RoI, ascending.
        objects: ``(K,)``, the number of each RoI's object in its image.
        train_cfg: with ``mask_size``, (height, width) of the targets, or both in one number; and, not by default,
            ``soft_mask_target=True``: a pixel is the object's part of it, instead of 1 from a half on, else 0.

    Returns:
        ``(K, height, width)``, in the boxes' dtype.
    """
    size = _pair(train_cfg['mask_size'])
    if not len(boxes):
        return boxes.new_zeros(0, *size)
    if not all(isinstance(of_image, BitmapMasks) for of_image in masks):
        counts = np.bincount(images, minlength=len(masks)).tolist()
        # MMDetection's function cuts the boxes that it is given at the image's edges.
        return mask_target(boxes.clone().split(counts), torch.from_numpy(objects).split(counts), masks, train_cfg)
    groups = _groups([_assigned(masks[image].masks, objects[images == image]) for image in np.unique(images)])
    counts = [sum(len(part.numbers) for part in group) for group in groups]
    targets = torch.cat([_crop(group, own, size) for group, own in zip(groups, boxes.split(counts))])
    return targets if train_cfg.get('soft_mask_target', False) else (targets >= 0.5).to(boxes.dtype)


class _Assigned(NamedTuple):
    """Of one image, the masks ``(objects, H, W)`` that belong to RoIs, and which of them each RoI has."""

    bitmaps: np.ndarray
    numbers: np.ndarray


def _assigned(bitmaps: np.ndarray, objects: np.ndarray) -> _Assigned:
    assigned, numbers = np.unique(objects, return_inverse=True)
    return _Assigned(bitmaps[assigned], numbers)


def _groups(parts: Sequence[_Assigned]) -> list[list[_Assigned]]:
    """Neighboring images whose masks have one size, and are few enough to be in float32 together."""
    groups: list[list[_Assigned]] = []
    for part in parts:
        last = groups[-1] if groups else []
        pixels = part.bitmaps.size + sum(other.bitmaps.size for other in last)
        if last and part.bitmaps.shape[1:] == last[0].bitmaps.shape[1:] and pixels <= LARGEST_GROUP:
            last.append(part)
        else:
            groups.append([part])
    return groups


def _crop(parts: Sequence[_Assigned], boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The masks in their RoIs' boxes ``(K, 4)``: ``(K, height, width)``."""
    first = np.cumsum([0, *(len(part.bitmaps) for part in parts)])
    number = np.concatenate([part.numbers + offset for part, offset in zip(parts, first)])
    number = torch.from_numpy(number).to(boxes, non_blocking=True)
    bitmaps = torch.from_numpy(np.concatenate([part.bitmaps for part in parts]))
    bitmaps = bitmaps.to(boxes.device, non_blocking=True).to(boxes.dtype)
    height, width = bitmaps.shape[1:]
    x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    rois = torch.cat((number[:, None], torch.stack((x, y), dim=2).flatten(1)), dim=1)
    return align_rois(bitmaps[:, None], rois, size, 1.0, 0, True)[:, 0]
