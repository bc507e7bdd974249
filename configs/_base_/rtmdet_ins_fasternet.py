# RTMDet-Ins-tiny as MMDetection trains it on COCO 2017 (arXiv 2212.07784), with the maps of FasterNet at strides 8,
# 16 and 32.
_base_ = 'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py'

model = dict(
    # RGB, as FasterNet's ImageNet weights expect it; RTMDet's own backbone was trained on BGR.
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(_delete_=True, type='fasternet_mm.FasterNet', out_indices=(1, 2, 3)),
    bbox_head=dict(type='fasternet_mm.RTMDetInsSepBNHead'),
)
val_evaluator = dict(type='fasternet_mm.CocoMetric')
test_evaluator = val_evaluator
# The same decays as MMDetection's, in two groups of parameters instead of one for each.
optim_wrapper = dict(
    constructor='fasternet_mm.StageDecayConstructor',
    paramwise_cfg=dict(_delete_=True),
)
auto_scale_lr = dict(base_batch_size=256)
