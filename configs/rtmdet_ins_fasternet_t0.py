# Real time, masks. No RTMDet with FasterNet is published; the recipe is RTMDet-tiny's, the widths are ours.
_base_ = '_base_/rtmdet_ins_fasternet.py'

model = dict(
    backbone=dict(
        arch='t0',
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_t0_in1k'),
    ),
    neck=dict(in_channels=[80, 160, 320], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64),
)
