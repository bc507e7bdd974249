"""Accuracy with tiles and without: the embedded objects at a quarter of their size, in images of 1600 x 1600 pixels."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hotcoco import mask as rle
from terminaltables import AsciiTable

from ..datasets.run_lengths import encode_at
from ..datasets.shapes import CLASSES, SIZE, draw_image
from ..evaluation.coco_evaluation import evaluate_tasks
from ..evaluation.coco_results import read_results
from ..evaluation.coco_truth import read_truth
from ..inference import Predictor
from ..inference.tiles import Tiling

SIDE = 1600
"""Height and width of the images, in pixels."""

SHRINKAGE = 4
"""How many times smaller objects are than in the embedded data, where a model learned them."""

GROUPS = 16
"""Images of the embedded data whose objects are in one image: about 60 objects, of which COCO's metric counts 100."""


def compare_tiles(model: str, checkpoint: str | None, tiling: Tiling, images: int, batch_size: int) -> None:
    """Print the AP of a detector that was trained on the embedded data, without tiles and with them.

    Args:
        model, checkpoint: see `Predictor`.
        tiling: how images are cut.
        images: their number.
        batch_size: tiles that go through the network together.
    """
    predictor = Predictor(model, checkpoint, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as folder:
        files = _write_images(Path(folder), images)
        truth = read_truth(str(Path(folder, 'annotations.json')))
        rows = [[f'images of {SIDE}x{SIDE}', 'box AP', 'box AP50', 'mask AP', 'mask AP50']]
        for title, predictor.tiling in (('without tiles', None), ('{}x{} tiles'.format(*tiling.size), tiling)):
            records = []
            for number, prediction in enumerate(predictor.stream(files), start=1):
                records += prediction.to_coco(number)
            figures = evaluate_tasks(truth, read_results(records, truth)) if records else {}
            rows.append([title] + ['none found'] * (not figures))
            for evaluation in figures.values():
                summary = evaluation.summary()
                rows[-1] += [f'{summary[name]:.3f}' for name in ('mAP', 'mAP_50')]
    print(AsciiTable(rows).table)


def _write_images(folder: Path, count: int) -> list[Path]:
    """Images as PNG files, and ``annotations.json`` in COCO's format; the same ones each time."""
    files, images, annotations = [], [], []
    for number in range(1, count + 1):
        pixels, objects = _draw(np.random.default_rng((7, number)))
        files.append(folder / f'{number}.png')
        cv2.imwrite(str(files[-1]), pixels[..., ::-1])
        images.append(dict(id=number, file_name=files[-1].name, height=SIDE, width=SIDE))
        for category, mask in objects:
            area, box = int(rle.area(mask)), rle.to_bbox(mask).tolist()
            segmentation = dict(size=list(mask['size']), counts=mask['counts'].decode())
            ids = dict(id=len(annotations) + 1, image_id=number, category_id=category + 1, iscrowd=0)
            annotations.append(dict(ids, bbox=box, area=area, segmentation=segmentation))
    categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, start=1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'annotations.json').write_text(json.dumps(content))
    return files


def _draw(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, dict[str, Any]]]]:
    """An image, RGB uint8, and its objects: class and mask, as RLE."""
    coarse = rng.uniform(50, 205, (24, 24, 3))
    coarse = 0.4 * coarse + 0.6 * coarse.mean(-1, keepdims=True)  # pale, as the backgrounds of the embedded images
    canvas = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    canvas += rng.normal(0, 3, canvas.shape)
    canvas = canvas.clip(0, 255).astype(np.uint8)
    side, objects = SIZE // SHRINKAGE, []
    for place in rng.choice((SIDE // (2 * side)) ** 2, GROUPS, replace=False).tolist():
        row, column = divmod(place, SIDE // (2 * side))
        top, left = (2 * side * np.array((row, column)) + rng.integers(0, side, 2)).tolist()
        image, shapes = draw_image(rng)
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        for category, mask in shapes:
            mask = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) > 0.5
            if mask.any():
                canvas[top : top + side, left : left + side][mask] = image[mask]
                objects.append((category, encode_at(mask, top, left, (SIDE, SIDE))))
    return canvas, objects
