import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmseg.datasets import LoadAnnotations
from own_layouts import write_images
from PIL import Image

from fasternet_mm.errors import UserError
from fasternet_mm.own_data.layouts.label_maps import write_label_maps
from fasternet_mm.own_data.layouts.problems import Fault
from fasternet_mm.own_data.layouts.recognition import read_own_data
from fasternet_mm.own_data.plan.data_checks import check_own_data

CAMVID = '64 128 64\tAnimal\n192 0 128\tArchway\n0 0 0\tVoid\n'
COLORS = [(64, 128, 64), (192, 0, 128)]


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
        image.putpalette([value for color in palette for value in color])
        image.putdata(array.ravel().tolist())
    image.save(path)


def pair(root, image='images/p00000.png', label='labels/p00000.png', array=None, palette=None):
    write_images((root / image).parent, [Path(image).name])
    save(root / label, labels(0, 1, 2, 255) if array is None else array, palette)


def read(root, ignored=None):
    data = read_own_data(str(root), False, ignored)
    assert data.problems == []
    return data


def out_of(tmp_path):
    return tmp_path.with_name(f'{tmp_path.name}_written')


def written(data, tmp_path, rows=4):
    """The first rows of the first label map as it is trained on, read as MMSegmentation does."""
    _, label = write_label_maps(data, out_of(tmp_path)).splits['train'][0]
    results = dict(seg_map_path=str(label), reduce_zero_label=False, seg_fields=[])
    return LoadAnnotations()(results)['gt_seg_map'][:rows, 0].tolist()


def color_map(values):
    result = np.zeros((48, 64, 3), np.uint8)
    result[:] = values[0]
    for row, value in enumerate(values):
        result[row] = value
    return result


@pytest.mark.parametrize(
    ('image', 'label'),
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
def test_images_and_label_maps_are_paired(image, label, tmp_path):
    for split, name in (('train', 'p00000'), ('train', 'p00001'), ('val', 'p00002')):
        (tmp_path / image.format(split, name)).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / image.format(split, name)), np.full((48, 64, 3), int(name[1:]), np.uint8))
        save(tmp_path / label.format(split, name), labels(1))
    data = read(tmp_path)
    assert {split: [(str(p), str(m)) for p, m in pairs] for split, pairs in data.splits.items()} == {
        split: [tuple(str(tmp_path / part.format(split, name)) for part in (image, label)) for name in names]
        for split, names in (('train', ['p00000', 'p00001']), ('val', ['p00002']))
    }
    assert data.class_counts == {'train': [2, 2], 'val': [1, 1]}


def test_cvats_camvid_has_a_folder_annot_for_each_part_whatever_its_name(tmp_path):
    pair(tmp_path, 'default/p00000.png', 'defaultannot/p00000.png')
    pair(tmp_path, 'night/p00001.png', 'nightannot/p00001.png')
    assert len(read(tmp_path).splits['train']) == 2


def test_label_maps_of_no_image_are_named_where_nothing_else_is_there(tmp_path):
    pair(tmp_path, 'images/p00000.png', 'masks/gt_00000.png')
    with pytest.raises(UserError, match=r'no PNG label maps .*gt_00000.png seems to be a label map, but no image'):
        read_own_data(str(tmp_path))


def test_of_several_label_maps_cityscapes_labels_are_taken_and_others_are_asked_about(tmp_path):
    for end in ('_gtFine_labelIds', '_gtFine_color', '_gtFine_instanceIds'):
        pair(tmp_path, 'leftImg8bit/train/p00000_leftImg8bit.png', f'gtFine/train/p00000{end}.png')
    ((_, label),) = read(tmp_path).splits['train']
    assert label.name == 'p00000_gtFine_labelIds.png'
    label.unlink()
    with pytest.raises(UserError, match=r'several label maps for 1 images .*color.*instanceIds.*leave one for each'):
        read(tmp_path)


