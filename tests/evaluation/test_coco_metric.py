"""Golden figures are MMDetection's own metric's and, through it, pycocotools'."""

import json

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric as TheirMetric
from pycocotools import mask as rle

from fasternet_mm import CocoMetric
from fasternet_mm.errors import UserError
from fasternet_mm.models.backbone import InvalidArgument

CLASSES = ('cat', 'dog', 'cow')
HEIGHT, WIDTH = 48, 64
PIXELS = np.indices((HEIGHT, WIDTH))
RICH = 67  # a case of three classes with three APs, 9 objects and 48 detections


def ellipse(rng):
    """A mask somewhere in the image, with at least one pixel."""
    center, radii = rng.uniform((4, 4), (HEIGHT - 4, WIDTH - 4)), rng.uniform(1, 40, 2)
    return (((PIXELS - center[:, None, None]) / radii[:, None, None]) ** 2).sum(0) < 1


def annotate(image_id, mask, category_id, crowd):
    encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(
        image_id=image_id,
        category_id=category_id,
        segmentation=dict(size=encoded['size'], counts=encoded['counts'].decode()),
        bbox=rle.toBbox(encoded).tolist(),
        area=float(rle.area(encoded)),
        iscrowd=crowd,
    )


def random_case(seed):
    """Annotations and detections with what makes evaluation difficult; which of it depends on the seed."""
    rng = np.random.default_rng(seed)
    classes = CLASSES[: rng.integers(1, 4)]
    some_crowd, some_ignored, ties = rng.random(3) < 0.5
    annotations, samples = [], []
    for image_id in range(1, 6):
        objects = [ellipse(rng) for _ in range(rng.choice([0, 1, 4]))]
        for mask in objects:
            crowd = int(some_crowd and rng.random() < 0.3)
            annotation = annotate(image_id, mask, 10 * int(rng.integers(1, len(classes) + 1)), crowd)
            annotations.append(annotation | dict(id=len(annotations) + 1))
            if some_ignored and rng.random() < 0.3:
                annotations[-1]['ignore'] = 1
        count = rng.choice([0, 2, 12])
        near = [np.roll(objects[rng.integers(len(objects))], rng.integers(-4, 5, 2), (0, 1)) for _ in objects * 2]
        masks = ([*near, *(ellipse(rng) for _ in range(12))])[:count]
        boxes = [rle.toBbox(rle.encode(np.asfortranarray(mask.astype(np.uint8)))) for mask in masks]
        boxes = torch.tensor(np.array(boxes)).reshape(-1, 4) + torch.tensor(rng.normal(0, 0.7, (len(masks), 4)))
        boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:].clip(0.5)
        scores = torch.tensor(rng.random(len(masks))).round(decimals=1 if ties else 6)
        found = dict(
            bboxes=boxes.float(),
            scores=scores.float(),
            labels=torch.tensor(rng.integers(0, len(classes), len(masks))),
            masks=torch.tensor(np.array(masks, dtype=bool).reshape(-1, HEIGHT, WIDTH)),
        )
        samples.append(dict(img_id=image_id, ori_shape=(HEIGHT, WIDTH), pred_instances=found))
    images = [dict(id=n, height=HEIGHT, width=WIDTH, file_name=f'{n}.png') for n in range(1, 6)]
    categories = [dict(id=10 * n, name=name) for n, name in enumerate(classes, start=1)]
    return dict(images=images, annotations=annotations, categories=categories), classes, samples


def figures(metric, classes, samples):
    metric.dataset_meta = dict(classes=classes)
    for sample in samples:
        metric.process({}, [sample])
    return metric.evaluate(len(samples))


def with_instances(content, samples):
    """The samples, each with the annotations of its image as MMDetection's data sets load them."""
    for sample in samples:
        sample['instances'] = [
            dict(
                bbox=[box[0], box[1], box[0] + box[2], box[1] + box[3]],
                bbox_label=one['category_id'] // 10 - 1,
                ignore_flag=one['iscrowd'],
                mask=one['segmentation'],
            )
            for one in content['annotations']
            if one['image_id'] == sample['img_id'] and (box := one['bbox'])
        ]
    return samples


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / 'truth.json'
        path.write_text(json.dumps(content))
        return str(path)

    return write


OPTIONS = [
    dict(metric=['bbox', 'segm', 'proposal']),
    dict(metric=['segm', 'bbox'], classwise=True, proposal_nums=(1, 3, 100)),
    dict(metric='bbox', iou_thrs=np.array([0.5, 0.6]), metric_items=['mAP', 'mAP_50', 'mAP_75', 'mAP_l', 'AR_s@1000']),
]


