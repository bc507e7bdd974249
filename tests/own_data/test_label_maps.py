import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from own_layouts import write_pictures
from PIL import Image

from fasternet_mm.errors import UserError
from fasternet_mm.own_data.checking import check_own_data
from fasternet_mm.own_data.content import Kind
from fasternet_mm.own_data.label_maps import write_label_maps
from fasternet_mm.own_data.layouts import read_own_data

CAMVID = '64 128 64\tAnimal\n192 0 128\tArchway\n0 0 0\tVoid\n'
COLOURS = [(64, 128, 64), (192, 0, 128)]


def labels(*values):
    """A label map with these values in its first rows."""
    result = np.zeros((48, 64), np.uint8)
    for row, value in enumerate(values):
        result[row] = value
    return result


def save(path, array, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image = image.convert('P')
        image.putpalette([value for colour in palette for value in colour])
        image.putdata(array.ravel().tolist())
    image.save(path)


def pair(root, picture='images/p00000.png', label='labels/p00000.png', array=None, palette=None):
    write_pictures((root / picture).parent, [Path(picture).name])
    save(root / label, labels(0, 1, 2, 255) if array is None else array, palette)


def read(root):
    data = read_own_data(str(root), False)
    assert data.problems == []
    return data


def colour_map(values):
    result = np.zeros((48, 64, 3), np.uint8)
    result[:] = values[0]
    for row, value in enumerate(values):
        result[row] = value
    return result


@pytest.mark.parametrize(
    ('picture', 'label'),
    [
        ('images/{}/{}.png', 'labels/{}/{}.png'),
        ('{}/images/{}.png', '{}/masks/{}.png'),
        ('img_dir/{}/{}.png', 'ann_dir/{}/{}.png'),
        ('{}/{}.png', '{}annot/{}.png'),
        ('JPEGImages/{}/{}.png', 'SegmentationClass/{}/{}.png'),
        ('images/{}/{}.png', 'annotations/{}/{}_mask.png'),
        ('{}/{}.png', '{}/{}_mask.png'),
        ('photos_{}/{}.png', 'ground-truth_gt_{}/{}-L.png'),
        ('leftImg8bit/{}/{}_leftImg8bit.png', 'gtFine/{}/{}_gtFine_labelIds.png'),
    ],
)
def test_pictures_and_label_maps_are_paired(picture, label, tmp_path):
    for split, name in (('train', 'p00000'), ('train', 'p00001'), ('val', 'p00002')):
        (tmp_path / picture.format(split, name)).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / picture.format(split, name)), np.full((48, 64, 3), int(name[1:]), np.uint8))
        save(tmp_path / label.format(split, name), labels(1))
    data = read(tmp_path)
    assert {split: [(str(p), str(m)) for p, m in pairs] for split, pairs in data.splits.items()} == {
        split: [tuple(str(tmp_path / part.format(split, name)) for part in (picture, label)) for name in names]
        for split, names in (('train', ['p00000', 'p00001']), ('val', ['p00002']))
    }
    assert data.class_counts == {'train': [2, 2], 'val': [1, 1]}


def test_of_several_label_maps_cityscapes_labels_are_taken_and_others_are_asked_about(tmp_path):
    for end in ('_gtFine_labelIds', '_gtFine_color', '_gtFine_instanceIds'):
        pair(tmp_path, 'leftImg8bit/train/p00000_leftImg8bit.png', f'gtFine/train/p00000{end}.png')
    ((_, label),) = read(tmp_path).splits['train']
    assert label.name == 'p00000_gtFine_labelIds.png'
    label.unlink()
    with pytest.raises(UserError, match=r'several label maps for 1 pictures .*color.*instanceIds.*leave one for each'):
        read(tmp_path)


def test_same_names_in_many_folders_are_paired_by_their_folders(tmp_path):
    for town in ('a', 'b'):
        pair(tmp_path, f'images/{town}/p00000.png', f'labels/{town}/p00000.png')
    for picture, label in read(tmp_path).splits['train']:
        assert picture.parent.name == label.parent.name


def test_a_label_map_is_not_of_an_image_in_another_folder(tmp_path):
    pair(tmp_path, 'images/a/p00000.png', 'labels/a/p00000.png')
    pair(tmp_path, 'images/b/p00001.png', 'labels/a/p00001.png')
    data = read_own_data(str(tmp_path), False)
    assert [(str(image.parent.name), image.name) for image, _ in data.splits['train']] == [('a', 'p00000.png')]
    (problem,) = data.problems
    assert (problem.kind, problem.file) == (Kind.MISSING_PICTURE, str(tmp_path / 'labels/a/p00001.png'))


