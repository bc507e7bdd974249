# The authors' COCO recipe: 12 epochs at batch 16 in all, AdamW, steps at epochs 8 and 11, no gradient clipping.
# On another number of images per step, train with --auto-scale-lr.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(_delete_=True, type='AdamW', lr=2e-4, weight_decay=1e-4))
