import re

import cv2
import pytest
from own_layouts import made, write_coco, write_yolo

from fasternet_mm.own_data.layouts.recognition import read_own_data


def test_data_are_converted_and_what_is_lost_is_said(tmp_path, command):
    write_coco(tmp_path / 'data', made())
    done = command('convert', tmp_path / 'data', tmp_path / 'out', '--to', 'voc')
    assert done.returncode == 0
    assert re.search(r'\| objects with outlines +\| 4 +\| 4', done.stdout)
    assert 'no problems' in done.stdout
    assert f'written:    {tmp_path}/out (Pascal VOC; images: 3 train, 2 val)' in done.stdout
    assert 'not kept:   outlines and masks: Pascal VOC has boxes (8)' in done.stdout
    assert read_own_data(str(tmp_path / 'out')).layout == 'Pascal VOC'
    done = command('convert', tmp_path / 'data', tmp_path / 'all', '--to', 'coco')
    assert 'not kept:   nothing; the format holds all of it' in done.stdout


def test_what_cannot_be_read_is_said_and_left_out(tmp_path, command):
    write_yolo(tmp_path / 'data', made())
    (tmp_path / 'data/images/val/p00003.png').write_text('no image')
    done = command('convert', tmp_path / 'data', tmp_path / 'out', '--to', 'yolo')
    assert done.returncode == 0
    assert 'unreadable image (1, to be mended)' in done.stdout
    assert 'images: 3 train, 1 val' in done.stdout
    assert 'left out:   what has the problems above; fasternet-mm check-data lists all of them' in done.stdout


@pytest.mark.parametrize('out', ['data/out', 'data', '.'])
def test_nothing_is_written_into_the_data(tmp_path, command, out):
    write_yolo(tmp_path / 'data', made())
    before = sorted(tmp_path.rglob('*'))
    done = command('convert', tmp_path / 'data', tmp_path / out, '--to', 'coco')
    assert done.returncode == 2
    assert 'lie in one another: name a folder elsewhere' in done.stderr
    assert sorted(tmp_path.rglob('*')) == before


def test_a_folder_with_something_in_it_is_not_touched(tmp_path, command):
    write_yolo(tmp_path / 'data', made())
    (tmp_path / 'out').mkdir()
    assert cv2.imwrite(str(tmp_path / 'out/mine.png'), cv2.imread(str(tmp_path / 'data/images/train/p00000.png')))
    done = command('convert', tmp_path / 'data', tmp_path / 'out', '--to', 'coco')
    assert done.returncode == 2
    assert 'out has something in it, which may be work of yours: move it away, or name another' in done.stderr
    assert [path.name for path in tmp_path.iterdir()] in (['data', 'out'], ['out', 'data'])


def test_help_has_examples_of_every_format(command):
    help_text = command('convert', '--help').stdout
    for name in ('coco', 'yolo', 'voc', 'labelme', 'label-maps'):
        assert f'--to {name}' in help_text