def test_drawings_are_neither_images_nor_label_maps(tmp_path):
    for folder in ('SegmentationObject', 'SegmentationClassVisualization', 'overlays', 'predictions'):
        pair(tmp_path, 'JPEGImages/p00000.png', f'{folder}/p00000.png', colour_map(COLOURS))
    pair(tmp_path, 'JPEGImages/p00000.png', 'SegmentationClass/p00000.png', labels(0, 1))
    ((image, label),) = read(tmp_path).splits['train']
    assert (image.parent.name, label.parent.name) == ('JPEGImages', 'SegmentationClass')


def test_two_images_that_fit_a_label_map_equally_well_are_named(tmp_path):
    pair(tmp_path, 'images/p00000.png', 'labels/p00000.png')
    pair(tmp_path, 'photos/p00000.png', 'labels/p00000.png')
    with pytest.raises(
        UserError, match=r'labels/p00000.png .* may be images/p00000.png or photos/p00000.png: leave one'
    ):
        read(tmp_path)


def test_indices_without_names_are_classes_up_to_the_largest(tmp_path):
    pair(tmp_path, array=labels(0, 4, 255))
    data = read(tmp_path)
    assert (data.layout, data.ignored) == ('index PNGs', 255)
    assert data.classes == ['class 0', 'class 1', 'class 2', 'class 3', 'class 4']
    assert len(set(data.palette)) == 5
    assert all(0 <= part <= 255 for colour in data.palette for part in colour)
    missing = [problem.what for problem in check_own_data(data, False)]
    assert missing == [f"the class 'class {n}' has no samples in train" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    'text',
    [
        'road\nsky\ntraffic light\n',
        '# ours\n0 road\n1 sky\n2 traffic light\n',
        'Pixel Value, Class\n0, road\n1, sky\n2, traffic light\n',
    ],
)
def test_names_come_from_a_file(text, tmp_path):
    pair(tmp_path)
    (tmp_path / 'classes.txt').write_text(text)
    data = read(tmp_path)
    assert (data.classes, data.ignored) == (['road', 'sky', 'traffic light'], 255)


def test_the_last_name_may_say_that_it_is_no_class(tmp_path):
    pair(tmp_path, array=labels(0, 1, 2))
    (tmp_path / 'classes.txt').write_text('road\nsky\nvoid\n')
    data = read(tmp_path)
    assert (data.classes, data.ignored) == (['road', 'sky'], 2)


def test_palettes_give_colours_and_must_agree(tmp_path):
    palette = [(9, 9, 9), (1, 2, 3), (4, 5, 6)]
    pair(tmp_path, array=labels(0, 1, 2), palette=palette)
    data = read(tmp_path)
    assert (data.layout, data.palette) == ('palette PNGs', palette)
    assert write_label_maps(data, tmp_path / 'out') is data
    assert not (tmp_path / 'out').exists()
    pair(tmp_path, 'images/p00001.png', 'labels/p00001.png', labels(0, 1), [(9, 9, 9), (7, 7, 7)])
    with pytest.raises(UserError, match=r'p00001.png has the colour \(7, 7, 7\) for the label 1, other .*classes.txt'):
        read(tmp_path)


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('classes.txt', 'Animal 64 128 64\nArchway 192 0 128\nVoid 0 0 0\n'),
        ('label_colors.txt', CAMVID),
        ('labelmap.txt', '# label:color_rgb:parts:actions\nAnimal:64,128,64::\nArchway:192,0,128::\nvoid:0,0,0::\n'),
        ('class_dict.csv', 'name,r,g,b\nAnimal,64,128,64\nArchway,192,0,128\nVoid,0,0,0\n'),
    ],
)
@pytest.mark.parametrize('palette', [False, True])
def test_colours_become_indices(name, text, palette, tmp_path):
    if palette:  # whatever the order in the file's palette, its colours count
        pair(tmp_path, array=labels(2, 1), palette=[(0, 0, 0), *COLOURS])
    else:
        pair(tmp_path, array=colour_map([COLOURS[1], COLOURS[0], (0, 0, 0)]))
    (tmp_path / name).write_text(text)
    data = read(tmp_path)
    assert (data.layout, data.classes, data.palette) == ('RGB colours', ['Animal', 'Archway'], COLOURS)
    written = write_label_maps(data, tmp_path / 'out')
    assert (written.layout, written.classes, written.ignored) == ('index PNGs', ['Animal', 'Archway'], 255)
    ((picture, label),) = written.splits['train']
    assert picture == tmp_path / 'images/p00000.png'
    found = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
    assert found.shape == (48, 64)
    assert found[:3, 0].tolist() == [1, 0, 255]


