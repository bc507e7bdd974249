"""What the table counts is what one epoch of the built loader hands to a model, whatever the layout and its faults."""

import json
from collections import Counter

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from own_layouts import (
    BOXES,
    CLASSES,
    POLYGONS,
    made,
    write_coco,
    write_images,
    write_json,
    write_labelme,
    write_via,
    write_voc,
    write_yolo,
)
from own_plans import fresh_config, planned

from fasternet_mm.own_data.layouts.recognition import read_own_data
from fasternet_mm.own_data.plan.config_writing import use_data
from fasternet_mm.own_data.plan.data_checks import check_own_data
from fasternet_mm.own_data.plan.recipe import choose_recipe
from fasternet_mm.own_data.plan.summary import summary_table

FASTER_RCNN = 'configs/faster_rcnn_fasternet_t0.py'
MASK_RCNN = 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py'
UPERNET = 'configs/shapes/upernet_fasternet_t0_shapes.py'
OPTIONS = ['model.backbone.init_cfg=None']


def table_counts(data, split):
    """Of the table as it is printed: each row's number for a split, by the row's title."""
    rows = [
        [cell.strip() for cell in line.split('|')[1:-1]] for line in summary_table(data).splitlines() if '|' in line
    ]
    column = rows[0].index(split)
    return {row[0]: int(row[column]) for row in rows[1:]}


def loaded(cfg, split):
    """What one epoch over a part yields: numbers of images and objects, by class, and of what is ignored."""
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    counts = Counter(images=len(dataset))
    for number in range(len(dataset)):
        sample = dataset[number]['data_samples']
        names = [dataset.metainfo['classes'][label] for label in sample.gt_instances.labels]
        counts.update(f'class {name}' for name in names)
        counts['objects'] += len(names)
        counts['ignored'] += len(sample.ignored_instances.bboxes)
        counts['nothing'] += not len(names) + len(sample.ignored_instances.bboxes)
    return counts


def compare(data, cfg):
    for split in data.splits:
        counts, yielded = table_counts(data, split), loaded(cfg, split)
        for name in data.classes:
            assert counts[f'class {name}'] == yielded[f'class {name}'], (split, name)
        objects = counts.get('objects with outlines', 0) + counts.get('objects with boxes', 0)
        assert objects == yielded['objects']
        assert counts.get('crowds or difficult, neither trained nor scored', 0) == yielded['ignored']
        assert counts['images'] == yielded['images']
        assert counts['images without annotations'] == yielded['nothing']


def data_and_config(config, folder, work_dir):
    cfg, plan = planned(config, folder, work_dir, OPTIONS, size=(48, 64), without=['mosaic'])
    return plan.data, cfg


@pytest.mark.parametrize('layout', BOXES)
def test_boxes_of_every_layout(layout, tmp_path):
    splits = made(train=8, val=4, masks=False)
    BOXES[layout](tmp_path / 'data', splits)
    data, cfg = data_and_config(FASTER_RCNN, tmp_path / 'data', tmp_path / 'out')
    assert sum(data.class_counts['train']) == sum(map(len, splits['train'].values()))
    compare(data, cfg)


@pytest.mark.parametrize('layout', POLYGONS)
def test_outlines_of_every_layout(layout, tmp_path):
    splits = made(train=8, val=4)
    POLYGONS[layout](tmp_path / 'data', splits)
    data, cfg = data_and_config(MASK_RCNN, tmp_path / 'data', tmp_path / 'out')
    assert sum(data.class_counts['train']) == sum(map(len, splits['train'].values()))
    compare(data, cfg)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_difficult_objects_of_pascal_voc(tmp_path):
    write_voc(tmp_path / 'data', made(train=8, val=4, masks=False))
    for number, file in enumerate(sorted((tmp_path / 'data/Annotations').iterdir())):
        count = (0, 1, 9)[number % 3]  # none, one or all of a file
        file.write_text(file.read_text().replace('<difficult>0', '<difficult>1', count))
    data, cfg = data_and_config(FASTER_RCNN, tmp_path / 'data', tmp_path / 'out')
    assert len(data.ignored_regions['train']) > 2
    compare(data, cfg)