def test_same_names_in_many_folders_are_paired_by_their_folders(tmp_path):
    for town in ('a', 'b'):
        pair(tmp_path, f'images/{town}/p00000.png', f'labels/{town}/p00000.png')
    pairs = read(tmp_path).splits['train']
    assert [(image.parent.name, label.parent.name) for image, label in pairs] == [('a', 'a'), ('b', 'b')]


def test_a_label_map_is_not_of_an_image_in_another_folder(tmp_path):
    pair(tmp_path, 'images/a/p00000.png', 'labels/a/p00000.png')
    pair(tmp_path, 'images/b/p00001.png', 'labels/a/p00001.png')
    data = read_own_data(str(tmp_path), False)
    assert [(str(image.parent.name), image.name) for image, _ in data.splits['train']] == [('a', 'p00000.png')]
    (problem,) = data.problems
    assert (problem.kind, problem.file) == (Fault.MISSING_IMAGE, str(tmp_path / 'labels/a/p00001.png'))


def test_drawings_are_neither_images_nor_label_maps(tmp_path):
    folders = 'SegmentationObject', 'SegmentationClassVisualization', 'overlays', 'predictions', 'labels/colormaps'
    for folder in folders:
        pair(tmp_path, 'JPEGImages/p00000.png', f'{folder}/p00000.png', color_map(COLORS))
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


def test_indices_without_names_are_classes_up_to_the_largest_and_gaps_are_told(tmp_path):
    pair(tmp_path, array=labels(0, 4, 255))
    data = read_own_data(str(tmp_path), False)
    (gap,) = data.problems
    assert gap.kind == Fault.NEVER_THERE
    assert 'no label map has the labels 1 to 3, others have up to 4' in str(gap)
    assert data.layout == 'index PNGs'
    assert data.classes == ['class 0', 'class 1', 'class 2', 'class 3', 'class 4']
    assert len(set(data.palette)) == 5
    assert all(0 <= part <= 255 for color in data.palette for part in color)
    missing = [problem.what for problem in check_own_data(data).problems if problem.kind == Fault.NO_SAMPLES]
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
    assert data.classes == ['road', 'sky', 'traffic light']
    assert written(data, tmp_path) == [0, 1, 2, 255]


def test_palettes_give_colors_and_must_agree(tmp_path):
    palette = [(9, 9, 9), (1, 2, 3), (4, 5, 6)]
    pair(tmp_path, array=labels(0, 1, 2), palette=palette)
    data = read(tmp_path)
    assert (data.layout, data.palette) == ('palette PNGs', palette)
    assert write_label_maps(data, tmp_path / 'out') is data
    assert not (tmp_path / 'out').exists()
    pair(tmp_path, 'images/p00001.png', 'labels/p00001.png', labels(0, 1), [(9, 9, 9), (7, 7, 7)])
    with pytest.raises(UserError, match=r'p00001.png has the color \(7, 7, 7\) for the label 1, other .*classes.txt'):
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
def test_colors_become_indices(name, text, palette, tmp_path):
    if palette:  # whatever the order in the file's palette, its colors count
        pair(tmp_path, array=labels(2, 1), palette=[(0, 0, 0), *COLORS])
    else:
        pair(tmp_path, array=color_map([COLORS[1], COLORS[0], (0, 0, 0)]))
    (tmp_path / name).write_text(text)
    data = read(tmp_path)
    assert (data.layout, data.classes, data.palette) == ('RGB colors', ['Animal', 'Archway'], COLORS)
    numbered = write_label_maps(data, tmp_path / 'out')
    assert (numbered.layout, numbered.classes) == ('index PNGs', ['Animal', 'Archway'])
    ((image, label),) = numbered.splits['train']
    assert image == tmp_path / 'images/p00000.png'
    label_map = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
    assert label_map.shape == (48, 64)
    assert label_map[:3, 0].tolist() == [1, 0, 255]


