import json

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fasternet_mm import CocoMetric, evaluate
from fasternet_mm.datasets import shapes
from fasternet_mm.errors import UserError
from fasternet_mm.evaluation.coco_evaluation import evaluate_tasks
from fasternet_mm.evaluation.coco_results import category_ids, encode_masks, read_results, to_coco_results
from fasternet_mm.evaluation.coco_truth import read_truth
from fasternet_mm.evaluation.table import class_table, metric_table
from fasternet_mm.models.backbone import InvalidArgument


@pytest.fixture
def truth(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, 'SPLITS', {'val': 4})
    return COCO(shapes.ensure_shapes(tmp_path / 'shapes') / 'annotations' / 'val.json')


def perfect(truth, image_id):
    """What a detector without error would answer."""
    annotations = truth.imgToAnns[image_id]
    boxes = torch.tensor([a['bbox'] for a in annotations], dtype=torch.float)
    boxes[:, 2:] += boxes[:, :2]
    return InstanceData(
        bboxes=boxes,
        labels=torch.tensor([a['category_id'] - 1 for a in annotations]),
        scores=torch.linspace(0.9, 0.5, len(annotations)),
        masks=torch.from_numpy(np.stack([truth.annToMask(a) for a in annotations])).bool(),
    )


@pytest.fixture
def results(truth, tmp_path):
    """A results file, written by the metric."""
    path = tmp_path / 'results.json'
    metric = CocoMetric(str(tmp_path / 'shapes/annotations/val.json'), results_file=path)
    metric.dataset_meta = dict(classes=shapes.CLASSES)
    samples = [dict(img_id=image_id, pred_instances=perfect(truth, image_id)) for image_id in truth.imgs]
    metric.process({}, samples)
    assert metric.evaluate(size=len(samples))['coco/bbox_mAP'] == 1
    return path


def test_the_public_function_gives_pycocotools_figures_of_files_and_of_records(truth, results, tmp_path):
    records = json.loads(results.read_text())
    del records[::3]
    records[0]['category_id'] = records[0]['category_id'] % 6 + 1
    annotations = tmp_path / 'shapes/annotations/val.json'
    results.write_text(json.dumps(records))
    figures = evaluate(results, annotations, classwise=True)
    assert list(figures) == ['bbox', 'segm']
    for task, values in figures.items():
        theirs = COCOeval(truth, truth.loadRes(str(results)), task)
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
        classes = values.pop('classes')
        assert 0 < values['mAP'] < 1
        assert [*values.values()] == pytest.approx(theirs.stats)
        counted = [precisions[0] for precisions in classes.values() if precisions[0] > -1]
        assert np.mean(counted) == pytest.approx(values['mAP'])
        assert evaluate(records, read_truth(annotations), task) == {task: values}
    with pytest.raises(InvalidArgument, match="the task 'boxes' is unknown: use one or several of bbox, segm"):
        evaluate(results, annotations, ['boxes'])
    with pytest.raises(UserError, match='the list of detections is empty'):
        evaluate([], annotations)


def test_perfect_detections_score_one_in_pycocotools(truth, results):
    found = truth.loadRes(str(results))
    assert len(found.anns) == len(truth.anns)
    for task in ('bbox', 'segm'):
        evaluation = COCOeval(truth, found, task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1)


@pytest.mark.parametrize('task', ['bbox', 'segm'])
def test_all_figures_of_a_results_file_are_pycocotools(task, truth, results, tmp_path):
    rng = np.random.default_rng(3)
    records = json.loads(results.read_text())
    for record in records:
        record['score'] = round(rng.random(), 2)
        record['bbox'] = (np.array(record['bbox']) + rng.normal(0, 3, 4)).clip(1).tolist()
        shifted = np.roll(rle.decode(record['segmentation']), rng.integers(-4, 5), 1)
        record['segmentation']['counts'] = rle.encode(np.asfortranarray(shifted))['counts'].decode()
        if task == 'segm':  # else pycocotools takes the boxes' areas for the masks'
            del record['bbox']
    path = tmp_path / 'shifted.json'
    path.write_text(json.dumps(records))
    theirs = COCOeval(truth, truth.loadRes(str(path)), task)
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    ours = read_truth(tmp_path / 'shapes/annotations/val.json')
    summary = evaluate_tasks(ours, read_results(path, ours), [task])[task].summary()
    assert 0.3 < summary['mAP'] < 0.9
    np.testing.assert_allclose(list(summary.values()), theirs.stats, rtol=0, atol=1e-9)


