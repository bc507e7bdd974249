# Real time, masks. No RTMDet with FasterNet is published; the recipe is RTMDet-tiny's, the widths are ours.
_base_ = '_base_/rtmdet_ins_fasternet.py'

model = dict(
    backbone=dict(
        arch='s',
        drop_path_rate=0.15,
        init_cfg=dict(type='Pretrained', checkpoint='fasternet_s_in1k'),
    ),
    neck=dict(in_channels=[256, 512, 1024], out_channels=192, num_csp_blocks=2),
    bbox_head=dict(in_channels=192, feat_channels=192),
)
