# No segmentation recipe is published for FasterNet; docs/model-zoo.md gives the reasons for this one.
_base_ = [
    '_base_/models/upernet_fasternet.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_160k.py',
    '_base_/runtime_segmentation.py',
]

model = dict(
    backbone=dict(
        arch='m',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_m_in1k'),
    ),
    decode_head=dict(in_channels=[144, 288, 576, 1152]),
    auxiliary_head=dict(in_channels=576),
)
optim_wrapper = dict(paramwise_cfg=dict(stage_decay=0.9))