def blob(rng, height, width):
    """A detector's mask: an ellipse somewhere, maybe over the edges."""
    center, radii = rng.uniform(0, (height, width)), rng.uniform(1, 30, 2)
    return (((np.indices((height, width)) - center[:, None, None]) / radii[:, None, None]) ** 2).sum(0) < 1


def test_masks_are_encoded_byte_for_byte_as_by_pycocotools():
    rng = np.random.default_rng(0)
    masks = [blob(rng, 37, 53) for _ in range(200)]
    masks += [rng.random((37, 53)) < share for share in (0, 0.001, 0.01, 0.5, 0.99, 1)]
    runs = np.zeros((53, 37), bool)  # of whole columns, and at the first and last pixels
    for start, stop in ((0, 37), (1, 37), (1924, 1961), (1923, 1961), (1960, 1961), (0, 1961), (36, 38), (74, 185)):
        masks.append(runs.copy().T)
        masks[-1].T.flat[start:stop] = True
    masks += [~mask for mask in masks]
    stack = np.stack(masks)
    for layout in (stack, np.asfortranarray(stack), stack.repeat(2, 2)[:, :, ::2], stack[:, ::-1, ::-1][:, ::-1, ::-1]):
        assert encode_masks(layout) == [rle.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


@pytest.mark.parametrize('shape', [(1, 1), (1, 5), (5, 1), (2, 2)])
def test_all_masks_of_tiny_images_are_encoded_as_by_pycocotools(shape):
    pixels = shape[0] * shape[1]
    masks = (np.arange(2**pixels)[:, None] >> np.arange(pixels) & 1).astype(bool).reshape(-1, *shape)
    assert encode_masks(masks) == [rle.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    assert encode_masks(masks[:0]) == []


def test_records_have_the_annotation_files_category_ids():
    found = InstanceData(bboxes=torch.tensor([[1.0, 2, 4, 8]]), labels=torch.tensor([1]), scores=torch.tensor([0.25]))
    records = to_coco_results(found, 5, [3, 7]).records()
    assert records == [dict(image_id=5, category_id=7, bbox=[1, 2, 3, 6], score=0.25)]


def test_ids_of_classes(tmp_path):
    from mmdet.datasets import CocoDataset

    categories = [dict(id=3, name='cat'), dict(id=5, name='cow'), dict(id=7, name='dog')]
    (tmp_path / 'a.json').write_text(json.dumps(dict(images=[], annotations=[], categories=categories)))
    assert category_ids(str(tmp_path / 'a.json'), ['cat', 'dog']) == [3, 7]
    assert category_ids(str(tmp_path / 'a.json'), ['dog', 'cat', 'cow']) == [7, 3, 5]
    assert category_ids(str(tmp_path / 'a.json'), ['dog', 'horse']) == [1, 2]  # it is of other data
    assert category_ids('nowhere.json', ['cat', 'dog']) == [1, 2]
    of_coco = category_ids('nowhere.json', CocoDataset.METAINFO['classes'])
    # Known ids from the COCO annotations: stop sign 13, dining table 67, toothbrush 90.
    names = dict(zip(CocoDataset.METAINFO['classes'], of_coco))
    assert (names['person'], names['stop sign'], names['dining table'], names['toothbrush']) == (1, 13, 67, 90)


BAD_RECORDS = [
    (dict(image_id=99), r'image_id 99, which .*val.json lacks'),
    (dict(image_id='1'), "image_id '1', which"),
    (dict(category_id=7), 'category_id 7, which'),
    (dict(score=float('nan')), 'score nan: a finite number'),
    (dict(score=None), 'score None'),
    (dict(score=10**400), 'score 10{400}: a finite number'),
    (dict(bbox=[1, 2, 3]), r'bbox \[1, 2, 3\]: x, y, width, height'),
    (dict(bbox=[1, 2, -3, 4]), 'sizes not below 0'),
    (dict(bbox=[1, 2, float('inf'), 4]), 'has bbox'),
    (dict(segmentation=[[1, 2, 3, 4, 5, 6]]), 'not RLE'),
    (dict(segmentation=dict(size=[3, 4], counts='0')), r'mask of size \[3, 4\], its image \[160, 160\]'),
    (dict(segmentation=dict(size=[160, 160], counts='zz~')), 'counts end before the image'),
    (dict(segmentation=dict(size=[160, 160], counts=[30000])), 'malformed mask'),
    (dict(segmentation=dict(size=[160, 160], counts='é')), 'malformed mask'),
    (dict(segmentation=dict(size=[160, 160], counts=[25000])), 'counts end before the image'),
]


@pytest.mark.parametrize(('change', 'message'), BAD_RECORDS)
def test_the_first_bad_record_and_the_number_of_them_are_named(change, message, results, tmp_path):
    records = json.loads(results.read_text())
    for record in records[2:5]:
        record.update(change)
    results.write_text(json.dumps(records))
    truth = read_truth(tmp_path / 'shapes/annotations/val.json')
    with pytest.raises(UserError, match=f'detection 2 .*{message}') as raised:
        read_results(results, truth)
    assert str(raised.value).endswith(f'(3 of {len(records)} are bad, counted from 0)')


@pytest.mark.parametrize('key', ['image_id', 'score', 'bbox', 'segmentation'])
def test_a_record_that_lacks_what_the_others_have_is_named(key, results, tmp_path):
    records = json.loads(results.read_text())
    del records[1][key]
    results.write_text(json.dumps(records))
    with pytest.raises(UserError, match=r'detection 1 lacks .* \(1 of'):
        read_results(results, read_truth(tmp_path / 'shapes/annotations/val.json'))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', 'is empty: a COCO results file'),
        ('[]', 'is empty: there are no detections'),
        ('{"image_id": 1', 'is not JSON'),
        ('{"annotations": []}', 'holds COCO annotations, not a list of detections: give the results first'),
        ('[1, 2]', 'detection 0 lacks'),
    ],
)
def test_a_file_that_is_no_list_of_detections_is_refused(content, message, truth, tmp_path):
    (tmp_path / 'a.json').write_text(content)
    with pytest.raises(UserError, match=message):
        read_results(tmp_path / 'a.json', read_truth(tmp_path / 'shapes/annotations/val.json'))


