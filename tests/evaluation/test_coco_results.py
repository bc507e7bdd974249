import json

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fasternet_mm.data import shapes
from fasternet_mm.evaluation.coco_results import CocoResultsFile, category_ids, to_coco_results
from fasternet_mm.evaluation.table import metric_table


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


def test_perfect_detections_score_one_in_pycocotools(truth, tmp_path):
    metric = CocoResultsFile(str(tmp_path / 'results.json'), str(tmp_path / 'shapes/annotations/val.json'))
    metric.dataset_meta = dict(classes=shapes.CLASSES)
    samples = [dict(img_id=image_id, pred_instances=perfect(truth, image_id)) for image_id in truth.imgs]
    metric.process({}, samples)
    assert metric.evaluate(size=len(samples)) == {'results/detections': len(truth.anns)}
    results = truth.loadRes(str(tmp_path / 'results.json'))
    for task in ('bbox', 'segm'):
        evaluation = COCOeval(truth, results, task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1)


def test_records_have_the_annotation_files_category_ids():
    found = InstanceData(bboxes=torch.tensor([[1.0, 2, 4, 8]]), labels=torch.tensor([1]), scores=torch.tensor([0.25]))
    assert to_coco_results(found, 5, [3, 7]) == [dict(image_id=5, category_id=7, bbox=[1, 2, 3, 6], score=0.25)]


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


def test_table_shows_a_row_a_task_and_a_dash_where_nothing_counts():
    metrics = {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_l': -1.0, 'coco/segm_mAP': 0.25}
    rows = [line.replace(' ', '').split('|')[1:-1] for line in metric_table(metrics).splitlines() if '|' in line]
    assert rows[0] == ['COCO', 'AP', 'AP50', 'AP75', 'APsmall', 'APmedium', 'APlarge']
    assert rows[1][:2] == ['bbox', '0.500']
    assert rows[1][-1] == '–'
    assert rows[2][:2] == ['segm', '0.250']


def test_table_of_other_metrics_lists_them():
    assert '0.750' in metric_table({'mIoU': 0.75})