def test_label_maps_are_written_again_only_where_something_changed(tmp_path):
    for name in ('p00000', 'p00001'):
        pair(tmp_path, f'images/{name}.png', f'labels/{name}.png', color_map(COLORS))
    (tmp_path / 'classes.txt').write_text('Animal 64 128 64\nArchway 192 0 128\n')

    def write():
        maps = write_label_maps(read(tmp_path / 'data'), tmp_path / 'out').splits['train']
        return {label.name: (label.stat().st_mtime_ns, cv2.imread(str(label), -1)[:2, 0].tolist()) for _, label in maps}

    shutil.move(tmp_path / 'images', tmp_path / 'data/images')
    shutil.move(tmp_path / 'labels', tmp_path / 'data/labels')
    shutil.move(tmp_path / 'classes.txt', tmp_path / 'data/classes.txt')
    first = write()
    assert first == write()
    save(tmp_path / 'data/labels/p00001.png', color_map(COLORS[::-1]))
    second = write()
    assert second['p00000.png'] == first['p00000.png']
    assert (first['p00001.png'][1], second['p00001.png'][1]) == ([0, 1], [1, 0])
    changed = (tmp_path / 'data/labels/p00000.png').stat().st_mtime_ns
    save(tmp_path / 'data/labels/p00000.png', color_map(COLORS[::-1]))
    os.utime(tmp_path / 'data/labels/p00000.png', ns=(changed, changed))  # as archives with a fixed time do
    assert [values for _, values in write().values()] == [[1, 0], [1, 0]]
    (tmp_path / 'data/classes.txt').write_text('Archway 192 0 128\nAnimal 64 128 64\n')
    assert [values for _, values in write().values()] == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ('text', 'ignored', 'classes', 'trained'),
    [
        ('road\nsky\nvoid\ntree\n', None, ['road', 'sky', 'tree'], [0, 1, 255, 2, 255]),
        ('void\nroad\nsky\ntree\n', None, ['road', 'sky', 'tree'], [255, 0, 1, 2, 255]),
        ('road\nsky\ntree\nunlabeled\n', None, ['road', 'sky', 'tree'], [0, 1, 2, 255, 255]),
        ('road\nsky\ntree\n', 3, ['road', 'sky', 'tree'], [0, 1, 2, 255, 255]),
        (None, 3, ['class 0', 'class 1', 'class 2'], [0, 1, 2, 255, 255]),
        (None, 1, ['class 0', 'class 2', 'class 3'], [0, 255, 1, 2, 255]),
        (None, 0, ['class 1', 'class 2', 'class 3'], [255, 0, 1, 2, 255]),
        (None, 255, ['class 0', 'class 1', 'class 2', 'class 3'], [0, 1, 2, 3, 255]),
        ('3 tree\n0 road\n2 void\n1 sky\n', None, ['road', 'sky', 'tree'], [0, 1, 255, 2, 255]),
        ('255 glass\n0 road\n1 sky\n2 void\n3 tree\n', None, ['road', 'sky', 'tree', 'glass'], [0, 1, 255, 2, 3]),
    ],
)
def test_a_label_that_is_no_class_leaves_the_others_numbered_afresh(text, ignored, classes, trained, tmp_path):
    pair(tmp_path, array=labels(0, 1, 2, 3, 255))
    if text:
        (tmp_path / 'classes.txt').write_text(text)
    data = read(tmp_path, ignored)
    assert data.classes == classes
    assert written(data, tmp_path, 5) == trained
    assert out_of(tmp_path).exists() == (trained != [0, 1, 2, 3, 255])
    counts = [sum(label == number for label in trained) for number in range(len(classes))]
    assert data.class_counts == {'train': counts} == {'train': [1] * len(classes)}


def test_a_color_of_the_palette_stays_with_its_class_when_labels_are_numbered_afresh(tmp_path):
    palette = [(9, 9, 9), (1, 2, 3), (4, 5, 6)]
    pair(tmp_path, array=labels(0, 1, 2), palette=palette)
    data = read(tmp_path, 1)
    assert (data.classes, data.palette) == (['class 0', 'class 2'], [(9, 9, 9), (4, 5, 6)])


