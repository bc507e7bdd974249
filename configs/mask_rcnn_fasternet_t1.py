# No COCO recipe is published for T1; this one is ours: S's, with no drop path, since the network is small.
_base_ = [
    '_base_/models/mask_rcnn_fasternet.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/adamw_1x.py',
    '_base_/runtime.py',
]

model = dict(
    backbone=dict(
        arch='t1',
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_t1_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
