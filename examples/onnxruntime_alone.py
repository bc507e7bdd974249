"""Run a file of ``fasternet-mm export --out model.onnx`` with NumPy, OpenCV and ONNX Runtime alone.

Example:
    pip install numpy opencv-python onnxruntime
    python onnxruntime_alone.py model.onnx street.jpg --drawing found.jpg

To take along into a program of your own, this file is enough: neither fasternet-mm nor PyTorch is needed. It finds what
``fasternet-mm predict model.onnx street.jpg`` finds.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime


class ExportedModel:
    """An exported detector or segmenter.

    Args:
        path: the ONNX file, exported without ``--prepared`` and ``--backbone``.
        providers: where ONNX Runtime computes, in order of preference. Default: the CPU.

    Attributes:
        description: what the file says of itself: ``classes``, ``resize``, ``mask_stride`` and more.

    Raises:
        ValueError: the file is no model or another program's, or leaves work to its caller that this program does not
            do.
    """

    def __init__(self, path: str, providers: tuple[str, ...] = ('CPUExecutionProvider',)) -> None:
        try:
            self.session = onnxruntime.InferenceSession(path, providers=list(providers))
        except Exception as error:  # ONNX Runtime has a class for each reason, and none above them
            raise ValueError(f'{path} is no model that ONNX Runtime can run ({error})') from error
        metadata = self.session.get_modelmeta().custom_metadata_map
        if 'fasternet_mm' not in metadata:
            raise ValueError(f'{path} was not written by fasternet-mm export')
        self.description = json.loads(metadata['fasternet_mm'])
        if self.description['task'] == 'backbone' or self.description['prepared']:
            raise ValueError(f'{path}: export the whole model, without --backbone and --prepared')
        if self.description['resize'] is None and self.description['size'] is None:
            raise ValueError(f'{path} does not say how images are resized for it: export it with --size')
        if self.description['align_corners']:
            raise ValueError(f'{path} enlarges its logits with align_corners, which OpenCV does not')

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """What the model sees in an image.

        Args:
            image: uint8 ``(H, W, 3)``, BGR, as ``cv2.imread`` gives it.

        Returns:
            Of a detector, objects by falling score: ``boxes`` float32 ``(K, 4)``, xyxy in pixels of the image;
            ``scores`` float32 ``(K,)``; ``labels`` ``(K,)``, places in ``description['classes']``; and where the model
            has them ``masks`` bool ``(K, H, W)``. Of a segmenter ``label_map`` ``(H, W)``, the class of each pixel.
        """
        resized, padded = self._prepare(image)
        scale_y, scale_x = (new / old for new, old in zip(resized, image.shape))
        images = self.session.get_inputs()[0].name
        values = self.session.run(None, {images: np.ascontiguousarray(padded.transpose(2, 0, 1)[None])})
        outputs = dict(zip(self.description['outputs'], values))
        if self.description['task'] == 'segmentation':
            return dict(label_map=_label_map(outputs['logits'][0], padded.shape[:2], image.shape[:2]))
        boxes = outputs['boxes'] / np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
        objects = dict(boxes=boxes, scores=outputs['scores'], labels=outputs['labels'])
        settings = self.description['test_cfg'].get('rcnn', self.description['test_cfg'])
        threshold = settings.get('mask_thr_binary', 0.5)
        if 'mask_logits' in outputs:  # RTMDet-Ins: over the whole image
            pixels_of_cell = self.description['mask_stride'], scale_y, scale_x
            objects['masks'] = _enlarge(outputs['mask_logits'], pixels_of_cell, image.shape[:2], threshold)
        elif 'masks' in outputs:  # Mask R-CNN: over each box
            objects['masks'] = _paste(outputs['masks'], boxes, image.shape[:2], threshold)
        return objects

    def _prepare(self, image: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
        """The size that an image is resized to, height and width, and the image of that size, padded."""
        resize, size = self.description['resize'] or {}, self.description['size']
        if size and resize.get('pad', {}).get('size') != size[::-1]:
            resize = dict(scale=size[::-1], keep_ratio=False)
        height, width = image.shape[:2]
        if 'scale' in resize:
            long, short = max(resize['scale']), min(resize['scale'])
            scale = min(long / max(height, width), short / min(height, width))
            new_size = (
                (int(width * scale + 0.5), int(height * scale + 0.5)) if resize['keep_ratio'] else resize['scale']
            )
            image = cv2.resize(image, new_size, interpolation=cv2.INTER_LINEAR)
        resized = image.shape[:2]
        if 'pad' in resize:
            pad = resize['pad']
            columns, rows = pad.get('size') or [_multiple(side, pad['size_divisor']) for side in resized[::-1]]
            below, right = max(0, rows - resized[0]), max(0, columns - resized[1])
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=pad['value'])
        divisor = self.description['size_divisor']
        if any(side % divisor for side in image.shape[:2]):
            raise ValueError(f'{image.shape[0]}x{image.shape[1]} pixels (H x W): use multiples of {divisor}')
        return resized, image


def _multiple(side: int, divisor: int) -> int:
    return -(-side // divisor) * divisor


def _label_map(logits: np.ndarray, padded: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The likeliest class of each pixel, of logits ``(classes, h, w)``: enlarged as in training, then to the image."""
    enlarged = [cv2.resize(cv2.resize(logit, padded[::-1]), size[::-1]) for logit in logits]
    return np.argmax(enlarged, axis=0)


