# 40,000 steps of 32 images in all, as PoolFormer's and PVT's Semantic FPNs are trained: AdamW, poly of power 0.9.
# On another number of images per step, train with --auto-scale-lr.
_base_ = 'mmseg::_base_/schedules/schedule_40k.py'

optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=40000)]
auto_scale_lr = dict(enable=False, base_batch_size=32)
