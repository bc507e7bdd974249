"""Predictions of many picture files: drawings, and detections in one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ..engine.storage import check_writable, write_atomically
from ..errors import UserError
from ..evaluation.coco_results import to_coco_results
from .drawing import draw_prediction
from .predictor import Predictor

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}


def find_pictures(paths: Sequence[str]) -> list[Path]:
    """Picture files: those named, and those in the folders named, by their suffix, sorted.

    Raises:
        UserError: a path does not exist, or there is no picture in all of them.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES)
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f'{path} does not exist: name pictures, or folders of pictures')
    if not found:
        raise UserError(f'no pictures in {", ".join(map(str, paths))}: looked for {", ".join(sorted(SUFFIXES))}')
    return found


def predict_pictures(predictor: Predictor, pictures: Sequence[Path], out_dir: str, score_thr: float) -> None:
    """Predict every picture; write a drawing of each and what was found to ``out_dir``.

    Of a segmenter that is ``labels/NAME.png`` per picture, each pixel the number of its class; of a detector
    ``results.json``.

    ``results.json`` is in COCO's results format plus ``file_name``; a picture named by a number alone, as COCO's are,
    has it as ``image_id``, others their place in the list. Pictures that cannot be read do not stop the rest.

    Raises:
        UserError: ``out_dir`` cannot be written, or some pictures could not be read.
    """
    check_writable(out_dir)
    visualizer = predictor.visualizer()
    labelled = False
    records: list[dict[str, Any]] | None = None
    broken: list[UserError] = []
    stems: set[str] = set()
    for number, picture in enumerate(tqdm(pictures, unit='picture'), start=1):
        try:
            sample = predictor(str(picture))
        except UserError as error:
            broken.append(error)
            continue
        # By stem, since label maps of a.jpg and a.png would both be a.png.
        name = picture.name if picture.stem not in stems else f'{picture.stem}-{number}{picture.suffix}'
        stems.add(Path(name).stem)
        draw_prediction(visualizer, sample, str(Path(out_dir) / name), score_thr)
        if 'pred_sem_seg' in sample:
            labelled = True
            labels = sample.pred_sem_seg.data[0].numpy()
            content = cv2.imencode('.png', labels.astype(np.uint8 if labels.max() < 256 else np.uint16))[1].tobytes()
            write_atomically(Path(out_dir, 'labels', name).with_suffix('.png'), content)
        if 'pred_instances' in sample:
            image_id = int(picture.stem) if picture.stem.isdecimal() else number
            found = to_coco_results(sample.pred_instances, image_id, predictor.category_ids)
            records = (records or []) + [{**record, 'file_name': name} for record in found.records()]
    print(f'drawings:   {out_dir}')
    if labelled:
        print(f'label maps: {Path(out_dir, "labels")}')
    if records is not None:
        results = Path(out_dir) / 'results.json'
        write_atomically(results, json.dumps(records).encode())
        print(f'detections: {results} ({len(records)})')
    if broken:
        raise UserError(f'{len(broken)} of {len(pictures)} pictures were left out: {"; ".join(map(str, broken[:3]))}')
