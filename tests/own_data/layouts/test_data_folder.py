"""What our tools wrote into a folder of data is no data."""

import pytest
from own_layouts import coco_content, write_images, write_json

from fasternet_mm.errors import UserError
from fasternet_mm.files import MARKER, mark_output
from fasternet_mm.own_data.layouts.data_folder import DataFolder

FILES = ['annotations.json', 'images/p00000.png']
OF_BEFORE = [
    [
        'work_dirs/run/config.py',
        'work_dirs/run/epoch_1.pth',
        'work_dirs/run/samples.png',
        'work_dirs/run/data/train.json',
    ],
    ['run/config.py', 'run/samples.png', 'run/data/train.json'],
    ['run/mask_rcnn.py', 'run/last_checkpoint', 'run/drawings/p00000.png'],
    ['run/fpn.py', 'run/iter_200.pth', 'run/data/labels/p00000.png'],
    ['run/fpn.py', 'run/best_mIoU_iter_200.pth', 'run/data/labels/p00000.png'],
    ['run/20250101_120000/vis_data/scalars.json', 'run/20250101_120000/p00000.png'],
    ['predictions/results.json', 'predictions/p00000.png', 'predictions/crops/cat/p00000-1.jpg'],
]
NOT_OURS = [
    ['scripts/config.py', 'scripts/p00000.png'],
    ['predictions/p00000.png'],
    ['results.json'],
    ['epoch_1.pth', 'a/p00000.png'],
    ['20250101_120000/p00000.png'],
]


def write(root, files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


@pytest.mark.parametrize('files', OF_BEFORE)
def test_what_our_tools_wrote_is_known_by_its_files(files, tmp_path):
    write(tmp_path, FILES)
    write(tmp_path, files)
    assert DataFolder(tmp_path).files == FILES


@pytest.mark.parametrize('files', NOT_OURS)
def test_what_others_wrote_stays(files, tmp_path):
    write(tmp_path, [*FILES, *files])
    assert DataFolder(tmp_path).files == sorted([*FILES, *files])


def test_a_marked_folder_is_left_out_whatever_is_in_it(tmp_path):
    write(tmp_path, FILES)
    mark_output(tmp_path / 'new/found')
    write(tmp_path, ['new/found/p00000.png', 'new/found/labels/p00000.png', 'new/p00001.png'])
    folder = DataFolder(tmp_path)
    assert folder.files == [*FILES, 'new/p00001.png']
    assert folder.outputs == [str(tmp_path / 'new/found')]


def test_a_folder_that_holds_other_things_is_not_marked(tmp_path):
    write(tmp_path, FILES)
    for folder in (tmp_path, tmp_path / 'images'):
        mark_output(folder)
        assert not (folder / MARKER).exists()
    assert DataFolder(tmp_path).files == FILES


def test_a_marked_folder_that_is_named_itself_is_read(tmp_path):
    mark_output(tmp_path / 'found')
    write(tmp_path / 'found', FILES)
    assert DataFolder(tmp_path / 'found').files == FILES


def test_where_nothing_else_is_there_it_is_said(tmp_path):
    mark_output(tmp_path / 'found')
    write(tmp_path / 'found', FILES)
    with pytest.raises(UserError, match=r'has no files \(besides .*found, which our tools wrote\): name the folder'):
        DataFolder(tmp_path)
    write_json(tmp_path / 'a.json', coco_content({'p00000.png': []}))
    with pytest.raises(
        UserError, match=r'has none of them \(it has 0 other images\) \(besides .*found, which our tools wrote\)'
    ):
        DataFolder(tmp_path).find_images(['p00000.png'], 'a.json', None)


def test_links_to_what_our_tools_wrote_are_left_out_too(tmp_path):
    mark_output(tmp_path / 'run')
    write(tmp_path / 'run', FILES)
    write_images(tmp_path / 'data/images', ['p00000.png'])
    (tmp_path / 'data/link').symlink_to(tmp_path / 'run')
    assert DataFolder(tmp_path / 'data').files == ['images/p00000.png']
