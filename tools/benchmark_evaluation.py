"""Time and memory of COCO's metric, against MMDetection's."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from command_line import parser, run

EPILOG = """examples:
  python tools/benchmark_evaluation.py --images 500      a few minutes
  python tools/benchmark_evaluation.py                     COCO val2017's size; about an hour

Linux only. The data are generated, of COCO's kind: 480x640 pixels, 80 classes, seven objects an image, as many of them
small, medium and large as in COCO. Each measurement has a process of its own; ways take turns, and must find the same
figures. Memory is what the process's peak grows by, annotations included.
"""
JOBS = {
    'bbox': 'bbox: process and compute_metrics',
    'segm': 'segm: compute_metrics',
    'masks': 'segm: process, which encodes the masks',
}
HEIGHT, WIDTH, CLASSES, OBJECTS = 480, 640, 80, 7


def arguments() -> argparse.ArgumentParser:
    result = parser("Compare fasternet_mm.CocoMetric with MMDetection's CocoMetric.", EPILOG)
    result.add_argument('--images', type=int, default=5000, help='default: 5000')
    result.add_argument('--detections', type=int, default=100, help='of each image; default: 100')
    result.add_argument('--repeats', type=int, default=3, help='measurements of each job and way; default: 3')
    result.add_argument('--jobs', nargs='+', choices=JOBS, default=list(JOBS), help='default: all')
    result.add_argument('--one', nargs=3, help=argparse.SUPPRESS)
    return result


def main(args: argparse.Namespace) -> None:
    if args.one:
        print(json.dumps(measure(*args.one, args.images, args.detections)))
        return
    with tempfile.TemporaryDirectory() as folder:
        annotations = Path(folder, 'annotations.json')
        annotations.write_text(json.dumps(annotate(args.images)))
        for job in args.jobs:
            print(JOBS[job], flush=True)
            found = {'ours': [], 'mmdet': []}
            for _ in range(args.repeats):
                for way, runs in found.items():
                    command = [sys.executable, __file__, '--one', job, way, str(annotations)]
                    size = ['--images', str(args.images), '--detections', str(args.detections)]
                    done = subprocess.run([*command, *size], stdout=subprocess.PIPE, text=True, check=True)
                    runs.append(json.loads(done.stdout.splitlines()[-1]))
            if any(figures != found['ours'][0][2] for runs in found.values() for _, _, figures in runs):
                raise RuntimeError(f'{JOBS[job]}: the figures differ: {found}')
            seconds, memory = {}, {}
            for way, runs in found.items():
                seconds[way] = statistics.median(run[0] for run in runs)
                memory[way] = max(run[1] for run in runs)
                each = ', '.join(f'{run[0]:.2f}' for run in runs)
                print(f'  {way:6}{seconds[way]:9.2f} s  (of {each})   peak memory {memory[way] / 1e9:.2f} GB')
            time_ratio, memory_ratio = (of['mmdet'] / of['ours'] for of in (seconds, memory))
            print(f'  mmdet / ours{time_ratio:8.1f} x in time, {memory_ratio:.2f} x in memory', flush=True)


def measure(job: str, way: str, annotations: str, images: int, detections: int) -> tuple[float, int, dict]:
    """Seconds, bytes by which the process's peak memory grew, and the figures that were found."""
    from time import perf_counter

    from fasternet_mm import CocoMetric  # first: it gives MMDetection its operators
    from fasternet_mm.benchmark.memory import begin_new_peak, resident

    # isort: split
    import numpy as np
    from mmdet.evaluation import CocoMetric as TheirMetric

    # Boxes and RLE of all images fit into memory, masks do not: theirs share the memory of one image.
    canvas = np.zeros((detections, HEIGHT, WIDTH), np.uint8) if job == 'masks' else None
    samples = (detect(number, detections, job == 'segm', canvas) for number in range(images))
    samples = samples if job == 'masks' else list(samples)
    begin_new_peak()
    before = resident('VmRSS')
    metric = (CocoMetric if way == 'ours' else TheirMetric)(annotations, metric='bbox' if job == 'bbox' else 'segm')
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


def annotate(count: int) -> dict:
    """COCO annotations of generated images."""
    content = dict(images=[], annotations=[], categories=[dict(id=n + 1, name=str(n)) for n in range(CLASSES)])
    for number in range(count):
        content['images'].append(dict(id=number, height=HEIGHT, width=WIDTH, file_name=f'{number}.jpg'))
        shapes, labels, areas, _ = draw(number)
        for shape, label, area in zip(shapes, labels.tolist(), areas.tolist()):
            box = [*shape.min(0).tolist(), *(shape.max(0) - shape.min(0)).tolist()]
            one = dict(id=len(content['annotations']) + 1, image_id=number, category_id=label + 1, bbox=box, area=area)
            content['annotations'].append(one | dict(iscrowd=0, segmentation=[shape.ravel().tolist()]))
    return content


def draw(number: int) -> tuple:
    """Objects of an image: polygons ``(n, points, 2)``, labels, areas, and the random numbers to go on with."""
    import numpy as np

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


def detect(number: int, detections: int, as_rle: bool, canvas: Any = None) -> dict:
    """What a detector would find in an image: its objects, moved, resized, and three in ten under another name.

    With masks as RLE, or drawn on the uint8 ``canvas`` ``(detections, height, width)``.
    """
    import cv2
    import numpy as np
    import torch
    from pycocotools import mask as rle

    shapes, labels, _, rng = draw(number)
    which = rng.integers(len(shapes), size=detections)
    found, centers = shapes[which], shapes[which].mean(axis=1, keepdims=True)
    size = (found.max(axis=1) - found.min(axis=1))[:, None]
    found = centers + (found - centers) * np.exp(rng.normal(0, 0.15, (detections, 1, 1)))
    found = (found + size * rng.normal(0, 0.1, size.shape)).clip(0, (WIDTH, HEIGHT))
    mistaken = rng.random(detections) < 0.3
    instances = dict(
        bboxes=torch.from_numpy(np.concatenate((found.min(axis=1), found.max(axis=1)), axis=1)).float(),
        scores=torch.from_numpy(rng.random(detections)).float(),
        labels=torch.from_numpy(np.where(mistaken, rng.integers(CLASSES, size=detections), labels[which])),
    )
    if as_rle:
        instances['masks'] = rle.frPyObjects([shape.ravel().tolist() for shape in found], HEIGHT, WIDTH)
    if canvas is not None:
        canvas.fill(0)
        for mask, shape in zip(canvas, found):
            cv2.fillPoly(mask, [shape.round().astype(np.int32)], 1)
        instances['masks'] = torch.from_numpy(canvas.view(bool))
    return dict(img_id=number, ori_shape=(HEIGHT, WIDTH), pred_instances=instances)


if __name__ == '__main__':
    run(main, arguments())
