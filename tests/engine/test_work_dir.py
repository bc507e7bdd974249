import os

import pytest

from fasternet_mm.engine.work_dir import config_and_checkpoint
from fasternet_mm.errors import UserError


def make(folder, *names):
    """Empty files, each newer than the one before."""
    for age, name in enumerate(names):
        (folder / name).touch()
        os.utime(folder / name, (age, age))


@pytest.mark.parametrize(
    ('files', 'config', 'checkpoint'),
    [
        (['config.py', 'other.py', 'epoch_2.pth', 'epoch_10.pth'], 'config.py', 'epoch_10.pth'),
        (['a.py', 'b.py', 'iter_9.pth', 'weights.pth'], 'b.py', 'iter_9.pth'),
        (['config.py', 'best_coco_bbox_mAP_epoch_1.pth', 'epoch_2.pth'], 'config.py', 'best_coco_bbox_mAP_epoch_1.pth'),
        (['config.py', 'best_mIoU_iter_1.pth', 'best_mAcc_iter_2.pth', 'iter_3.pth'], 'config.py', 'iter_3.pth'),
    ],
)
def test_a_work_directory_has_its_config_and_its_best_or_newest_checkpoint(files, config, checkpoint, tmp_path):
    make(tmp_path, *files)
    assert config_and_checkpoint(str(tmp_path)) == (str(tmp_path / config), str(tmp_path / checkpoint))


def test_a_checkpoint_that_is_named_goes_before_the_work_directorys_own(tmp_path):
    make(tmp_path, 'config.py', 'epoch_2.pth')
    assert config_and_checkpoint(str(tmp_path), 'net.onnx') == (str(tmp_path / 'config.py'), 'net.onnx')


@pytest.mark.parametrize(
    ('files', 'message'), [(['epoch_1.pth'], 'has no config'), (['config.py', 'a.pth'], 'has no checkpoint')]
)
def test_what_a_work_directory_lacks_is_said(files, message, tmp_path):
    make(tmp_path, *files)
    with pytest.raises(UserError, match=message):
        config_and_checkpoint(str(tmp_path))


def test_a_config_alone_is_not_enough():
    with pytest.raises(UserError, match=f'{__file__} alone is not enough: add a checkpoint'):
        config_and_checkpoint(__file__)


@pytest.mark.parametrize('checkpoint', [None, 'net.pth'])
def test_what_does_not_exist_is_said(checkpoint):
    with pytest.raises(UserError, match='config nowhere does not exist: give a file'):
        config_and_checkpoint('nowhere', checkpoint)
