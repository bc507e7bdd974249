# Faster R-CNN with FPN as MMDetection configures it for ResNet-50, on FasterNet.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'

model = dict(
    backbone=dict(_delete_=True, type='fasternet_mm.FasterNet'),
    rpn_head=dict(type='fasternet_mm.RPNHead'),
    roi_head=dict(
        type='fasternet_mm.StandardRoIHead',
        bbox_roi_extractor=dict(type='fasternet_mm.SingleRoIExtractor'),
    ),
)
