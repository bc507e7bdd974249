"""Features of regions of interest (RoIs), from the level of the pyramid that suits each region's size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.ops import RoIAlign
from mmdet.models import roi_heads
from torch import Tensor

from ...ops.roi_align import pyramid_roi_align
from ...registry import MODELS


@MODELS.register_module()
class SingleRoIExtractor(roi_heads.SingleRoIExtractor):
    """MMDetection's extractor, which asks the device once for the RoIs' levels, and not once per level.

    Under mixed precision the RoIs' coordinates stay in float32, where MMDetection's extractor rounds them to the dtype
    of the maps. With a ``roi_layer`` other than an averaging ``RoIAlign`` it is MMDetection's.

    Args:
        kwargs: as for `mmdet.models.SingleRoIExtractor`.
    """

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """RoIAlign.

        Args:
            feats: ``(N, C, H, W)`` per level.
            rois: ``(K, 5)``: number of the image, then x1, y1, x2, y2 in its pixels.
            roi_scale_factor: pool from regions that are so many times as wide and high. Default: None, 1.

        Returns:
            ``(K, C, height, width)``, in the maps' dtype.
        """
        layer = self.roi_layers[0]
        if type(layer) is not RoIAlign or layer.pool_mode != 'avg':
            return super().forward(feats, rois, roi_scale_factor)
        order, counts = self._by_level(rois, len(feats))
        if roi_scale_factor is not None and len(feats) > 1:  # as MMDetection's
            rois = self.roi_rescale(rois, roi_scale_factor)
        scales = [layer.spatial_scale for layer in self.roi_layers[: len(feats)]]
        options = layer.output_size, layer.sampling_ratio, layer.aligned
        return pyramid_roi_align(feats, rois, order, counts, scales, *options)

    def _by_level(self, rois: Tensor, levels: int) -> tuple[Tensor, list[int]]:
        """The numbers of the RoIs, level by level, and how many belong to each level."""
        if levels == 1:
            return torch.arange(len(rois), device=rois.device), [len(rois)]
        # A RoI whose area is negative or no number has no level, and its features are 0, as in MMDetection.
        level_of_roi = self.map_roi_levels(rois, levels).clamp(min=-1)
        each = torch.arange(-1, levels, device=rois.device)
        without_level, *counts = (level_of_roi == each[:, None]).sum(dim=1).tolist()
        return level_of_roi.argsort(stable=True)[without_level:], counts