def test_results_in_the_place_of_annotations_are_refused_and_the_order_is_said(tmp_path):
    (tmp_path / 'results.json').write_text('[{}]')
    with pytest.raises(UserError, match=r'results.json holds a list, .*: give the results first'):
        read_truth(tmp_path / 'results.json')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(segmentation=[]), r'\(id 2\) has no mask'),
        (dict(segmentation=[[1, 2, 3, 4]]), 'fewer than three points'),
        (dict(segmentation=dict(size=[160, 160], counts=[5])), 'counts end before the image'),
        (dict(segmentation=dict(size=[9, 160], counts=[1440])), 'of size'),
        (dict(bbox=None), 'bbox None'),
        (dict(area=float('nan')), 'area nan'),
    ],
)
def test_the_first_bad_annotation_and_the_number_of_them_are_named(change, message, truth, tmp_path):
    path = tmp_path / 'shapes/annotations/val.json'
    content = json.loads(path.read_text())
    content['annotations'][1].update(change)
    path.write_text(json.dumps(content))
    count = len(content['annotations'])
    with pytest.raises(UserError, match=rf'annotation 1 .*{message}.* \(1 of {count} are bad, counted from 0\)'):
        read_truth(path).check_masks()


def test_annotations_of_other_types_are_refused(truth, tmp_path):
    path = tmp_path / 'shapes/annotations/val.json'
    content = json.loads(path.read_text())
    content['annotations'][1].update(segmentation=dict(size=[160, 160], counts=[-1]))
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r'val.json is not COCO annotations: .*annotations\[1\]'):
        read_truth(path)


@pytest.mark.parametrize(
    ('part', 'change', 'message'),
    [
        ('images', dict(id='7'), r"image 1 has the id '7': a whole number from -9223372036854775808 to"),
        ('images', dict(id=2**63), 'image 1 has the id 9223372036854775808: a whole number'),
        ('images', dict(id=1.5), 'image 1 has the id 1.5: a whole number'),
        ('images', dict(id=True), 'image 1 has the id True: a whole number'),
        ('images', dict(id=1), 'image 1 has the id 1, which another one has too: number them anew'),
        ('categories', dict(id=2**53 + 1), 'category 1 has the id 9007199254740993: a whole number from 0'),
        ('categories', dict(id=-1), 'category 1 has the id -1: a whole number from 0'),
        ('categories', dict(id=1), 'category 1 has the id 1, which another one has too'),
        ('annotations', dict(image_id='1'), r"annotation 1 \(id 2\) has the image_id '1': a whole number"),
        ('annotations', dict(category_id=None), r'annotation 1 \(id 2\) has the category_id None: a whole number'),
    ],
)
def test_ids_that_are_no_numbers_or_not_unique_are_refused(part, change, message, truth, tmp_path):
    path = tmp_path / 'shapes/annotations/val.json'
    content = json.loads(path.read_text())
    content[part][1].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf'val.json: {message}.* \(1 of'):
        read_truth(path)