@pytest.mark.parametrize('config', [FASTER_RCNN, MASK_RCNN])
def test_crowds_rle_and_tiny_boxes_of_coco(config, tmp_path):
    write_coco(tmp_path / 'data', made(train=9, val=4))
    whole = np.zeros((48, 64), np.uint8)
    whole[5:20, 7:30] = 1
    edges = np.flatnonzero(np.diff(np.r_[0, whole.ravel('F'), 0]))
    counts = np.diff(np.r_[0, edges, whole.size]).tolist()

    def change(content):
        for number, record in enumerate(content['annotations']):
            record.update(
                (
                    dict(iscrowd=1),
                    dict(segmentation=dict(size=[48, 64], counts=counts), bbox=None),
                    dict(segmentation=[], iscrowd='1'),
                    dict(bbox=[3, 3, 0.9, 20], segmentation=[]),
                    {},
                )[number % 5]
            )

    edit(tmp_path / 'data/annotations/instances_train2017.json', change)
    data, cfg = data_and_config(config, tmp_path / 'data', tmp_path / 'out')
    assert data.with_masks
    assert len(data.ignored_regions['train']) == 5
    compare(data, cfg)


def test_brush_masks_are_trained_with_their_masks(tmp_path):
    write_images(tmp_path / 'data', ['p00000.png'])
    mask = dict(size=[48, 64], counts=[48 * 10 + 20, 5, 43, 5, 48 * 54 - 73])
    record = dict(id=1, image_id=1, category_id=1, segmentation=mask, bbox=[10, 20, 2, 5], area=10, iscrowd=1)
    images = [dict(id=1, file_name='p00000.png', width=64, height=48)]
    write_json(
        tmp_path / 'data/a.json', dict(images=images, annotations=[record], categories=[dict(id=1, name='leaf')])
    )
    data, cfg = data_and_config(MASK_RCNN, tmp_path / 'data', tmp_path / 'out')
    compare(data, cfg)
    sample = DATASETS.build(cfg.val_dataloader.dataset)[0]['data_samples'].gt_instances
    assert sample.masks.masks.sum() == 10


def test_label_maps(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (('train', 10), ('val', 3)):
        for kind in ('images', 'labels'):
            (tmp_path / 'data' / kind / split).mkdir(parents=True)
        for number in range(count):
            # Of a class a square, or nothing; the last index does not count.
            labels = np.zeros((48, 64), np.uint8)
            for label in (1, 2, 255):
                if generator.random() < 0.5:
                    labels[10 * (label % 4) : 10 * (label % 4) + 8, 5:40] = label
            cv2.imwrite(str(tmp_path / f'data/labels/{split}/{number}.png'), labels)
            image = np.full((48, 64, 3), 20 * number + (split == 'val'), np.uint8)
            cv2.imwrite(str(tmp_path / f'data/images/{split}/{number}.png'), image)
    (tmp_path / 'data/classes.txt').write_text('ground\ncat\nbird\n')
    data, cfg = data_and_config(UPERNET, tmp_path / 'data', tmp_path / 'out')
    init_default_scope('mmseg')
    for split in ('train', 'val'):
        config = {**cfg[f'{split}_dataloader'].dataset}
        config['pipeline'] = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
        dataset = DATASETS.build(config)
        yielded = Counter()
        for number in range(len(dataset)):
            values = dataset[number]['data_samples'].gt_sem_seg.data.unique().tolist()
            yielded.update(dataset.metainfo['classes'][value] for value in values if value != 255)
        counts = table_counts(data, split)
        assert counts['images'] == len(dataset)
        assert {name: counts[f'label maps with {name}'] for name in data.classes} == dict(yielded)


# Generated data with random faults


def faulty(generator):
    """A COCO record's changes: what tools and people get wrong, and much that is sound."""
    x, y, w, h = map(int, (*generator.integers(0, 40, 2), *generator.integers(2, 20, 2)))
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    mask = dict(size=[48, 64], counts=[48 * x + y, 5, 48 * (64 - x) - y - 5])
    changes = [
        {},
        {},
        {},
        dict(iscrowd=1),
        dict(iscrowd='0'),
        dict(iscrowd=True, segmentation=[]),
        dict(ignore=1),
        dict(bbox=[x, y, 0.5, h], segmentation=[]),
        dict(bbox=[x, y, w, 0]),
        dict(bbox=[x + w, y, -w, h]),
        dict(bbox=[x - 30, y, 40, h], segmentation=[]),
        dict(bbox=[x + 0.123456, y + 0.987654, w, 1.0049], segmentation=[]),
        dict(bbox=[x + 0.5, y + 0.5, w + 0.005, 0.996], segmentation=[]),
        dict(bbox=[63.5, 47.5, w, h], segmentation=[]),
        dict(bbox=[62.995, 20, w, h], segmentation=[]),
        dict(segmentation=[[x, y, x + w, y + h]]),
        dict(segmentation=[[x, y, x + w, y + h]], bbox=None),
        dict(segmentation=[[x, y, x + w, y + h, x + w, y, x, y + h]]),
        dict(segmentation=[[x - 30, y, x + w, y + h, x + w, y, x, y + h]], bbox=None),
        dict(segmentation=[polygon, [x, y]]),
        dict(segmentation=[[*polygon, 3]]),
        dict(segmentation=[[x, y, x + w, y + h, x + w / 2, y + h / 2]], bbox=None),
        dict(segmentation=[[x, y, x + w, y + 0.01, x + w, y + 1.2, x, y + 1.1]], bbox=None),
        dict(segmentation=mask),
        dict(segmentation=mask, bbox=None),
        dict(segmentation=mask, iscrowd=1),
        dict(segmentation=mask, iscrowd=1, attributes={}),
        dict(segmentation=[[]]),
        dict(id=100),
        dict(area=-1),
        dict(area=0),
    ]
    refused = [
        dict(iscrowd='x'),
        dict(image_id=999),
        dict(category_id=99),
        dict(bbox=[100, 100, w, h], segmentation=[]),
        dict(bbox=[x, y, float('nan'), h], segmentation=[]),
    ]
    choices = refused if generator.random() < 0.01 else changes
    return dict(bbox=[x, y, w, h], segmentation=[polygon]) | choices[generator.integers(len(choices))]


def generated(generator):
    """The annotations of 4 images with up to 5 objects each."""
    return [
        dict(id=500 + 10 * k + n, image_id=7 + k, category_id=int(generator.integers(1, 4)), area=1, iscrowd=0)
        | faulty(generator)
        for k in range(4)
        for n in range(generator.integers(0, 6))
    ]


def write_generated_coco(folder, annotations):
    write_images(folder, NAMES)
    images = [dict(id=7 + k, file_name=name, width=64, height=48) for k, name in enumerate(NAMES)]
    categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, start=1)]
    write_json(folder / 'a.json', dict(images=images, annotations=annotations, categories=categories))


