# Real time, masks. No RTMDet with FasterNet is published; the recipe is RTMDet-tiny's, the widths are ours.
_base_ = '_base_/rtmdet_ins_fasternet.py'

model = dict(
    backbone=dict(
        arch='t1',
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_t1_in1k'),
    ),
    neck=dict(in_channels=[128, 256, 512], out_channels=96),
    bbox_head=dict(in_channels=96, feat_channels=96),
)
