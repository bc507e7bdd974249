import argparse
import os
from pathlib import Path

import pytest
import torch

from fasternet_mm.cli.parsing import existing_model
from fasternet_mm.engine.packaged_configs import config_path
from fasternet_mm.engine.work_dir import config_and_checkpoint, latest_checkpoint
from fasternet_mm.errors import UserError
from fasternet_mm.weights.seal import seal


def make(folder, *names, **steps):
    """Configs, and checkpoints with their numbers of steps; each file is newer than the one before."""
    for age, name in enumerate([*names, *(f'{name}.pth' for name in steps)]):
        if name.endswith('.pth'):
            content = dict(meta=dict(iter=steps.get(Path(name).stem, 0)), state_dict=dict(weight=torch.ones(50)))
            torch.save(content, folder / name)
            seal(folder / name)
        else:
            (folder / name).touch()
        os.utime(folder / name, (age, age))


@pytest.mark.parametrize(
    ('files', 'steps', 'config', 'checkpoint'),
    [
        (['config.py', 'other.py'], dict(epoch_2=20, epoch_10=100), 'config.py', 'epoch_10.pth'),
        (['a.py', 'b.py', 'weights.pth'], dict(iter_9=9), 'b.py', 'iter_9.pth'),
        (['config.py'], dict(best_coco_bbox_mAP_epoch_1=1, epoch_2=2), 'config.py', 'best_coco_bbox_mAP_epoch_1.pth'),
        (['config.py'], dict(best_mIoU_iter_1=1, best_mAcc_iter_2=2, iter_3=3), 'config.py', 'iter_3.pth'),
    ],
)
def test_a_work_directory_has_its_config_and_its_best_or_latest_checkpoint(files, steps, config, checkpoint, tmp_path):
    make(tmp_path, *files, **steps)
    assert config_and_checkpoint(str(tmp_path)) == (str(tmp_path / config), str(tmp_path / checkpoint))


def test_a_checkpoint_that_is_named_goes_before_the_work_directorys_own(tmp_path):
    make(tmp_path, 'config.py', epoch_2=20)
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


@pytest.mark.parametrize('arch', ['s', 'm', 'l'])
def test_a_published_detector_needs_no_more_than_its_name(arch):
    name = f'mask_rcnn_fasternet_{arch}_coco'
    assert existing_model(name) == name
    assert config_and_checkpoint(name) == (config_path(f'mask_rcnn_fasternet_{arch}'), name)


def test_published_weights_of_a_backbone_are_no_model():
    with pytest.raises(argparse.ArgumentTypeError, match='fasternet_s_in1k does not exist'):
        existing_model('fasternet_s_in1k')


@pytest.mark.parametrize('checkpoint', [None, 'net.pth'])
def test_what_does_not_exist_is_said(checkpoint):
    with pytest.raises(UserError, match='config nowhere does not exist: give a file'):
        config_and_checkpoint('nowhere', checkpoint)


def latest(folder):
    path = latest_checkpoint(str(folder))
    return path and Path(path).name


@pytest.mark.parametrize(
    ('steps', 'expected'),
    [
        ({}, None),
        (dict(best_mIoU_iter_9=9), None),
        (dict(epoch_10=1000, epoch_9=900), 'epoch_10.pth'),  # the older file
        (dict(epoch_3=300, iter_370=370, iter_90=90), 'iter_370.pth'),
        (dict(iter_370=370, epoch_4=400), 'epoch_4.pth'),
        (dict(epoch_1=900, epoch_2=50), 'epoch_1.pth'),  # whatever they are called
    ],
)
def test_the_latest_checkpoint_has_the_most_steps_by_its_own_record(steps, expected, tmp_path):
    make(tmp_path, **steps)
    assert latest(tmp_path) == expected


def empty(content):
    return b''


def cut(content):
    return content[: len(content) // 2]


def one_wrong_bit(content):
    place = content.index(torch.ones(1).numpy().tobytes() * 20)
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


DAMAGE = {empty: r'is empty (0 bytes)', cut: 'is cut short or damaged', one_wrong_bit: 'is damaged (the checksum of'}


@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(damage, tmp_path, logged_warnings):
    make(tmp_path, epoch_1=10, epoch_2=20, epoch_3=30)
    for name in ('epoch_3.pth', 'epoch_2.pth'):
        (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    assert latest(tmp_path) == 'epoch_1.pth'
    warnings = sorted(logged_warnings())
    assert [warning.partition(' ')[2].partition(' ')[0] for warning in warnings] == [
        str(tmp_path / 'epoch_2.pth'),
        str(tmp_path / 'epoch_3.pth'),
    ]
    assert all(DAMAGE[damage] in warning and warning.endswith(': it is passed over') for warning in warnings)


@pytest.mark.parametrize('damage', DAMAGE)
def test_where_all_are_damaged_nothing_is_taken_for_a_beginning(damage, tmp_path):
    make(tmp_path, epoch_1=10)
    (tmp_path / 'epoch_1.pth').write_bytes(damage((tmp_path / 'epoch_1.pth').read_bytes()))
    with pytest.raises(UserError, match=r'epoch_1.pth is .* has no other checkpoint that is whole') as caught:
        latest(tmp_path)
    assert DAMAGE[damage] in str(caught.value)


@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_best_checkpoint_is_named_and_the_latest_is_taken(damage, tmp_path, logged_warnings):
    make(tmp_path, 'config.py', best_mIoU_epoch_1=10, epoch_2=20)
    best = tmp_path / 'best_mIoU_epoch_1.pth'
    best.write_bytes(damage(best.read_bytes()))
    assert config_and_checkpoint(str(tmp_path))[1] == str(tmp_path / 'epoch_2.pth')
    [warning] = logged_warnings()
    assert warning.startswith(f'checkpoint {best} {DAMAGE[damage]}')
