"""What RTMDet-Ins finds in images that are not square, against MMDetection's own way to predict."""

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector
from mmengine.registry import init_default_scope
from small_models import SMALL, image, spread_model

from fasternet_mm.datasets.shapes import CLASSES
from fasternet_mm.engine.config import load_config
from fasternet_mm.inference import Predictor


@pytest.fixture(scope='module')
def rtmdet_ins(tmp_path_factory):
    """A config, a checkpoint, and the model in it: RTMDet-Ins with a tiny backbone, as random weights have it."""
    cfg = load_config('rtmdet_ins_fasternet_t0')
    cfg.model.backbone.update(arch=SMALL, init_cfg=None)
    cfg.model.neck.update(in_channels=[32, 64, 128], out_channels=16)
    cfg.model.bbox_head.update(in_channels=16, feat_channels=16, num_classes=len(CLASSES))
    cfg.model.test_cfg.update(score_thr=0.0, max_per_img=20)
    cfg.test_dataloader.dataset.metainfo = dict(classes=CLASSES)
    init_default_scope('mmdet')
    model = spread_model(cfg, {'bbox_head.rtm_kernel.0.weight': 30, 'bbox_head.rtm_kernel.1.weight': 30})
    path = tmp_path_factory.mktemp('rtmdet') / 'epoch_1.pth'
    torch.save(dict(meta=dict(dataset_meta=dict(classes=CLASSES)), state_dict=model.state_dict()), path)
    model.cfg = cfg
    return cfg, path, model


@pytest.mark.parametrize('size', [(101, 240), (333, 211)])
def test_an_image_that_is_not_square_has_the_boxes_and_masks_of_mmdetection(size, rtmdet_ins, tmp_path):
    cfg, checkpoint, model = rtmdet_ins
    cv2.imwrite(str(tmp_path / 'image.png'), image(*size).permute(1, 2, 0).numpy())
    init_default_scope('mmdet')
    expected = inference_detector(model, str(tmp_path / 'image.png')).pred_instances
    prediction = Predictor(cfg, checkpoint, device='cpu', optimize=False)(tmp_path / 'image.png')
    assert len(expected) == 20
    np.testing.assert_array_equal(prediction.boxes, expected.bboxes.numpy())
    np.testing.assert_array_equal(prediction.scores, expected.scores.numpy())
    np.testing.assert_array_equal(prediction.labels, expected.labels.numpy())
    assert prediction.masks.shape == (20, *size)
    np.testing.assert_array_equal(prediction.masks, expected.masks.numpy())
    assert prediction.masks.any()
