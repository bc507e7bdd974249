"""Data sets in MMDetection's and MMSegmentation's form."""

import json
from pathlib import Path
from typing import Any, ClassVar

from mmdet.datasets import CocoDataset
from mmseg.datasets import BaseSegDataset

from ..registry import DATASETS
from .shapes import CLASSES, PALETTE, ensure_shapes


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """The embedded data set (`fasternet_mm.datasets.shapes`), made at first use.

    Args:
        data_root: folder of the data set, created when it is missing. Default: 'data/shapes'.
        split: 'train', 'val' or 'test'. Default: 'train'.
        kwargs: as for MMDetection's ``CocoDataset``.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(classes=CLASSES, palette=PALETTE)

    def __init__(self, data_root: str = 'data/shapes', split: str = 'train', **kwargs: Any) -> None:
        ensure_shapes(data_root)
        super().__init__(
            data_root=data_root,
            ann_file=f'annotations/{split}.json',
            data_prefix=dict(img=f'images/{split}/'),
            **kwargs,
        )


@DATASETS.register_module()
class ShapesSegDataset(BaseSegDataset):
    """The label maps of the embedded data set; class 0 is the background.

    Args:
        data_root: folder of the data set, created when it is missing. Default: 'data/shapes'.
        split: 'train', 'val' or 'test'. Default: 'train'.
        kwargs: as for MMSegmentation's ``BaseSegDataset``.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(classes=('background', *CLASSES), palette=[(60, 60, 60), *PALETTE])

    def __init__(self, data_root: str = 'data/shapes', split: str = 'train', **kwargs: Any) -> None:
        ensure_shapes(data_root)
        super().__init__(
            data_root=data_root,
            data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}'),
            img_suffix='.png',
            **kwargs,
        )


@DATASETS.register_module()
class LabelMapDataset(BaseSegDataset):
    """Images and label maps listed in a file, wherever they are and whatever their names.

    Args:
        ann_file: JSON, a list of ``{"img_path": …, "seg_map_path": …}``.
        kwargs: as for MMSegmentation's ``BaseSegDataset``.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """One record per image, in the order of the file."""
        extra = dict(label_map=self.label_map, reduce_zero_label=self.reduce_zero_label, seg_fields=[])
        return [{**pair, **extra} for pair in json.loads(Path(self.ann_file).read_text())]
