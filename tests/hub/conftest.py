import copy

import pytest
import torch

from fasternet_mm.datasets.shapes import CLASSES
from fasternet_mm.hub.published_files import read_run, write_model


@pytest.fixture(scope='module')
def work_dir(detector_cfg, detector, tmp_path_factory):
    """What a training of a detector of masks leaves."""
    return save_run(tmp_path_factory.mktemp('alice') / 'run', detector_cfg, detector, CLASSES)


@pytest.fixture(scope='module')
def segmenter_dir(segmenter_cfg, segmenter, tmp_path_factory):
    return save_run(tmp_path_factory.mktemp('alice') / 'run', segmenter_cfg, segmenter, ('background', *CLASSES))


def save_run(folder, cfg, model, classes):
    folder.mkdir()
    cfg = copy.deepcopy(cfg)
    if 'rcnn' in cfg.model.get('test_cfg', {}):
        cfg.model.test_cfg.rcnn.score_thr = 0.3
    cfg.dump(folder / 'config.py')
    meta = dict(epoch=1, iter=100, dataset_meta=dict(classes=classes))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), folder / 'epoch_1.pth')
    return folder


@pytest.fixture(scope='module')
def published(work_dir, tmp_path_factory):
    """The file of a detector, as it is published."""
    path = tmp_path_factory.mktemp('published') / 'model.safetensors'
    write_model(read_run(str(work_dir)), path)
    return path.read_bytes()
