# For comparison: MMSegmentation's UPerNet with ResNet-50 on ADE20K's classes.
_base_ = 'mmseg::_base_/models/upernet_r50.py'

model = dict(pretrained=None, decode_head=dict(num_classes=150), auxiliary_head=dict(num_classes=150))
