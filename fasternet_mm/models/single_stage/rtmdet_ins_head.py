"""The head of RTMDet-Ins (https://arxiv.org/abs/2212.07784), with masks that cost less."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models import dense_heads
from mmengine.structures import InstanceData
from torch import Tensor

from ...registry import MODELS

MASK_BYTES = 64 * 2**20
"""Logits of a GPU's masks that are made at a time."""


@MODELS.register_module()
class RTMDetInsSepBNHead(dense_heads.RTMDetInsSepBNHead):
    """MMDetection's head, whose masks are brought into the image by products of matrices, where objects are.

    MMDetection's interpolates the logits of all objects to the network's input, then to the original image, and
    computes their sigmoids: at 640x640 that takes three times as long as the network, and for a large original image
    gigabytes. Parameters, losses and predictions are the same but for rounding, and for images that were not resized
    alike both ways: MMDetection takes the width's scale for the height, and the height's for the width; here each has
    its own.

    Args:
        kwargs: as for `mmdet.models.RTMDetInsSepBNHead`.
    """

    def _bbox_mask_post_process(
        self,
        results: InstanceData,
        mask_feat: Tensor,
        cfg: Mapping[str, Any],
        rescale: bool = False,
        with_nms: bool = True,
        img_meta: Mapping[str, Any] | None = None,
    ) -> InstanceData:
        """Candidates of one image to detections with ``masks``, bool ``(k, H, W)``; arguments as MMDetection's."""
        results = self._bbox_post_process(results, cfg, rescale, with_nms, img_meta)
        logits = self._mask_predict_by_feat_single(mask_feat, results.kernels, results.priors)
        stride = self.prior_generator.strides[0][0]
        scales, size = (1.0, 1.0), [stride * side for side in mask_feat.shape[-2:]]
        if rescale:
            scales, size = img_meta['scale_factor'][::-1], img_meta['ori_shape'][:2]
        elif not len(results):
            size = img_meta['img_shape'][:2]
        results.masks = enlarge_masks(logits.detach(), stride, scales, size, cfg.mask_thr_binary)
        return results

    def loss_mask_by_feat(
        self,
        mask_feats: Tensor,
        flatten_kernels: Tensor,
        sampling_results_list: list,
        batch_gt_instances: Sequence[InstanceData],
    ) -> Tensor:
        """The loss of masks, arguments as MMDetection's; it reaches all parameters, as several processes need it."""
        loss = super().loss_mask_by_feat(mask_feats, flatten_kernels, sampling_results_list, batch_gt_instances)
        return loss + 0 * flatten_kernels.mean()

    def _mask_predict_by_feat_single(self, mask_feat: Tensor, kernels: Tensor, priors: Tensor) -> Tensor:
        """Logits ``(k, h, w)``: for each object a small network of its own over the map ``(C, h, w)`` and its offsets.

        These are products of matrices; as grouped convolutions they are computed one by one on a CPU.
        """
        height, width = mask_feat.shape[-2:]
        cells = self.prior_generator.single_level_grid_priors((height, width), level_idx=0, device=mask_feat.device)
        offsets = (priors[:, :2, None] - cells.t()) / (priors[:, 2, None, None] * 8)
        parameters = kernels.split(self.weight_nums + self.bias_nums, dim=1)
        weights = [weight.unflatten(1, (outputs, -1)) for weight, outputs in zip(parameters, self.bias_nums)]
        biases = [bias[:, :, None] for bias in parameters[len(weights) :]]
        of_offsets, of_map = weights[0].split((2, self.num_prototypes), dim=2)
        x = of_map @ mask_feat.flatten(1) + torch.baddbmm(biases[0], of_offsets, offsets)
        for weight, bias in zip(weights[1:], biases[1:]):
            x = torch.baddbmm(bias, weight, x.relu())
        return x.view(-1, height, width)


def enlarge_masks(
    logits: Tensor, stride: int, scales: Sequence[float], size: Sequence[int], threshold: float
) -> Tensor:
    """Where in the image each object is.

    Args:
        logits: ``(K, h, w)``, of the whole input of the network, padding included.
        stride: height and width of a cell, in pixels of that input.
        scales: how many of these pixels a pixel of the image is high and wide.
        size: height and width of the image.
        threshold: pixels with a probability above it belong to the object.

    Returns:
        bool ``(K, *size)``.
    """
    with torch.autocast(logits.device.type, enabled=False):
        rows, columns = (
            enlargement(cells, stride, scale, pixels).to(logits.device)
            for cells, scale, pixels in zip(logits.shape[1:], scales, size)
        )
        return _enlarge(logits.float(), rows, columns, math.log(threshold / (1 - threshold)))


def enlargement(cells: int, stride: int, scale: float, pixels: int) -> Tensor:
    """``(pixels, cells)``: how much of each cell is in each pixel of the image, along one side.

    Args:
        cells: of the map.
        stride: pixels of the network's input in a cell.
        scale: pixels of the network's input in a pixel of the image.
        pixels: of the image; the input may be padded behind them.
    """
    matrix = F.interpolate(torch.eye(cells)[None], scale_factor=float(stride), mode='linear')
    return F.interpolate(matrix, size=math.ceil(cells * stride * (1 / scale)), mode='linear')[0, :, :pixels].t()


def _enlarge(logits: Tensor, rows: Tensor, columns: Tensor, least: float) -> Tensor:
    if logits.is_cuda:
        count = max(1, MASK_BYTES // (4 * len(rows) * len(columns)))
        parts = [rows @ some @ columns.t() > least for some in logits.split(count)]
        return torch.cat(parts)
    # A pixel belongs to the object only if one of the cells around it does: others need not be computed.
    masks = np.zeros((len(logits), len(rows), len(columns)), dtype=bool)
    for mask, cells, inside in zip(masks, logits, logits.numpy() > least):
        if inside.any():
            y, cells_y = _near(inside.any(1), rows.numpy())
            x, cells_x = _near(inside.any(0), columns.numpy())
            near = rows[y, cells_y] @ (cells[cells_y, cells_x] @ columns[x, cells_x].t())
            np.greater(near.numpy(), least, out=mask[y, x])
    return torch.from_numpy(masks)


def _near(chosen: np.ndarray, weights: np.ndarray) -> tuple[slice, slice]:
    """The pixels that chosen cells are in, and all cells that these pixels are made of, as one stretch each."""
    pixels = _stretch(weights[:, chosen].any(1))
    return pixels, _stretch(weights[pixels].any(0))


def _stretch(chosen: np.ndarray) -> slice:
    places = chosen.nonzero()[0]
    return slice(places[0], places[-1] + 1) if len(places) else slice(0, 0)
