# Real time, masks. No RTMDet with FasterNet is published; the recipe is RTMDet-tiny's, the widths are ours.
_base_ = '_base_/rtmdet_ins_fasternet.py'

model = dict(
    backbone=dict(
        arch='t2',
        drop_path_rate=0.05,
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_t2_in1k'),
    ),
    neck=dict(in_channels=[192, 384, 768], out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128),
)
