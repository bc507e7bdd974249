"""The prediction of a model for one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hotcoco import mask as rle

from ..annotation_formats.labeled_images import LabeledImage, LabeledObject
from ..annotation_formats.labelme_writer import labelme_content
from ..annotation_formats.mask_outlines import without_holes
from ..annotation_formats.yolo_writer import yolo_lines
from ..datasets.large_images import LargeImage
from ..errors import UserError, few, nearest
from ..evaluation.coco_results import to_coco_results
from ..extras import require
from ..visualization.drawing import draw_labels, draw_objects, object_text, with_legend, write_drawing
from ..visualization.encoded_masks import EncodedMasks


@dataclass(frozen=True, repr=False, eq=False)
class Prediction:
    """The prediction of a model for one image: objects by falling score, or the class of each pixel.

    Attributes:
        image: uint8 ``(H, W, 3)``, RGB: the image itself; of one that was read by parts, a reduced one.
        source: the path or URL that it came from, else ''.
        classes: the names of all classes that the model knows, by label.
        palette: a color, RGB, of each.
        category_ids: the id of each in COCO's formats.
        boxes: float32 ``(n, 4)``, xyxy in pixels of the image; of a segmenter n is 0.
        scores: float32 ``(n,)``.
        labels: int64 ``(n,)``.
        encoded_masks: the mask of each object in COCO's RLE; None where the model predicts no masks.
        label_map: of a segmenter the class of each pixel, uint8 or uint16 ``(H, W)``, where the type's largest number
            stands for no class; else None.
        track_ids: the number of each object in its video, int64 ``(n,)``, 0 for none yet; None unless a `Tracker` gave
            them.
        large: the image in its file where it was read by parts. All else is in pixels of that; drawings are reduced.
    """

    image: np.ndarray
    source: str
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    category_ids: Sequence[int]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    encoded_masks: Sequence[dict[str, Any]] | None = None
    label_map: np.ndarray | None = None
    track_ids: np.ndarray | None = None
    large: LargeImage | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image that was predicted, in pixels."""
        return self.large.shape[:2] if self.large else self.image.shape[:2]

    def __len__(self) -> int:
        return len(self.scores)

    def __bool__(self) -> bool:
        return True  # also without any object

    @property
    def names(self) -> list[str]:
        """The class of each object."""
        return [self.classes[label] for label in self.labels]

    @property
    def masks(self) -> np.ndarray | None:
        """Bool ``(n, H, W)``, or None; decoded at each call, since they take much more memory than the image."""
        if self.encoded_masks is None:
            return None
        if not self.encoded_masks:
            return np.zeros((0, *self.size), bool)
        return np.stack([rle.decode(mask) for mask in self.encoded_masks]).astype(bool)

    def above(self, score: float) -> Prediction:
        """The objects with this score or a higher one."""
        return self._subset(self.scores >= score)

    def numbered(self) -> Prediction:
        """The objects that a `Tracker` has given a number; without one, all."""
        return self if self.track_ids is None else self._subset(self.track_ids > 0)

    def only(self, *classes: str) -> Prediction:
        """The objects, or the labels, of these classes.

        Raises:
            UserError: the model does not know a class.
        """
        labels = labels_of(classes, self.classes)
        label_map = self.label_map
        if label_map is not None:
            label_map = np.where(np.isin(label_map, labels), label_map, np.iinfo(label_map.dtype).max)
        return replace(self._subset(np.isin(self.labels, labels)), label_map=label_map)

    def _subset(self, selected: np.ndarray) -> Prediction:
        masks = self.encoded_masks
        return replace(
            self,
            boxes=self.boxes[selected],
            scores=self.scores[selected],
            labels=self.labels[selected],
            encoded_masks=masks and [masks[number] for number in np.flatnonzero(selected).tolist()],
            track_ids=None if self.track_ids is None else self.track_ids[selected],
        )

    def crops(self) -> list[np.ndarray]:
        """The part of the image in each box, uint8 ``(h, w, 3)``, RGB, of a pixel at least: views of an array."""
        height, width = self.size
        first = np.clip(np.floor(self.boxes[:, :2]).astype(int), 0, (width - 1, height - 1))
        last = np.clip(np.ceil(self.boxes[:, 2:]).astype(int), first + 1, (width, height))
        image = self.image[..., ::-1] if self.large is None else self.large
        return [image[top:bottom, left:right][..., ::-1] for (left, top), (right, bottom) in zip(first, last)]

    def draw(self, path: str | PathLike | None = None, score_thr: float = 0.3, legend: bool = True) -> np.ndarray:
        """The image with the prediction drawn in, uint8 RGB.

        Args:
            path: also write it there, whole or not at all; the suffix chooses the format. Default: nowhere.
            score_thr: objects below it are not drawn. Default: 0.3.
            legend: of a segmenter, the names of the classes in rows under the image. Default: True.

        Raises:
            UserError: the suffix is not that of an image format.
        """
        if self.label_map is None:
            objects = self.above(score_thr)
            numbers = [0] * len(objects) if objects.track_ids is None else objects.track_ids
            texts = [object_text(*each) for each in zip(objects.names, objects.scores, numbers)]
            colors = [self.palette[label] for label in objects.labels]
            (height, width), size = self.image.shape[:2], self.size
            boxes = objects.boxes * np.array([width / size[1], height / size[0]] * 2, np.float32)
            masks = EncodedMasks(objects.encoded_masks, (height, width)) if objects.encoded_masks else None
            drawing = draw_objects(self.image, boxes, colors, texts, masks)
        else:
            label_map = self.label_map
            if self.large:
                label_map = cv2.resize(label_map, self.image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            drawing = draw_labels(self.image, label_map, self.palette)
            if legend:
                drawing = with_legend(drawing, [label_map], self.classes)
        if path is not None:
            write_drawing(path, drawing)
        return drawing

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """The objects in COCO's results format (https://cocodataset.org/#format-results), tracked with ``track_id``."""
        objects = dict(
            bboxes=torch.from_numpy(self.boxes),
            scores=torch.from_numpy(self.scores),
            labels=torch.from_numpy(self.labels),
            masks=None if self.encoded_masks is None else list(self.encoded_masks),
        )
        records = to_coco_results(objects, image_id, self.category_ids).records()
        if self.track_ids is None:
            return records
        return [{**record, 'track_id': number} for record, number in zip(records, self.track_ids.tolist())]

    def to_labelme(self, image_path: str | None = None) -> dict[str, Any]:
        """The objects as the content of a JSON file of LabelMe's: polygons, masks with holes, or rectangles.

        ``prediction.above(0.5).to_labelme()`` is what to correct: a label has no score.

        Args:
            image_path: the image's path from the JSON file. Default: the name of its file, for a JSON file beside it;
                of an array ''.

        Raises:
            UserError: the model labels pixels.
        """
        path = Path(self.source).name if image_path is None else image_path
        return labelme_content(path, self._labeled_objects('to_labelme'), self.classes, self.size)

    def to_yolo(self) -> str:
        """The objects as the text of a YOLO label file: ``label x y x y …``, or ``label x y width height`` of boxes.

        Numbers are from 0 to 1 of the image's width and height; a box has its center. An outline with holes or of
        several parts is one polygon with cuts of no width.

        Raises:
            UserError: the model labels pixels.
        """
        return yolo_lines(self._labeled_objects('to_yolo'), self.size)

    def to_supervision(self) -> Any:
        """The objects as ``supervision.Detections``, with the names of their classes as ``data['class_name']``.

        Raises:
            UserError: the package supervision is missing, or the model labels pixels.
        """
        self._refuse_label_map('to_supervision')
        detections = require('supervision', 'Prediction.to_supervision()').Detections
        return detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels.astype(int),
            data=dict(class_name=np.array(self.names, dtype=str)),
        )

    def to_labeled_image(self, name: str, source: Path | None = None) -> LabeledImage:
        """What the writers of annotation formats take.

        Args:
            name: the image's path in the data set that is written.
            source: the image's file. Default: the pixels are written.
        """
        objects = [] if self.label_map is not None else self._labeled_objects('to_labeled_image')
        image = self.image if source is None else source
        return LabeledImage(name, self.size, image, objects, self.label_map)

    def _labeled_objects(self, method: str) -> list[LabeledObject]:
        """The objects with coordinates in hundredths of a pixel, as COCO has them, inside of the image.

        Boxes of which nothing is left are left out.
        """
        self._refuse_label_map(method)
        height, width = self.size
        corners = np.clip(self.boxes, 0, (width, height, width, height)).astype(float).round(2)
        objects = []
        for number, (left, top, right, bottom) in enumerate(corners.tolist()):
            box = [left, top, round(right - left, 2), round(bottom - top, 2)]
            mask = self.encoded_masks[number] if self.encoded_masks else None
            area = float(rle.area(mask)) if mask else round(box[2] * box[3], 2)
            if min(box[2:]) <= 0:
                continue
            segmentation = without_holes(mask) if mask and area else None
            score = round(float(self.scores[number]), 4)
            objects.append(LabeledObject(int(self.labels[number]), box, area, segmentation, score=score))
        return objects

    def _refuse_label_map(self, method: str) -> None:
        if self.label_map is not None:
            raise UserError(f'{method}() is for objects, but this model labels pixels: its label_map is an array')

    def __repr__(self) -> str:
        """'3 objects: 2 person 0.98, 0.91; 1 dog 0.55', or '480x640 (H x W) labels: 61% road, 39% sky'."""
        return self._describe_objects() if self.label_map is None else self._describe_labels(self.label_map)

    def _describe_objects(self) -> str:
        groups = []
        for label in dict.fromkeys(self.labels.tolist()):
            scores = [f'{score:.2f}' for score in self.scores[self.labels == label]]
            groups.append(f'{len(scores)} {self.classes[label]} {few(scores, 3, counted=True)}')
        count = '1 object' if len(self) == 1 else f'{len(self)} objects'
        return f'{count}: {"; ".join(groups)}' if groups else count

    def _describe_labels(self, label_map: np.ndarray) -> str:
        counts = np.bincount(label_map.ravel(), minlength=len(self.classes))[: len(self.classes)]
        labels = [label for label in np.argsort(-counts, kind='stable') if counts[label]]
        shares = [f'{counts[label] / label_map.size:.0%} {self.classes[label]}' for label in labels]
        height, width = label_map.shape
        return f'{height}x{width} (H x W) labels: {few(shares, 5, counted=True)}'


def labels_of(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The labels of classes that a user names.

    Raises:
        UserError: a name is unknown.
    """
    for name in names:
        if name not in classes:
            hint = nearest(name, classes, f'it has {few(classes, 10)}')
            raise UserError(f'the model has no class {name!r}; {hint}')
    return [list(classes).index(name) for name in names]
