# No segmentation recipe is published for FasterNet; docs/model-zoo.md gives the reasons for this one.
_base_ = [
    '_base_/models/upernet_fasternet.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_160k.py',
    '_base_/runtime_segmentation.py',
]

model = dict(
    backbone=dict(
        arch='t2',
        drop_path_rate=0.05,
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_t2_in1k'),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.01))