def _enlarge(
    logits: np.ndarray, pixels_of_cell: tuple[int, float, float], size: tuple[int, int], threshold: float
) -> np.ndarray:
    """Masks of RTMDet-Ins ``(K, h, w)``, enlarged as in training and then to the image, bool ``(K, *size)``."""
    stride, scale_y, scale_x = pixels_of_cell
    rows, columns = logits.shape[1] * stride, logits.shape[2] * stride
    whole = math.ceil(columns / scale_x), math.ceil(rows / scale_y)  # with the padding, which is cut off
    masks = np.zeros((len(logits), *size), bool)
    for mask, logit in zip(masks, logits):
        enlarged = cv2.resize(cv2.resize(logit, (columns, rows)), whole)
        mask[:] = enlarged[: size[0], : size[1]] > math.log(threshold / (1 - threshold))
    return masks


def _paste(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], threshold: float) -> np.ndarray:
    """Masks of Mask R-CNN ``(K, h, w)``, probabilities over each box, in the image, bool ``(K, *size)``."""
    pasted = np.zeros((len(masks), *size), bool)
    for result, mask, (left, top, right, bottom) in zip(pasted, masks, boxes):
        rows = _shares(top, bottom, mask.shape[0], size[0])
        columns = _shares(left, right, mask.shape[1], size[1])
        result[:] = rows @ mask @ columns.T >= threshold
    return pasted


def _shares(start: float, end: float, cells: int, pixels: int) -> np.ndarray:
    """``(pixels, cells)``: how much of each cell between start and end is in each pixel, by linear interpolation."""
    centers = (np.arange(pixels, dtype=np.float32) + 0.5 - start) / max(end - start, 1e-6) * cells - 0.5
    return np.maximum(1 - np.abs(centers[:, None] - np.arange(cells, dtype=np.float32)), 0)


def draw(image: np.ndarray, found: dict[str, Any], names: list[str], least_score: float) -> np.ndarray:
    """The image with the boxes and masks of objects from a score on, or with the label map."""
    drawing = image.copy()
    if 'label_map' in found:
        levels = (found['label_map'] * (255 // max(1, len(names) - 1))).astype(np.uint8)
        return cv2.addWeighted(drawing, 0.5, cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), 0.5, 0)
    for number in np.flatnonzero(found['scores'] >= least_score):
        left, top, right, bottom = found['boxes'][number].round().astype(int).tolist()
        if 'masks' in found:
            inside = found['masks'][number]
            drawing[inside] = drawing[inside] // 2 + np.array([0, 100, 0], np.uint8)
        text = f'{names[found["labels"][number]]} {found["scores"][number]:.2f}'
        cv2.rectangle(drawing, (left, top), (right, bottom), (0, 200, 0), 1)
        cv2.putText(drawing, text, (left, max(10, top - 2)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 200, 0), 1)
    return drawing


def main() -> None:
    parser = argparse.ArgumentParser(description='Run an exported ONNX file with NumPy, OpenCV and ONNX Runtime alone.')
    parser.add_argument('model', metavar='MODEL.onnx')
    parser.add_argument('image', metavar='IMAGE')
    parser.add_argument('--score-thr', type=float, default=0.3, help='objects from this score on; default: 0.3')
    parser.add_argument('--drawing', metavar='FILE', help='also draw what is found into the image')
    args = parser.parse_args()
    for path in (args.model, args.image):
        if not Path(path).is_file():
            parser.error(f'{path} is not a file')
    if args.drawing and not (Path(args.drawing).parent.is_dir() and cv2.haveImageWriter(args.drawing)):
        parser.error(f'{args.drawing} cannot be written: name a .png or .jpg file in a folder that exists')
    image = cv2.imread(args.image, cv2.IMREAD_COLOR)
    if image is None:
        parser.error(f'{args.image} is not an image that can be read')
    try:
        model = ExportedModel(args.model)
        found = model(image)
    except ValueError as error:
        parser.error(str(error))
    names = model.description['classes']
    if 'label_map' in found:
        for label, pixels in zip(*np.unique(found['label_map'], return_counts=True)):
            print(f'{names[label]}: {pixels / found["label_map"].size:.1%} of the pixels')
    else:
        for box, score, label in zip(found['boxes'], found['scores'], found['labels']):
            if score >= args.score_thr:
                print(f'{names[label]} {score:.3f} at', *(f'{value:.1f}' for value in box))
    if args.drawing:
        cv2.imwrite(args.drawing, draw(image, found, names, args.score_thr))


if __name__ == '__main__':
    main()
