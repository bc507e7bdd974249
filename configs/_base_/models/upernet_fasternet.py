# UPerNet with the auxiliary FCN head as MMSegmentation configures it for ResNet-50, on FasterNet.
# SyncBN becomes BN by itself where training is not distributed. crop_size and stride are for test_cfg.mode='slide'.
_base_ = 'mmseg::_base_/models/upernet_r50.py'

model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(_delete_=True, type='fasternet_mm.FasterNet', norm_cfg=dict(type='SyncBN')),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
    test_cfg=dict(mode='whole', crop_size=(512, 512), stride=(341, 341)),
)
