# For boxes alone. No Faster R-CNN with FasterNet is published; the recipe is that of Mask R-CNN.
_base_ = [
    '_base_/models/faster_rcnn_fasternet.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/adamw_1x.py',
    '_base_/runtime.py',
]

model = dict(
    backbone=dict(
        arch='s',
        drop_path_rate=0.15,
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_s_in1k'),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
