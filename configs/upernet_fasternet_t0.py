# No segmentation recipe is published for FasterNet; docs/model-zoo.md gives the reasons for this one.
_base_ = [
    '_base_/models/upernet_fasternet.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_160k.py',
    '_base_/runtime_segmentation.py',
]

model = dict(
    backbone=dict(
        arch='t0',
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_t0_in1k'),
    ),
    decode_head=dict(in_channels=[40, 80, 160, 320]),
    auxiliary_head=dict(in_channels=160),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.01))