@pytest.mark.parametrize('annotation_ids', [dict(id=0), dict(id=-1), dict(id='a'), dict(id=2**70)])
def test_figures_do_not_depend_on_annotation_ids(annotation_ids, results, tmp_path):
    """Nothing refers to them, and tools write all kinds: pycocotools takes an object of id 0 for one never found."""
    path = tmp_path / 'shapes/annotations/val.json'
    content = json.loads(path.read_text())
    for annotation in content['annotations'][:3]:
        annotation.update(annotation_ids)
    path.write_text(json.dumps(content))
    truth = read_truth(path)
    figures = {task: one.summary() for task, one in evaluate_tasks(truth, read_results(results, truth)).items()}
    assert (figures['bbox']['mAP'], figures['segm']['mAP'], figures['bbox']['AR@100']) == pytest.approx((1, 1, 1))


def test_ids_written_as_floating_point_numbers_are_the_same_ids(results, tmp_path):
    """As pandas writes columns in which a value was missing once."""
    records = json.loads(results.read_text())
    for record in records:
        record |= dict(image_id=float(record['image_id']), category_id=float(record['category_id']))
    results.write_text(json.dumps(records))
    truth = read_truth(tmp_path / 'shapes/annotations/val.json')
    found = read_results(results, truth)
    assert evaluate_tasks(truth, found, ['bbox'])['bbox'].summary()['mAP'] == pytest.approx(1)
    assert {type(record['image_id']) for record in found.records()} == {int}


def test_classes_of_the_same_name_have_figures_of_their_own(results, tmp_path):
    path = tmp_path / 'shapes/annotations/val.json'
    content = json.loads(path.read_text())
    for category in content['categories'][:2]:
        category['name'] = 'thing'
    path.write_text(json.dumps(content))
    truth = read_truth(path)
    classes = evaluate_tasks(truth, read_results(results, truth), ['bbox'])['bbox'].classes(truth)
    assert list(classes) == ['thing (1)', 'thing (2)', *shapes.CLASSES[2:]]


def test_results_keep_image_ids_of_19_digits(truth, results, tmp_path):
    annotations, large = tmp_path / 'shapes/annotations/val.json', 2**63 - 9
    content, records = json.loads(annotations.read_text()), json.loads(results.read_text())
    expected = evaluate_tasks(read_truth(annotations), read_results(results, read_truth(annotations)))
    for record in (*content['images'], *content['annotations'], *records):
        key = 'image_id' if 'image_id' in record else 'id'
        record[key] += large
    annotations.write_text(json.dumps(content))
    results.write_text(json.dumps(records))
    renumbered = read_truth(annotations)
    found = read_results(results, renumbered)
    assert found.records() == records
    for task, evaluation in evaluate_tasks(renumbered, found).items():
        assert evaluation.summary() == expected[task].summary()
        assert evaluation.classes(renumbered) == expected[task].classes(renumbered)


def test_table_shows_a_row_a_task_and_a_dash_where_nothing_counts():
    metrics = {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_l': -1.0, 'coco/segm_mAP': 0.25}
    rows = [line.replace(' ', '').split('|')[1:-1] for line in metric_table(metrics).splitlines() if '|' in line]
    assert rows == [['COCO', 'AP', 'APlarge'], ['bbox', '0.500', '–'], ['segm', '0.250', '–']]


def test_table_of_classes_begins_with_the_best():
    lines = class_table('bbox', {'cat': [0.1] * 6, 'dog': [0.3, -1, 0.3, 0.3, 0.3, 0.3]}).splitlines()
    assert lines[3].replace(' ', '') == '|dog|0.300|–|0.300|0.300|0.300|0.300|'
    assert '| cat' in lines[4]


def test_table_of_other_metrics_lists_them():
    rows = [line.replace(' ', '') for line in metric_table({'mIoU': 0.75, 'aAcc': 0.5}).splitlines()]
    assert [row for row in rows if '0.' in row] == ['|mIoU|0.750|', '|aAcc|0.500|']