def test_a_label_to_ignore_that_no_label_map_has_is_told(tmp_path):
    pair(tmp_path)
    (problem,) = read_own_data(str(tmp_path), False, 11).problems
    assert '--ignore-label 11 changes nothing: no label map has the label 11' in str(problem)
    assert not problem.severe


@pytest.mark.parametrize(
    'text',
    [
        '1 road\n2 sky\n',
        '2, sky\n1, road',
        '1. road\n2. sky\n',
        '1: road\n2: sky\n',
        'id;name\n1;road\n2;sky\n',
        'name,id\nroad,1\nsky,2\n',
        '\ufeffid,name\r\n1,"road"\r\n2,"sky"\r\n',
        '1 road 10 20 30\n2 sky 40 50 60\n',
        '1 10 20 30 road\n2 40 50 60 sky\n',
    ],
)
def test_numbers_in_a_file_of_classes_are_labels(text, tmp_path):
    pair(tmp_path, array=np.where(labels(1) == 1, 1, 2).astype(np.uint8))
    (tmp_path / 'classes.txt').write_text(text, 'utf-8')
    data = read(tmp_path)
    assert (data.classes, written(data, tmp_path)) == (['road', 'sky'], [0, 1, 1, 1])
    save(tmp_path / 'labels/p00000.png', labels(1, 2))
    (problem,) = read_own_data(str(tmp_path), False).problems
    assert problem.severe
    assert 'has the labels 0, but 1 to 2 are classes, 255 ignored: give each a line in ' in str(problem)
    assert 'as in "0 void"' in str(problem)


def test_files_of_classes_that_differ_from_folder_to_folder_are_refused(tmp_path):
    for split, number in (('train', 0), ('valid', 1)):
        name = f'p0000{number}.png'
        pair(tmp_path, f'{split}/images/{name}', f'{split}/masks/{name}', labels(0, 1))
        (tmp_path / split / '_classes.csv').write_text('Pixel Value, Class\n0, road\n1, sky\n')
    assert read(tmp_path).classes == ['road', 'sky']
    (tmp_path / 'valid/_classes.csv').write_text('Pixel Value, Class\n0, sky\n1, road\n')
    with pytest.raises(UserError, match=r'train/_classes.csv and .*valid/_classes.csv differ: leave one'):
        read(tmp_path)


