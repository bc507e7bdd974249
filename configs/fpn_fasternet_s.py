# No segmentation recipe is published for FasterNet; docs/model-zoo.md gives the reasons for this one.
_base_ = [
    '_base_/models/fpn_fasternet.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_40k.py',
    '_base_/runtime_segmentation.py',
]

model = dict(
    backbone=dict(
        arch='s',
        drop_path_rate=0.15,
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_s_in1k'),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
train_dataloader = dict(batch_size=4)
