# For boxes alone. No Faster R-CNN with FasterNet is published; the recipe is that of Mask R-CNN.
_base_ = [
    '_base_/models/faster_rcnn_fasternet.py',
    '_base_/datasets/coco_detection.py',
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
