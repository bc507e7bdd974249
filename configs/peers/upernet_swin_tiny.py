# For comparison: MMSegmentation's UPerNet with Swin-T on ADE20K's classes.
_base_ = 'mmseg::_base_/models/upernet_swin.py'

model = dict(
    pretrained=None,
    decode_head=dict(in_channels=[96, 192, 384, 768], num_classes=150),
    auxiliary_head=dict(in_channels=384, num_classes=150),
)