@pytest.mark.parametrize(
    ('text', 'names'),
    [
        ('class 0\nclass 1\n', ['class 0', 'class 1']),
        ('__ignore__\n_background_\ncat\n', ['_background_', 'cat']),
        ('name\nlabel\n', ['name', 'label']),
        ('7\n9\n', ['7', '9']),
    ],
)
def test_names_are_taken_as_they_are(text, names, tmp_path):
    pair(tmp_path, array=labels(1))
    (tmp_path / 'classes.txt').write_text(text)
    assert read(tmp_path).classes == names


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('0 road\nsky\n', 'has a number on 1 of its 2 lines'),
        ('0 road\n300 sky\n', 'up to 300: give each line its label, from 0 to 255'),
        ('0 road\n0 sky\n', 'has 0 twice'),
        ('road\nroad\n', 'has road twice'),
        (
            ''.join(f'c{number}\n' for number in range(300)),
            'has 300 classes of pixels, and label maps of 8 bits hold 1 to 255',
        ),
    ],
)
def test_a_file_of_classes_that_cannot_be_meant_is_refused(text, message, tmp_path):
    pair(tmp_path, array=labels(0, 1))
    (tmp_path / 'classes.txt').write_text(text)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def blended():
    """A disc of 255 on 0, enlarged with interpolation."""
    disc = (np.hypot(*np.mgrid[-6:6, -8:8]) < 5).astype(np.uint8) * 255
    return cv2.resize(disc, (64, 48), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize('text', [None, 'cell\n', 'background\ncell\n'])
def test_gray_values_between_0_and_255_are_no_classes_and_their_cause_is_named(text, tmp_path):
    for name in ('p00000', 'p00001'):
        pair(tmp_path, f'images/{name}.png', f'labels/{name}.png', blended())
    if text:
        (tmp_path / 'classes.txt').write_text(text)
    data = read_own_data(str(tmp_path), False)
    assert len(data.classes) <= 2
    assert data.splits == {'train': []}
    assert [problem.severe for problem in data.problems] == [True, True]
    assert all('come of JPEG, and of resizing that is not by the nearest' in str(problem) for problem in data.problems)


@pytest.mark.parametrize('values', [(0, 128), (0, 85, 170, 255), (50, 100, 150)])
def test_shades_of_gray_far_apart_need_a_file_that_says_what_they_are(values, tmp_path):
    pair(tmp_path, array=labels(*values))
    with pytest.raises(UserError, match=r'so far apart as shades of gray are .* write a file classes.txt'):
        read(tmp_path)
    shades = sorted({0, *values})
    (tmp_path / 'classes.txt').write_text(''.join(f'{value} c{value}\n' for value in shades))
    data = read(tmp_path)
    assert data.classes == [f'c{value}' for value in shades]
    assert written(data, tmp_path, len(values)) == [shades.index(value) for value in values]


@pytest.mark.parametrize(
    'values', [[*range(48)], [*range(140, 150), *range(0, 20), 255], [0, 3, 5, 17, 21, 64, 90, 149]]
)
def test_many_classes_and_gaps_are_no_shades_of_gray(values, tmp_path):
    pair(tmp_path, array=labels(*values))
    data = read_own_data(str(tmp_path), False)
    assert len(data.classes) == max(value for value in values if value < 255) + 1
    assert not any(problem.severe for problem in data.problems)


def test_gray_colors_of_the_file_are_colors_whatever_their_order(tmp_path):
    pair(tmp_path, array=labels(0, 255, 128))
    (tmp_path / 'classes.txt').write_text('cell 255 255 255\nrim 128 128 128\nbackground 0 0 0\n')
    data = read(tmp_path)
    assert (data.classes, written(data, tmp_path)) == (['cell', 'rim', 'background'], [2, 0, 1, 2])
    (tmp_path / 'labels/p00000.png').unlink()
    pair(tmp_path, array=labels(0, 255))
    (tmp_path / 'classes.txt').write_text('cell 255 255 255\nbackground 0 0 0\n')
    assert written(read(tmp_path), tmp_path) == [1, 0, 1, 1]


def test_black_and_white_beside_labels_are_two_notations(tmp_path):
    for number in range(3):
        pair(tmp_path, f'images/p0000{number}.png', f'labels/p0000{number}.png', labels(0, 1))
    save(tmp_path / 'labels/p00001.png', labels(0, 255))
    (problem,) = read_own_data(str(tmp_path), False).problems
    assert problem.severe
    assert f'1 have the values 0 and 255 alone ({tmp_path}/labels/p00001.png) and 2 have labels such as 1' in str(
        problem
    )
    (tmp_path / 'classes.txt').write_text('0 a\n1 b\n255 void\n')
    assert read(tmp_path).classes == ['a', 'b']
    (tmp_path / 'classes.txt').unlink()
    save(tmp_path / 'labels/p00002.png', labels(0, 1, 255))  # here 255 is what does not count
    assert read(tmp_path).classes == ['class 0', 'class 1']


def test_labels_beside_colors_are_two_notations(tmp_path):
    for number in range(3):
        pair(tmp_path, f'images/p0000{number}.png', f'labels/p0000{number}.png', color_map(COLORS))
    save(tmp_path / 'labels/p00001.png', labels(0, 1))
    (tmp_path / 'classes.txt').write_text('Animal 64 128 64\nArchway 192 0 128\n')
    first, *_ = read_own_data(str(tmp_path), False).problems
    assert first.severe
    assert f'1 have labels ({tmp_path}/labels/p00001.png) and 2 have colors ({tmp_path}/labels/p00000.png)' in str(
        first
    )


def test_labels_beyond_8_bits_are_refused_and_others_in_16_bits_are_read_right(tmp_path):
    pair(tmp_path, array=labels(0, 1, 2, 255).astype(np.uint16))
    data = read(tmp_path)
    assert len(data.classes) == 3
    assert written(data, tmp_path) == [0, 1, 2, 255]
    save(tmp_path / 'labels/p00000.png', np.where(labels(1) == 1, 300, 0).astype(np.uint16))
    (problem,) = read_own_data(str(tmp_path), False).problems
    assert problem.severe
    assert 'has the labels 300: labels are 0 to 254, and 255 where a pixel does not count' in str(problem)


def test_white_in_a_file_of_one_bit_is_foreground(tmp_path):
    pair(tmp_path, array=labels(0, 1).astype(bool))
    data = read(tmp_path)
    assert (data.classes, written(data, tmp_path)) == (['background', 'foreground'], [0, 1, 0, 0])


@pytest.mark.parametrize('mode', ['LA', 'RGBA'])
def test_what_is_transparent_is_black_and_what_is_half_transparent_is_refused(mode, tmp_path):
    colors = mode == 'RGBA'
    pair(tmp_path)
    (tmp_path / 'classes.txt').write_text('road 0 0 0\nsky 64 128 64\n' if colors else 'road\nsky\n')

    def save_with(alpha):
        image = Image.fromarray(color_map([(0, 0, 0), *COLORS[:1] * 2]) if colors else labels(0, 1, 1))
        image.putalpha(Image.fromarray(alpha))
        image.save(tmp_path / 'labels/p00000.png')

    alpha = np.full((48, 64), 255, np.uint8)
    alpha[2] = 0  # an eraser leaves the color that was there
    save_with(alpha)
    data = read(tmp_path)
    assert (data.classes, written(data, tmp_path)) == (['road', 'sky'], [0, 1, 0, 0])
    alpha[2] = 100
    save_with(alpha)
    (problem,) = read_own_data(str(tmp_path), False).problems
    assert problem.severe
    assert 'has pixels that are half transparent' in str(problem)


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
            Fault.WRONG_SIZE,
            'labels/p00000.png: has 47x64 pixels (H x W), but its image',
        ),
        (
            lambda r: save(r / 'labels/p00000.png', labels(2, 7)),
            Fault.UNKNOWN_LABEL,
            'has the labels 7, but 0 to 2 are',
        ),
        (lambda r: (r / 'labels/p00000.png').unlink(), Fault.MISSING_LABELS, 'images/p00000.png: has no label map'),
        (
            lambda r: (r / 'images/p00000.png').unlink(),
            Fault.MISSING_IMAGE,
            'is a label map, but no image has its name',
        ),
        (lambda r: (r / 'labels/p00000.png').write_bytes(b'x'), Fault.UNREADABLE, 'labels/p00000.png: is not an image'),
        (lambda r: (r / 'images/p00000.png').write_bytes(b'x'), Fault.UNREADABLE, 'images/p00000.png: is not an image'),
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
    assert [image.name for image, _ in data.splits['train']] == ['p00001.png']


def test_a_label_to_ignore_is_not_for_colors(tmp_path):
    pair(tmp_path, array=color_map(COLORS))
    (tmp_path / 'classes.txt').write_text('Animal 64 128 64\nArchway 192 0 128\n')
    with pytest.raises(UserError, match=r'--ignore-label 1 is for labels, .* name the color void'):
        read(tmp_path, 1)


def test_a_color_that_is_no_class_is_named(tmp_path):
    pair(tmp_path, array=color_map([*COLORS, (1, 2, 3)]))
    (tmp_path / 'classes.txt').write_text('Animal 64 128 64\nArchway 192 0 128\n')
    (problem,) = read_own_data(str(tmp_path), False).problems
    assert f'has the colors (1, 2, 3), which {tmp_path}/classes.txt does not name: give each a line there' in str(
        problem
    )


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
def test_colors_without_a_file_that_names_them_are_refused(text, message, tmp_path):
    pair(tmp_path, array=color_map(COLORS))
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
