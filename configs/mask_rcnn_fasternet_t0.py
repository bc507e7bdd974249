# No COCO recipe is published for T0; this one is ours: S's, with no drop path, since the network is small.
_base_ = [
    '_base_/models/mask_rcnn_fasternet.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/adamw_1x.py',
    '_base_/runtime.py',
]

model = dict(
    backbone=dict(
        arch='t0',
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_t0_in1k'),
    ),
    neck=dict(in_channels=[40, 80, 160, 320]),
)
