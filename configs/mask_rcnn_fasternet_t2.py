# No COCO recipe is published for T2; this one is ours: S's, with the drop path of its ImageNet training.
_base_ = [
    '_base_/models/mask_rcnn_fasternet.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/adamw_1x.py',
    '_base_/runtime.py',
]

model = dict(
    backbone=dict(
        arch='t2',
        drop_path_rate=0.05,
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_t2_in1k'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
