"""The checkpoints that the authors of FasterNet published, by names that stand wherever a checkpoint is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.published import CLASSIFIERS

RELEASE = 'https://github.com/JierunChen/FasterNet/releases/download/v1.0/'
"""The folder of the authors' files."""


@dataclass(frozen=True)
class Published:
    """One file of the authors' release v1.0.

    Attributes:
        arch: the variant, 't0' to 'l'.
        file: its name in the release.
        figures: what the authors (arXiv 2303.03667) report for it; not reproduced here.
        config: the config that starts from it (ImageNet) or that it belongs to (COCO).
        sha256: of the file, where it is known. The authors publish none.
    """

    arch: str
    file: str
    figures: str
    config: str
    sha256: str | None = None

    @property
    def url(self) -> str:
        return RELEASE + self.file


def _imagenet(arch: str, file: str) -> Published:
    figures = f'ImageNet-1k top-1 {CLASSIFIERS[arch].top1}'
    return Published(arch, file, figures, f'mask_rcnn_fasternet_{arch}')


def _coco(arch: str, file: str, box_ap: float, mask_ap: float) -> Published:
    figures = f'COCO box AP {box_ap}, mask AP {mask_ap}'
    return Published(arch, file, figures, f'mask_rcnn_fasternet_{arch}')


CATALOG: dict[str, Published] = {
    'fasternet_t0_in1k': _imagenet('t0', 'fasternet_t0-epoch.281-val_acc1.71.9180.pth'),
    'fasternet_t1_in1k': _imagenet('t1', 'fasternet_t1-epoch.291-val_acc1.76.2180.pth'),
    'fasternet_t2_in1k': _imagenet('t2', 'fasternet_t2-epoch.289-val_acc1.78.8860.pth'),
    'fasternet_s_in1k': _imagenet('s', 'fasternet_s-epoch.299-val_acc1.81.2840.pth'),
    'fasternet_m_in1k': _imagenet('m', 'fasternet_m-epoch.291-val_acc1.82.9620.pth'),
    'fasternet_l_in1k': _imagenet('l', 'fasternet_l-epoch.299-val_acc1.83.5060.pth'),
    'mask_rcnn_fasternet_s_coco': _coco('s', 'mask_rcnn_fasternet_s_fpn_1x_coco_20221111_063419.pth', 39.9, 36.9),
    'mask_rcnn_fasternet_m_coco': _coco('m', 'mask_rcnn_fasternet_m_fpn_1x_coco_20221107_124408.pth', 43.0, 39.1),
    'mask_rcnn_fasternet_l_coco': _coco('l', 'mask_rcnn_fasternet_l_fpn_1x_coco_20221107_004433.pth', 44.0, 39.9),
}

TRAINED_MODELS = {name: published.config for name, published in CATALOG.items() if name.startswith(published.config)}
"""The names of whole models, which need no more than their weights, and the config of each."""
