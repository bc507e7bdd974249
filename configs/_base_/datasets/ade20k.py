# ADE20K (ADEChallengeData2016) under data/ade, crops of 512x512, 2 per process.
_base_ = 'mmseg::_base_/datasets/ade20k.py'

train_dataloader = dict(batch_size=2)