def test_label_maps_are_written_again_only_where_something_changed(tmp_path):
    for name in ('p00000', 'p00001'):
        pair(tmp_path, f'images/{name}.png', f'labels/{name}.png', colour_map(COLOURS))
    (tmp_path / 'classes.txt').write_text('Animal 64 128 64\nArchway 192 0 128\n')

    def write():
        maps = write_label_maps(read(tmp_path / 'data'), tmp_path / 'out').splits['train']
        return {label.name: (label.stat().st_mtime_ns, cv2.imread(str(label), -1)[:2, 0].tolist()) for _, label in maps}

    shutil.move(tmp_path / 'images', tmp_path / 'data/images')
    shutil.move(tmp_path / 'labels', tmp_path / 'data/labels')
    shutil.move(tmp_path / 'classes.txt', tmp_path / 'data/classes.txt')
    first = write()
    assert first == write()
    save(tmp_path / 'data/labels/p00001.png', colour_map(COLOURS[::-1]))
    second = write()
    assert second['p00000.png'] == first['p00000.png']
    assert (first['p00001.png'][1], second['p00001.png'][1]) == ([0, 1], [1, 0])
    (tmp_path / 'data/classes.txt').write_text('Archway 192 0 128\nAnimal 64 128 64\n')
    assert [values for _, values in write().values()] == [[1, 0], [0, 1]]


@pytest.mark.parametrize(('names', 'classes'), [(None, ['background', 'foreground']), ('cell', ['background', 'cell'])])
def test_0_and_255_alone_are_background_and_foreground(names, classes, tmp_path):
    pair(tmp_path, array=labels(0, 255))
    if names:
        (tmp_path / 'classes.txt').write_text(names)
    data = read(tmp_path)
    assert data.classes == classes
    ((_, label),) = write_label_maps(data, tmp_path / 'out').splits['train']
    assert cv2.imread(str(label), cv2.IMREAD_UNCHANGED)[:3, 0].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ('change', 'kind', 'message'),
    [
        (
            lambda r: save(r / 'labels/p00000.png', labels(1)[1:]),
            Kind.WRONG_SIZE,
            'labels/p00000.png: has 64x47 pixels',
        ),
        (lambda r: save(r / 'labels/p00000.png', labels(2, 7)), Kind.UNKNOWN_LABEL, 'has the labels 7, but 0 to 2 are'),
        (lambda r: (r / 'labels/p00000.png').unlink(), Kind.MISSING_LABELS, 'images/p00000.png: has no label map'),
        (lambda r: (r / 'images/p00000.png').unlink(), Kind.MISSING_PICTURE, 'is the label map of no picture'),
        (lambda r: (r / 'labels/p00000.png').write_bytes(b'x'), Kind.UNREADABLE, 'labels/p00000.png: cannot be read'),
        (lambda r: (r / 'images/p00000.png').write_bytes(b'x'), Kind.UNREADABLE, 'images/p00000.png: is not a picture'),
    ],
)
def test_what_is_wrong_with_a_pair_is_named_and_it_is_left_out(change, kind, message, tmp_path):
    for name in ('p00000', 'p00001'):
        pair(tmp_path, f'images/{name}.png', f'labels/{name}.png')
    (tmp_path / 'classes.txt').write_text('a\nb\nc')
    assert len(read(tmp_path).splits['train']) == 2
    change(tmp_path)
    data = read_own_data(str(tmp_path), False)
    (problem,) = data.problems
    assert problem.kind == kind
    assert problem.severe
    assert message in str(problem)
    assert [picture.name for picture, _ in data.splits['train']] == ['p00001.png']


def test_a_colour_that_is_no_class_is_named(tmp_path):
    pair(tmp_path, array=colour_map([*COLOURS, (1, 2, 3)]))
    (tmp_path / 'classes.txt').write_text('Animal 64 128 64\nArchway 192 0 128\n')
    (problem,) = read_own_data(str(tmp_path), False).problems
    assert 'has the colours (1, 2, 3), which are no class' in str(problem)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'write a file classes.txt'),
        ('road\nsky\n', 'write a file classes.txt'),
        ('road 1 2 3\nsky\n', 'needs a line for each class'),
        ('road 1 2 3\nsky 1 2 3\n', 'has \\(1, 2, 3\\) twice'),
        ('', 'needs a line for each class'),
        ('void 1 2 3\n', 'needs a line for each class'),
    ],
)
def test_colours_without_a_file_that_names_them_are_refused(text, message, tmp_path):
    pair(tmp_path, array=colour_map(COLOURS))
    if text is not None:
        (tmp_path / 'classes.txt').write_text(text)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_label_maps_that_lose_are_refused(tmp_path):
    pair(tmp_path)
    Image.open(tmp_path / 'labels/p00000.png').save(tmp_path / 'labels/p00000.jpg')
    (tmp_path / 'labels/p00000.png').unlink()
    with pytest.raises(UserError, match=r'labels/p00000.jpg is not PNG'):
        read(tmp_path)


def test_two_label_maps_of_one_name_are_asked_about(tmp_path):
    for folder in ('labels', 'masks'):
        pair(tmp_path, label=f'{folder}/p00000.png')
    with pytest.raises(
        UserError, match=r'two label maps for images/p00000.png, labels/p00000.png and masks/p00000.png'
    ):
        read(tmp_path)
