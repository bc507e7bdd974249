import json

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fasternet_mm import CocoMetric
from fasternet_mm.data import shapes
from fasternet_mm.errors import UserError
from fasternet_mm.evaluation.coco_evaluation import evaluate_tasks
from fasternet_mm.evaluation.coco_results import category_ids, encode_masks, read_results, to_coco_results
from fasternet_mm.evaluation.coco_truth import read_truth
from fasternet_mm.evaluation.table import class_table, metric_table


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
    centre, radii = rng.uniform(0, (height, width)), rng.uniform(1, 30, 2)
    return (((np.indices((height, width)) - centre[:, None, None]) / radii[:, None, None]) ** 2).sum(0) < 1


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
def test_all_masks_of_tiny_pictures_are_encoded_as_by_pycocotools(shape):
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
    (dict(segmentation=dict(size=[3, 4], counts='0')), r'mask of size \[3, 4\], its picture \[160, 160\]'),
    (dict(segmentation=dict(size=[160, 160], counts='zz~')), 'counts end before the picture'),
    (dict(segmentation=dict(size=[160, 160], counts=[30000])), 'malformed mask'),
    (dict(segmentation=dict(size=[160, 160], counts='é')), 'malformed mask'),
    (dict(segmentation=dict(size=[160, 160], counts=[25000])), 'counts end before the picture'),
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
        ('[]', 'is an empty list'),
        ('{"image_id": 1', 'is not JSON'),
        ('{"annotations": []}', 'holds COCO annotations, not a list of detections: give the results first'),
        ('[1, 2]', 'detection 0 lacks'),
    ],
)
def test_a_file_that_is_no_list_of_detections_is_refused(content, message, truth, tmp_path):
    (tmp_path / 'a.json').write_text(content)
    with pytest.raises(UserError, match=message):
        read_results(tmp_path / 'a.json', read_truth(tmp_path / 'shapes/annotations/val.json'))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(segmentation=[]), r'\(id 2\) has no mask'),
        (dict(segmentation=[[1, 2, 3, 4]]), 'fewer than three points'),
        (dict(segmentation=dict(size=[160, 160], counts=[5])), 'counts end before the picture'),
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


@pytest.mark.parametrize(
    'change', [dict(image_id='x'), dict(id=-1), dict(segmentation=dict(size=[160, 160], counts=[-1]))]
)
def test_annotations_of_other_types_are_refused(change, truth, tmp_path):
    path = tmp_path / 'shapes/annotations/val.json'
    content = json.loads(path.read_text())
    content['annotations'][1].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r'val.json is not COCO annotations: .*annotations\[1\]'):
        read_truth(path)


def test_table_shows_a_row_a_task_and_a_dash_where_nothing_counts():
    metrics = {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_l': -1.0, 'coco/segm_mAP': 0.25}
    rows = [line.replace(' ', '').split('|')[1:-1] for line in metric_table(metrics).splitlines() if '|' in line]
    assert rows == [['COCO', 'AP', 'APlarge'], ['bbox', '0.500', '–'], ['segm', '0.250', '–']]


def test_table_of_classes_begins_with_the_best():
    lines = class_table('bbox', {'cat': [0.1] * 6, 'dog': [0.3, -1, 0.3, 0.3, 0.3, 0.3]}).splitlines()
    assert lines[3].replace(' ', '') == '|dog|0.300|–|0.300|0.300|0.300|0.300|'
    assert '| cat' in lines[4]


def test_table_of_other_metrics_lists_them():
    assert '0.750' in metric_table({'mIoU': 0.75})
