import pytest
from mmengine.config import Config
from small_models import SCALES, SMALL, spread_model


@pytest.fixture(scope='module')
def detector_cfg(root):
    cfg = Config.fromfile(root / 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py')
    cfg.model.backbone.arch, cfg.model.neck.in_channels = SMALL, [16, 32, 64, 128]
    cfg.model.test_cfg.rcnn.score_thr = 0.8  # of the random detector's, some on one image and none on another
    return cfg


@pytest.fixture(scope='module')
def segmenter_cfg(root):
    cfg = Config.fromfile(root / 'configs/shapes/upernet_fasternet_t0_shapes.py')
    cfg.model.backbone.arch, cfg.model.auxiliary_head.in_channels = SMALL, 64
    cfg.model.decode_head.update(in_channels=[16, 32, 64, 128], channels=16)
    return cfg


@pytest.fixture(scope='module')
def detector(detector_cfg):
    return spread_model(detector_cfg, SCALES)


@pytest.fixture(scope='module')
def segmenter(segmenter_cfg):
    return spread_model(segmenter_cfg, {'decode_head.conv_seg.weight': 100})