@pytest.mark.parametrize('hundred', range(3))
def test_figures_are_mmdetections_on_generated_cases(hundred, write):
    counted = 0
    for seed in range(100 * hundred, 100 * hundred + 100):
        content, classes, samples = random_case(seed)
        ann_file = write(content)
        theirs = figures(TheirMetric(ann_file=ann_file, **OPTIONS[hundred]), classes, samples)
        ours = figures(CocoMetric(ann_file=ann_file, **OPTIONS[hundred]), classes, samples)
        if not theirs:  # without a single detection they give up
            assert not any(len(sample['pred_instances']['scores']) for sample in samples)
            assert all(value <= 0 or np.isnan(value) for value in ours.values())
            continue
        assert list(ours) == list(theirs)
        np.testing.assert_array_equal(list(ours.values()), list(theirs.values()), err_msg=f'seed {seed}: {list(ours)}')
        counted += len(theirs)
    assert counted > 300


@pytest.mark.parametrize('seed', range(20))
def test_annotations_that_come_with_the_samples_give_mmdetections_figures(seed):
    content, classes, samples = random_case(seed)
    with_instances(content, samples)
    if not any(len(sample['pred_instances']['scores']) for sample in samples) or not content['annotations']:
        pytest.skip('MMDetection cannot evaluate it')
    theirs = figures(TheirMetric(metric=['bbox', 'segm']), classes, samples)
    assert figures(CocoMetric(metric=['bbox', 'segm']), classes, samples) == theirs


def test_written_results_are_mmdetections(write, tmp_path):
    content, classes, samples = random_case(RICH)
    for sample in samples:
        sample['pred_instances']['mask_scores'] = sample['pred_instances']['scores'] / 2
    options = dict(ann_file=write(content), metric=['bbox', 'segm'], format_only=True)
    assert figures(CocoMetric(**options, outfile_prefix=str(tmp_path / 'ours')), classes, samples) == {}
    figures(TheirMetric(**options, outfile_prefix=str(tmp_path / 'theirs')), classes, samples)
    for task in ('bbox', 'segm'):
        ours, theirs = (json.loads((tmp_path / f'{whose}.{task}.json').read_text()) for whose in ('ours', 'theirs'))
        assert len(ours) > 10
        assert ours == theirs


def test_a_mask_has_a_score_of_its_own_where_the_model_gives_one(write):
    content, classes, samples = random_case(RICH)
    ann_file = write(content)
    for sample in samples:
        sample['pred_instances']['mask_scores'] = 1 - sample['pred_instances']['scores']
    theirs = figures(TheirMetric(ann_file=ann_file, metric=['bbox', 'segm']), classes, samples)
    assert figures(CocoMetric(ann_file=ann_file, metric=['bbox', 'segm']), classes, samples) == theirs


def test_figures_of_a_class_are_its_own_where_ids_do_not_ascend(write):
    content, classes, samples = random_case(RICH)
    ann_file = write(content)
    ascending = figures(CocoMetric(ann_file=ann_file, classwise=True), classes, samples)
    for part in ('categories', 'annotations'):
        key = 'id' if part == 'categories' else 'category_id'
        for one in content[part]:
            one[key] = 100 - one[key]
    descending = figures(CocoMetric(ann_file=write(content), classwise=True), classes, samples)
    assert len({ascending[f'coco/{name}_precision'] for name in classes}) == 3
    np.testing.assert_equal(descending, ascending)


def test_sorted_categories_number_labels_by_id(write):
    content, classes, samples = random_case(RICH)
    plain = figures(CocoMetric(ann_file=write(content)), classes, samples)
    content['categories'].reverse()
    assert figures(CocoMetric(ann_file=write(content)), classes, samples) != plain
    assert figures(CocoMetric(ann_file=write(content), sort_categories=True), classes, samples) == plain


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(metric='keypoints'), "the task 'keypoints' is unknown: use one or several of bbox, segm, proposal"),
        (dict(metric_items=['mAP50']), "'mAP50', which is unknown"),
        (dict(format_only=True), 'needs outfile_prefix'),
    ],
)
def test_a_wrong_option_is_refused(options, message, write):
    with pytest.raises(InvalidArgument, match=message):
        CocoMetric(ann_file=write(random_case(0)[0]), **options)


def test_masks_that_annotations_or_model_lack_are_named(write):
    content, classes, samples = random_case(RICH)
    for one in content['annotations'][2:]:
        del one['segmentation']
    count = len(content['annotations'])
    with pytest.raises(
        UserError, match=rf'annotation 2 \(id 3\) has no mask .* \({count - 2} of {count} are bad, counted from 0\)'
    ):
        CocoMetric(ann_file=write(content), metric=['bbox', 'segm'])
    for sample in samples:
        del sample['pred_instances']['masks']
    with pytest.raises(UserError, match="take 'segm' out"):
        figures(CocoMetric(ann_file=write(random_case(RICH)[0]), metric='segm'), classes, samples)


