"""Mistakes made in good labels, and how many of them the ranking of suspicious labels finds.

As a program, it measures that with a trained model's predictions for the embedded data's test images, which no training
sees:

    python tests/planted_errors.py work_dirs/rtmdet_ins_fasternet_t0_shapes
"""

import copy
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from pycocotools import mask as rle

KINDS = ('wrong class', 'shifted box', 'missing label', 'superfluous label')
SHARE = 0.05
"""How many mistakes are made, as a share of the labels."""

TOP = 0.1
"""How much of the list is looked through, as a share of the labels."""

REPETITIONS = 40
"""Other labels are spoiled each time: one time has only 18 mistakes in 367 labels."""


def plant(content, rng, share=SHARE):
    """COCO annotations with mistakes, and these: ``(kind, annotation's id or None, image's id, box)``.

    A quarter of each kind: another class; a box moved by half of its width, height or both; no label; a label where no
    other object is. All masks are taken away: they would betray a moved box.
    """
    content = copy.deepcopy(content)
    annotations = content['annotations']
    for annotation in annotations:
        annotation.pop('segmentation', None)
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    classes = [category['id'] for category in content['categories']]
    spoiled = rng.choice(len(annotations), round(share * len(annotations)), replace=False)
    planted, removed = [], set()
    for number, place in enumerate(spoiled.tolist()):
        kind, label = KINDS[number % len(KINDS)], annotations[place]
        image_id, box = label['image_id'], list(label['bbox'])
        if kind == 'wrong class':
            label['category_id'] = int(rng.choice([other for other in classes if other != label['category_id']]))
        elif kind == 'shifted box':
            label['bbox'] = box = _moved(box, sizes[image_id], rng)
        elif kind == 'missing label':
            removed.add(label['id'])
        else:
            others = [a['bbox'] for a in annotations if a['image_id'] == image_id]
            label = dict(label, id=len(annotations) + 1, category_id=int(rng.choice(classes)))
            label['bbox'] = box = _free(others, label['bbox'][2:], sizes[image_id], rng)
            label['area'] = box[2] * box[3]
            annotations.append(label)
        planted.append((kind, None if kind == 'missing label' else label['id'], image_id, box))
    content['annotations'] = [annotation for annotation in annotations if annotation['id'] not in removed]
    return content, planted


def _moved(box, size, rng):
    """A box half of its width, its height or both away, in the image where there is room."""
    axes = [(0,), (1,), (0, 1)][rng.integers(3)]
    moved = list(box)
    for axis in axes:
        way = box[2 + axis] / 2 * rng.choice([-1, 1])
        inside = 0 <= box[axis] + way <= size[axis] - box[2 + axis]
        moved[axis] += float(way if inside else -way)
    return moved


def _free(others, extent, size, rng):
    """A box of this width and height that is hardly on another one."""
    boxes = [[*(rng.uniform(0, 1, 2) * np.subtract(size, extent)).tolist(), *extent] for _ in range(500)]
    overlaps = rle.iou(np.array(boxes), np.array(others), [False] * len(others)).max(axis=1)
    return boxes[int(np.argmax(overlaps < 0.05) if (overlaps < 0.05).any() else overlaps.argmin())]


def found(planted, suspects, annotation_ids):
    """Those of the planted mistakes that are among the suspects, whatever kind these say.

    Args:
        planted: as from `plant`.
        suspects: the first part of the list.
        annotation_ids: of each annotation of the file, in its order: `CocoTruth` numbers them anew.
    """
    suspected = {annotation_ids[suspect.annotation['id'] - 1] for suspect in suspects if suspect.annotation}
    places = [(suspect.image_id, suspect.box) for suspect in suspects if suspect.annotation is None]

    def is_found(mistake):
        _, annotation_id, image_id, box = mistake
        if annotation_id is not None:
            return annotation_id in suspected
        boxes = [place for number, place in places if number == image_id]
        return bool(boxes) and rle.iou(np.array([box]), np.array(boxes), [False] * len(boxes)).max() >= 0.5

    return [mistake for mistake in planted if is_found(mistake)]


def measure(content, results, repetitions=REPETITIONS):
    """Planted and found mistakes by kind, and the share that was found of each repetition."""
    from fasternet_mm.evaluation.coco_truth import to_truth
    from fasternet_mm.report.suspicious_labels import rank_labels

    totals, hits, shares = Counter(), Counter(), []
    for seed in range(repetitions):
        spoiled, planted = plant(content, np.random.default_rng(seed))
        suspects = rank_labels(to_truth(spoiled, 'the spoiled labels'), results)
        ids = [annotation['id'] for annotation in spoiled['annotations']]
        those = found(planted, suspects[: int(TOP * len(content['annotations']))], ids)
        totals.update(kind for kind, *_ in planted)
        hits.update(kind for kind, *_ in those)
        shares.append(len(those) / len(planted))
    return totals, hits, shares


def main(work_dir, data='data/shapes'):
    from fasternet_mm.datasets.shapes import ensure_shapes
    from fasternet_mm.evaluation.coco_results import read_results
    from fasternet_mm.evaluation.coco_truth import to_truth
    from fasternet_mm.inference.predictor import Predictor

    root = ensure_shapes(data)
    content = json.loads(Path(root, 'annotations/test.json').read_text())
    images = {str(Path(root, 'images/test', image['file_name'])): image['id'] for image in content['images']}
    records = [
        {key: value for key, value in record.items() if key != 'segmentation'}
        for prediction in Predictor(work_dir).stream(images)
        for record in prediction.to_coco(images[prediction.source])
    ]
    totals, hits, shares = measure(content, read_results(records, to_truth(content, 'the labels')))
    count = len(content['annotations'])
    print(f'{count} labels, {REPETITIONS} times {SHARE:.0%} spoiled; found among the first {int(TOP * count)}:')
    for kind in KINDS:
        print(f'{kind:20}{hits[kind]:5} of {totals[kind]}: {hits[kind] / totals[kind]:.1%}')
    print(f'{"all":20}{hits.total():5} of {totals.total()}: {hits.total() / totals.total():.1%}')
    print(f'of the {REPETITIONS} times the worst {min(shares):.1%}, the best {max(shares):.1%}')


if __name__ == '__main__':
    main(*sys.argv[1:])
