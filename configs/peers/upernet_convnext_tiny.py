# For comparison: UPerNet with timm's ConvNeXt-T on ADE20K's classes.
_base_ = 'upernet_swin_tiny.py'

model = dict(
    backbone=dict(_delete_=True, type='TIMMBackbone', model_name='convnext_tiny', features_only=True, pretrained=False)
)
