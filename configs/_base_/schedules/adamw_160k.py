# 160,000 steps of 16 images in all: AdamW with no decay on norms and biases, linear warm-up, then linearly to 0, as
# ConvNeXt's and Swin's UPerNets are trained. On another number of images per step, train with --auto-scale-lr.
_base_ = 'mmseg::_base_/schedules/schedule_160k.py'

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='fasternet_mm.StageDecayConstructor',
    paramwise_cfg=dict(stage_decay=1.0),
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=160000),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
