# COCO 2017 instances under data/coco, pictures at 1333x800, 2 per process.
_base_ = 'mmdet::_base_/datasets/coco_instance.py'
