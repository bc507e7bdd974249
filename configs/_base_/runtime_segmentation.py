_base_ = 'mmseg::_base_/default_runtime.py'

visualizer = dict(alpha=0.5)