@pytest.mark.parametrize(
    ('what', 'message'),
    [
        ('image', r'the detections: detection \d+ is of image 77, which .*truth.json lacks'),
        ('text', "an image has the id '1.png': COCO needs whole numbers"),
        ('label', 'the model found label 3, but the annotations have 3 of its classes'),
        ('negative label', 'the model found label -1, but'),
        ('mask', r'detection 0 has a mask of \[64, 48\] pixels, but .* says \[48, 64\] of image 1'),
    ],
)
def test_detections_that_would_spoil_the_figures_are_refused(what, message, write):
    content, classes, samples = random_case(RICH)
    broken = next(sample for sample in samples if len(sample['pred_instances']['scores']))
    if what == 'image':
        broken['img_id'] = 77
    elif what == 'text':
        broken['img_id'] = '1.png'
    elif what == 'mask':
        broken['pred_instances']['masks'] = broken['pred_instances']['masks'].transpose(1, 2)
    else:
        broken['pred_instances']['labels'][0] = dict(label=3).get(what, -1)
    with pytest.raises(UserError, match=message):
        figures(CocoMetric(ann_file=write(content), metric=['bbox', 'segm']), classes, samples)


@pytest.mark.parametrize('number', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('what', ['scores', 'bboxes', 'mask_scores'])
def test_detections_that_are_not_finite_count_nowhere_and_are_said(what, number, write, logged_warnings):
    """They count as the same detections without them: MMDetection's figures of the others."""
    content, classes, samples = random_case(RICH)
    options = dict(ann_file=write(content), metric=['bbox', 'segm'])
    for sample in samples:
        sample['pred_instances']['mask_scores'] = sample['pred_instances']['scores'].clone()
    spoiled = [sample for sample in samples if len(sample['pred_instances']['scores']) > 3]
    whole = [sample['pred_instances'] for sample in spoiled]
    for sample, instances in zip(spoiled, whole):
        sample['pred_instances'] = {name: value[2:] for name, value in instances.items()}
    expected = figures(TheirMetric(**options), classes, samples)
    for sample, instances in zip(spoiled, whole):
        instances[what][:2] = number
        sample['pred_instances'] = instances
    assert figures(CocoMetric(**options), classes, samples) == expected
    count = sum(len(sample['pred_instances']['scores']) for sample in samples)
    first = spoiled[0]['img_id']
    assert [warning.split('; if')[0] for warning in logged_warnings()] == [
        f'{2 * len(spoiled)} of {count} detections have a box or score that is not finite, and count nowhere; '
        f'the first is of image {first}'
    ]


def test_a_validation_of_nothing_but_nan_scores_nothing(write):
    content, classes, samples = random_case(RICH)
    for sample in samples:
        sample['pred_instances']['scores'][:] = float('nan')
    found = figures(CocoMetric(ann_file=write(content), metric=['bbox', 'segm']), classes, samples)
    assert (found['coco/bbox_mAP'], found['coco/segm_mAP']) == (0, 0)


def test_images_without_detections_may_have_floating_point_labels_and_no_masks(write):
    """As models give them: `torch.zeros(0)` is of floats."""
    content, classes, samples = random_case(RICH)
    nothing = dict(bboxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0), masks=torch.zeros(0))
    for sample in samples[:2]:
        sample['pred_instances'] = dict(nothing)
    options = dict(ann_file=write(content), metric=['bbox', 'segm'])
    assert figures(CocoMetric(**options), classes, samples) == figures(TheirMetric(**options), classes, samples)


@pytest.mark.parametrize('first', [10**18, 2**63 - 6, -3])
@pytest.mark.parametrize('with_ann_file', [True, False])
def test_figures_do_not_depend_on_the_size_of_image_ids(first, with_ann_file, write):
    """From 2**53 on a float64 does not have all integers."""
    content, classes, samples = random_case(RICH)
    theirs = figures(TheirMetric(ann_file=write(content), metric=['bbox', 'segm', 'proposal']), classes, samples)
    for record in (*content['images'], *content['annotations'], *samples):
        key = next(key for key in ('img_id', 'image_id', 'id') if key in record)
        record[key] += first
    if not with_ann_file:
        theirs = figures(TheirMetric(metric=['bbox', 'segm', 'proposal']), classes, with_instances(content, samples))
    ann_file = write(content) if with_ann_file else None
    ours = CocoMetric(ann_file=ann_file, metric=['bbox', 'segm', 'proposal'])
    assert figures(ours, classes, samples) == theirs
    assert theirs['coco/bbox_mAP'] > 0.1


def test_detections_in_half_precision_count_as_their_numbers():
    truth = dict(bbox=[2, 4, 10, 12], bbox_label=0)
    for dtype in (torch.float16, torch.bfloat16):
        found = dict(
            bboxes=torch.tensor([[2, 4, 10, 12]], dtype=dtype),
            scores=torch.tensor([0.5], dtype=dtype),
            labels=torch.tensor([0]),
        )
        metric = CocoMetric()
        metric.dataset_meta = dict(classes=('cat',))
        metric.process({}, [dict(img_id=1, ori_shape=(20, 20), instances=[truth], pred_instances=found)])
        assert metric.evaluate(size=1)['coco/bbox_mAP'] == 1
