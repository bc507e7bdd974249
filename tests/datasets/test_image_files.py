import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from fasternet_mm.datasets.image_files import ImageFileError, image_size, labels_in, names_below, read_label_map
from fasternet_mm.datasets.label_map_checks import check_label_maps
from fasternet_mm.errors import UserError
from fasternet_mm.report.label_map_errors import LabelMapPairs

LABELS = np.array([[0, 1, 2], [2, 2, 1]], np.uint8)


def paletted(labels):
    image = Image.fromarray(labels)
    image.putpalette([9, 9, 9, 8, 8, 8, 7, 7, 7])
    return image


ONE_CHANNEL = {
    'one bit': (lambda: Image.fromarray(LABELS > 1), '1', LABELS > 1),
    'palette of two bits': (lambda: paletted(LABELS), 'P', LABELS),
    'gray of 8 bits': (lambda: Image.fromarray(LABELS), 'L', LABELS),
    'gray of 16 bits': (lambda: Image.fromarray(LABELS.astype(np.uint16)), 'I;16', LABELS),
}
SEVERAL_CHANNELS = ['RGB', 'RGBA', 'LA']


@pytest.fixture
def pair(tmp_path):
    """The files of an image and its label map; that of the label map is not there."""
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    Image.new('RGB', LABELS.shape[::-1]).save(tmp_path / 'images/a.png')
    return tmp_path / 'images/a.png', tmp_path / 'labels/a.png'


def check(pair):
    folders = dict(img_path=str(pair[0].parent), seg_map_path=str(pair[1].parent))
    classes = dict(classes=('a', 'b', 'c'))
    data = BaseSegDataset(data_prefix=folders, metainfo=classes, img_suffix='.png', serialize_data=False)
    check_label_maps('data', data, 255)


def read_for_report(pair):
    return LabelMapPairs([], [], [], ['a', 'b', 'c']).read_truth(pair[1])


@pytest.mark.parametrize('kind', ONE_CHANNEL)
def test_all_readers_of_label_maps_agree_with_that_of_training(kind, pair):
    image, mode, labels = ONE_CHANNEL[kind]
    image().save(pair[1], bits=2 if mode == 'P' else 8)
    assert Image.open(pair[1]).mode == mode
    results = dict(seg_map_path=str(pair[1]), reduce_zero_label=False, seg_fields=[])
    init_default_scope('mmseg')
    np.testing.assert_array_equal(LoadAnnotations().transform(results)['gt_seg_map'], labels)
    label_map = read_label_map(pair[1])
    assert label_map.dtype.kind in 'iu'
    np.testing.assert_array_equal(label_map, labels)
    np.testing.assert_array_equal(read_for_report(pair), labels)
    check(pair)


@pytest.mark.parametrize('mode', SEVERAL_CHANNELS)
@pytest.mark.parametrize('reader', [check, read_for_report, lambda pair: read_label_map(pair[1])])
def test_colors_and_transparency_are_no_labels_for_any_reader(mode, reader, pair):
    Image.new(mode, LABELS.shape[::-1]).save(pair[1])
    with pytest.raises(UserError, match=f'{pair[1]} has mode {mode}: a label map has one channel'):
        reader(pair)


def test_16_bits_hold_labels_above_255(tmp_path):
    Image.fromarray(LABELS.astype(np.uint16) * 300).save(tmp_path / 'a.png')
    assert labels_in(read_label_map(tmp_path / 'a.png')) == {0, 300, 600}


@pytest.mark.parametrize(
    ('content', 'problem'), [(None, 'does not exist'), (b'no image', 'is not an image'), ('cut', 'cannot be read (')]
)
def test_what_is_wrong_with_a_file_follows_its_name(content, problem, tmp_path):
    path = tmp_path / 'a.png'
    if content == 'cut':
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
        content = path.read_bytes()[:-100]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageFileError) as error:
        read_label_map(path)
    assert error.value.problem.startswith(problem)
    assert str(error.value) == f'{path} {error.value.problem}'


@pytest.mark.parametrize(('orientation', 'size'), [(None, (2, 3)), (3, (2, 3)), (6, (3, 2))])
def test_sizes_are_height_and_width_of_the_turned_image(orientation, size, tmp_path):
    exif = Image.Exif()
    if orientation:
        exif[0x112] = orientation
    Image.new('RGB', (3, 2)).save(tmp_path / 'a.jpg', exif=exif)
    assert image_size(tmp_path / 'a.jpg') == size


@pytest.mark.parametrize(
    ('files', 'names'),
    [
        ([], []),
        (['/data/val/0001.jpg'], ['0001']),
        (['/data/val/0001.jpg', '/data/val/0002.png'], ['0001', '0002']),
        (['/data/a/0001.jpg', '/data/b/0001.jpg', '/data/b/c/0001.jpg'], ['a/0001', 'b/0001', 'b/c/0001']),
        (['/data/0001.jpg', '/data/0001.png', '/data/2.jpg'], ['0001.jpg', '0001.png', '2']),
        (['/data/a.jpg', '/data/a.png', '/data/a.jpg.png'], ['a.jpg', 'a.png', 'a.jpg.png']),
        (['/data/0001.jpg', '/data/0001.jpg'], ['0001', '0001']),
        (['/data/frame.1.jpg', '/data/frame.2.jpg'], ['frame.1', 'frame.2']),
        (['a/0001.jpg', '../0001.jpg'], ['here/a/0001', '0001']),
    ],
)
def test_files_are_named_by_their_paths_below_the_folder_that_they_share(files, names, tmp_path, monkeypatch):
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    by_file = names_below(files)
    assert [by_file[file] for file in files] == names
