"""Time and memory of COCO's metric, against MMDetection's, on generated data of COCO's kind.

Images have 480x640 pixels and seven objects of 80 classes, as many of them small, medium and large as in COCO.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import mmdet.evaluation
import numpy as np
import torch
from pycocotools import mask as rle

from ..evaluation.coco_metric import CocoMetric
from .memory import begin_new_peak, in_own_process, resident

JOBS = {
    'bbox': 'bbox: process and compute_metrics',
    'segm': 'segm: compute_metrics',
    'masks': 'segm: process, which encodes the masks',
}
METRICS = {'ours': CocoMetric, 'mmdet': mmdet.evaluation.CocoMetric}
HEIGHT, WIDTH, CLASSES, OBJECTS = 480, 640, 80, 7


def compare_metrics(images: int, detections: int, repeats: int) -> None:
    """Measure both metrics in turns, each time in a process of its own, and print the medians.

    Memory is what the process's peak grows by, annotations included.

    Args:
        images: their number.
        detections: of each image.
        repeats: measurements of each job and metric.

    Raises:
        RuntimeError: the metrics differ in a figure.
    """
    with tempfile.TemporaryDirectory() as folder:
        annotations = Path(folder, 'annotations.json')
        annotations.write_text(json.dumps(_annotate(images)))
        for job, title in JOBS.items():
            print(title, flush=True)
            _compare(job, str(annotations), images, detections, repeats)


def _compare(job: str, annotations: str, images: int, detections: int, repeats: int) -> None:
    measured: dict[str, list[tuple[float, int, dict]]] = {name: [] for name in METRICS}
    for _ in range(repeats):
        for name, runs in measured.items():
            runs.append(in_own_process(_measure, job, name, annotations, images, detections))
    figures = [run[2] for runs in measured.values() for run in runs]
    if any(other != figures[0] for other in figures):
        raise RuntimeError(f'{JOBS[job]}: the figures differ: {figures}')
    seconds, memory = {}, {}
    for name, runs in measured.items():
        seconds[name] = statistics.median(run[0] for run in runs)
        memory[name] = max(run[1] for run in runs)
        each = ', '.join(f'{run[0]:.2f}' for run in runs)
        print(f'  {name:6}{seconds[name]:9.2f} s  (of {each})   peak memory {memory[name] / 1e9:.2f} GB')
    time_ratio, memory_ratio = (values['mmdet'] / values['ours'] for values in (seconds, memory))
    print(f'  mmdet / ours{time_ratio:8.1f} x in time, {memory_ratio:.2f} x in memory', flush=True)


def _measure(job: str, name: str, annotations: str, images: int, detections: int) -> tuple[float, int, dict]:
    """Seconds, bytes by which the process's peak memory grew, and the figures of the metric."""
    # Boxes and RLE of all images fit into memory, masks do not: theirs share the memory of one image.
    canvas = np.zeros((detections, HEIGHT, WIDTH), np.uint8) if job == 'masks' else None
    samples = (_detect(number, detections, job == 'segm', canvas) for number in range(images))
    samples = samples if job == 'masks' else list(samples)
    begin_new_peak()
    before = resident('VmRSS')
    metric = METRICS[name](annotations, metric='bbox' if job == 'bbox' else 'segm')
    metric.dataset_meta = dict(classes=[str(number) for number in range(CLASSES)])
    processing = 0.0
    for sample in samples:
        start = perf_counter()
        metric.process({}, [sample])
        processing += perf_counter() - start
    if job == 'masks':
        return processing, resident('VmHWM') - before, {}
    start = perf_counter()
    figures = metric.compute_metrics(metric.results)
    computing = perf_counter() - start
    return computing + processing * (job == 'bbox'), resident('VmHWM') - before, figures


def _annotate(count: int) -> dict:
    """COCO annotations of generated images."""
    content = dict(images=[], annotations=[], categories=[dict(id=n + 1, name=str(n)) for n in range(CLASSES)])
    for number in range(count):
        content['images'].append(dict(id=number, height=HEIGHT, width=WIDTH, file_name=f'{number}.jpg'))
        shapes, labels, areas, _ = _draw(number)
        for shape, label, area in zip(shapes, labels.tolist(), areas.tolist()):
            box = [*shape.min(0).tolist(), *(shape.max(0) - shape.min(0)).tolist()]
            annotation = dict(
                id=len(content['annotations']) + 1, image_id=number, category_id=label + 1, bbox=box, area=area
            )
            content['annotations'].append(annotation | dict(iscrowd=0, segmentation=[shape.ravel().tolist()]))
    return content


def _draw(number: int) -> tuple:
    """Objects of an image: polygons ``(n, points, 2)``, labels, areas, and the random numbers to go on with."""
    rng = np.random.default_rng(number)
    count = 1 + rng.poisson(OBJECTS - 1)
    # 41 % of COCO's objects are below 32² pixels, 24 % above 96²: https://cocodataset.org/#detection-eval.
    areas = np.exp(2 * rng.normal(3.735, 1.169, count)).clip(16, HEIGHT * WIDTH / 4)
    stretch = np.exp(rng.normal(0, 0.3, (count, 1)))
    radii = np.sqrt(areas / np.pi)[:, None] * np.concatenate((stretch, 1 / stretch), axis=1)
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    wobble = 1 + 0.15 * np.sin(rng.integers(2, 6, (count, 1)) * angles + rng.uniform(0, 6, (count, 1)))
    shapes = np.stack((np.cos(angles), np.sin(angles)), axis=-1) * wobble[..., None] * radii[:, None]
    shapes += rng.uniform((0, 0), (WIDTH, HEIGHT), (count, 1, 2))
    return shapes.clip(0, (WIDTH, HEIGHT)), rng.integers(CLASSES, size=count), areas, rng


def _detect(number: int, detections: int, as_rle: bool, canvas: Any = None) -> dict:
    """What a detector would find in an image: its objects, moved, resized, and three in ten under another name.

    With masks as RLE, or drawn on the uint8 ``canvas`` ``(detections, height, width)``.
    """
    shapes, labels, _, rng = _draw(number)
    which = rng.integers(len(shapes), size=detections)
    outlines, centers = shapes[which], shapes[which].mean(axis=1, keepdims=True)
    size = (outlines.max(axis=1) - outlines.min(axis=1))[:, None]
    outlines = centers + (outlines - centers) * np.exp(rng.normal(0, 0.15, (detections, 1, 1)))
    outlines = (outlines + size * rng.normal(0, 0.1, size.shape)).clip(0, (WIDTH, HEIGHT))
    mistaken = rng.random(detections) < 0.3
    instances = dict(
        bboxes=torch.from_numpy(np.concatenate((outlines.min(axis=1), outlines.max(axis=1)), axis=1)).float(),
        scores=torch.from_numpy(rng.random(detections)).float(),
        labels=torch.from_numpy(np.where(mistaken, rng.integers(CLASSES, size=detections), labels[which])),
    )
    if as_rle:
        instances['masks'] = rle.frPyObjects([shape.ravel().tolist() for shape in outlines], HEIGHT, WIDTH)
    if canvas is not None:
        canvas.fill(0)
        for mask, shape in zip(canvas, outlines):
            cv2.fillPoly(mask, [shape.round().astype(np.int32)], 1)
        instances['masks'] = torch.from_numpy(canvas.view(bool))
    return dict(img_id=number, ori_shape=(HEIGHT, WIDTH), pred_instances=instances)
