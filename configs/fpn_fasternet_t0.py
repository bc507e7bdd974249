# No segmentation recipe is published for FasterNet; docs/model-zoo.md gives the reasons for this one.
_base_ = [
    '_base_/models/fpn_fasternet.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_40k.py',
    '_base_/runtime_segmentation.py',
]

model = dict(
    backbone=dict(
        arch='t0',
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_t0_in1k'),
    ),
    neck=dict(in_channels=[40, 80, 160, 320]),
)
train_dataloader = dict(batch_size=4)
