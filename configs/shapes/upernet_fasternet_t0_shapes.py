# UPerNet FasterNet-T0 with narrow heads on the embedded data's label maps: five minutes from scratch on two CPU cores.
_base_ = '../upernet_fasternet_t0.py'

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    # So few steps need an initialization at full scale; the authors' small one is made for hundreds of epochs.
    backbone=dict(init_cfg=dict(_delete_=True, type='Kaiming', layer='Conv2d', nonlinearity='relu')),
    decode_head=dict(channels=64, num_classes=7),
    auxiliary_head=dict(channels=64, num_classes=7),
    test_cfg=dict(crop_size=(160, 160), stride=(107, 107)),
)

dataset_type = 'fasternet_mm.ShapesSegDataset'
data_root = 'data/shapes/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=[0.25, 0.25], direction=['horizontal', 'vertical']),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 160), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(_delete_=True, type=dataset_type, data_root=data_root, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(_delete_=True, type=dataset_type, data_root=data_root, split='val', pipeline=test_pipeline),
)
test_dataloader = val_dataloader

max_iters = 650
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(optimizer=dict(lr=2e-3, weight_decay=0.05), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=130, max_keep_ckpts=1))