def write_generated(write, folder, annotations):
    """What of the annotations another layout can hold."""
    images = {name: [] for name in NAMES}
    for record in annotations:
        outline, box = record['segmentation'], record['bbox']
        polygon = outline[0] if isinstance(outline, list) and outline and len(outline[0]) % 2 == 0 else None
        if record['image_id'] < 11 and record['category_id'] < 4 and (box or polygon):
            images[f'p{record["image_id"] - 7:05d}.png'].append(
                (CLASSES[record['category_id'] - 1], box or [1, 2, 3, 4], polygon)
            )
    write(folder, {'train': images})
    for file in sorted(folder.glob('Annotations/*.xml'))[::2]:
        file.write_text(file.read_text().replace('<difficult>0', '<difficult>1', 1))


NAMES = [f'p0000{k}.png' for k in range(4)]
OTHERS = [write_voc, write_yolo, write_labelme, write_via]


@pytest.mark.slow
def test_40_generated_data_sets_with_random_faults(tmp_path):
    configs = {masks: fresh_config(MASK_RCNN if masks else FASTER_RCNN, OPTIONS) for masks in (False, True)}
    recipe, accepted = None, Counter()
    for seed in range(40):
        folder, annotations = tmp_path / str(seed), generated(np.random.default_rng(seed))
        if seed % 2:
            write_generated(OTHERS[seed // 2 % 4], folder, annotations)
        else:
            write_generated_coco(folder, annotations)
        data = read_own_data(str(folder), True)
        if any(problem.severe for problem in check_own_data(data).problems):
            continue
        cfg = configs[data.with_masks]
        data.splits.setdefault('val', data.splits['train'])
        recipe = recipe or choose_recipe('detection', 4, 1, 1, 0.1, 1, (48, 64), '', without=['mosaic', 'color'])
        use_data(cfg, data, recipe, folder)
        dataset = cfg.train_dataloader.dataset
        dataset.pipeline = [*dataset.pipeline[:2], dict(type='PackDetInputs', meta_keys=())]
        dataset.serialize_data = False  # which takes the most time of all
        compare(data, cfg)
        accepted[data.layout, data.with_masks] += 1
    assert accepted.total() > 24
    assert {layout for layout, _ in accepted} == {'COCO', 'Pascal VOC', 'YOLO', 'LabelMe', 'VIA'}
    assert min(accepted['COCO', False], accepted['COCO', True], accepted['VIA', True]) > 0
