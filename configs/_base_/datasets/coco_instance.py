# COCO 2017 instances under data/coco, images of up to 800x1333 (H x W), 2 per process.
_base_ = 'mmdet::_base_/datasets/coco_instance.py'

val_evaluator = dict(type='fasternet_mm.CocoMetric')
test_evaluator = val_evaluator
