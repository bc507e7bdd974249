_base_ = [
    '_base_/models/mask_rcnn_fasternet.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/adamw_1x.py',
    '_base_/runtime.py',
]

model = dict(
    backbone=dict(
        arch='m',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_m_in1k'),
    ),
    neck=dict(in_channels=[144, 288, 576, 1152]),
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
