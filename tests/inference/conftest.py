import copy

import pytest
import torch

import fasternet_mm


@pytest.fixture(scope='module')
def save(tmp_path_factory):
    """A work directory as training leaves it."""

    def save(cfg, model, classes):
        folder = tmp_path_factory.mktemp('work')
        cfg.dump(folder / 'config.py')
        meta = dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=classes, palette=[(9, 9, 9)] * len(classes)))
        torch.save(dict(meta=meta, state_dict=model.state_dict()), folder / 'epoch_1.pth')
        return folder

    return save


@pytest.fixture(scope='module')
def detector_dir(save, detector_cfg, detector):
    cfg = copy.deepcopy(detector_cfg)
    cfg.model.test_cfg.rcnn.score_thr = 0.3
    return save(cfg, detector, fasternet_mm.datasets.shapes.CLASSES)


@pytest.fixture(scope='module')
def segmenter_dir(save, segmenter_cfg, segmenter):
    return save(segmenter_cfg, segmenter, ('background', *fasternet_mm.datasets.shapes.CLASSES))
