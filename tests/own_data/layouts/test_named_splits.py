"""The splits that data have: by the names of folders, files, lists and keys."""

import cv2
import numpy as np
import pytest
from own_layouts import coco_content, via_records, voc_xml, write_images, write_json

from fasternet_mm.errors import UserError
from fasternet_mm.own_data.layouts.folder_words import split_of
from fasternet_mm.own_data.layouts.problems import Fault
from fasternet_mm.own_data.layouts.recognition import read_own_data

OBJECTS = [('bird', [10, 20, 30, 15], None)]
NAMES = [f'p0000{number}' for number in range(5)]
SPELLINGS = [('train', 'val'), ('Train', 'Validation'), ('TRAINING', 'VALID'), ('train2012', 'dev')]


def read(root, instances=True):
    """The stems of images by split, and the problems."""
    data = read_own_data(str(root), instances)
    return {split: [image.stem for image in images] for split, images in data.image_paths.items()}, data.problems


def voc(root, names=NAMES, lists=None, kind='Main'):
    write_images(root / 'JPEGImages', [f'{name}.png' for name in names])
    (root / 'Annotations').mkdir()
    for name in names:
        (root / f'Annotations/{name}.xml').write_text(voc_xml(f'{name}.png', OBJECTS))
    write_lists(root, lists or {}, kind)


def write_lists(root, lists, kind):
    for name, lines in lists.items():
        file = root / 'ImageSets' / kind / f'{name}.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('\ufeff' + ''.join(f'{line}\n' for line in lines), 'utf-8')


def label_maps(root, names=NAMES, folder='SegmentationClass'):
    write_images(root / 'JPEGImages', [f'{name}.png' for name in NAMES])
    for name in names:
        file = root / folder / f'{name}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.eye(48, 64, dtype=np.uint8))


@pytest.mark.parametrize(
    ('path', 'split'),
    [
        ('images/train', 'train'),
        ('Train/images', 'train'),
        ('VALIDATION', 'val'),
        ('valid', 'val'),
        ('images_test', 'test'),
        ('TestSet', 'test'),
        ('trainannot', 'train'),
        ('valImages', 'val'),
        ('train2017/val', 'val'),
        ('annotations/instances_Validation.json', 'val'),
        ('VOCDevKit/VOC2012', None),
        ('train_val', None),
        ('constraints', None),
    ],
)
def test_one_list_of_words_says_the_split(path, split):
    assert split_of(path) == split


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_splits_are_told_in_any_case_by_annotation_files_folders_and_keys(spelling, tmp_path):
    for part, names in zip(spelling, (NAMES[:3], NAMES[3:])):
        files = [f'{name}.png' for name in names]
        write_images(tmp_path / 'coco/images', files)
        write_json(tmp_path / f'coco/annotations/{part}.json', coco_content({file: OBJECTS for file in files}))
        write_images(tmp_path / f'labelme/{part}', files)
        write_images(tmp_path / f'yolo/images/{part}', files)
        for file in files:
            shape = dict(label='bird', points=[[1, 1], [5, 1], [5, 5]], shape_type='polygon')
            write_json(tmp_path / f'labelme/{part}/{file[:-4]}.json', dict(shapes=[shape], imagePath=file))
            (tmp_path / f'yolo/labels/{part}').mkdir(parents=True, exist_ok=True)
            (tmp_path / f'yolo/labels/{part}/{file[:-4]}.txt').write_text('0 0.5 0.5 0.25 0.25\n')
    keys = ''.join(f'{part}: images/{part}\n' for part in spelling)
    (tmp_path / 'yolo/data.yaml').write_text(f'\ufeff{keys}names: [bird]\n', 'utf-8')
    for layout in ('coco', 'labelme', 'yolo'):
        assert read(tmp_path / layout) == ({'train': NAMES[:3], 'val': NAMES[3:]}, []), layout


@pytest.mark.parametrize('with_folder', [True, False])
@pytest.mark.parametrize('layout', ['coco', 'via'])
def test_one_file_of_all_images_has_the_splits_of_their_folders(layout, with_folder, tmp_path):
    places = {f'p0000{number}.png': 'Validation' if number > 2 else 'images_Train' for number in range(5)}
    for image, place in places.items():
        write_images(tmp_path / place, [image])
    objects = {f'{place}/{image}' if with_folder else image: OBJECTS for image, place in places.items()}
    content = coco_content(objects) if layout == 'coco' else dict(_via_img_metadata=via_records(objects))
    write_json(tmp_path / 'instances_default.json', content)
    assert read(tmp_path) == (dict(train=NAMES[:3], val=NAMES[3:]), [])


@pytest.mark.parametrize('spelling', SPELLINGS)
@pytest.mark.parametrize('kind', ['Main', 'Segmentation', 'Layout', 'main'])
def test_lists_of_images_are_read_in_any_case_and_from_every_folder(kind, spelling, tmp_path):
    lists = dict(zip(spelling, (NAMES[:3], NAMES[3:])))
    voc(tmp_path / 'objects', lists=lists, kind=kind)
    assert read(tmp_path / 'objects') == ({'train': NAMES[:3], 'val': NAMES[3:]}, [])
    label_maps(tmp_path / 'maps')
    write_lists(tmp_path / 'maps', lists, kind)
    assert read(tmp_path / 'maps', False) == ({'train': NAMES[:3], 'val': NAMES[3:]}, [])


def test_the_challenge_as_published_has_objects_by_main_and_label_maps_by_segmentation(tmp_path):
    main = dict(
        train=NAMES[:2],
        val=NAMES[2:],
        trainval=NAMES,
        aeroplane_train=[f'{name} -1' for name in NAMES[:2]],
        train_val=[f'{name}  1' for name in NAMES[2:]],  # of the class train
        test_train=[f'{name}  0' for name in NAMES],
    )
    voc(tmp_path, lists=main)
    for folder in ('SegmentationClass', 'SegmentationObject'):
        label_maps(tmp_path, NAMES[1:4], folder=folder)
    write_lists(tmp_path, dict(train=NAMES[3:4], val=NAMES[1:3], trainval=NAMES[1:4]), 'Segmentation')
    write_lists(tmp_path, dict(train=[f'{NAMES[0]} 1', f'{NAMES[0]} 2']), 'Layout')
    write_lists(tmp_path, dict(train=[f'{NAMES[0]} 1'], jumping_train=[f'{NAMES[0]} 1 -1']), 'Action')
    assert read(tmp_path) == ({'train': NAMES[:2], 'val': NAMES[2:]}, [])
    assert read(tmp_path, False) == ({'train': NAMES[3:4], 'val': NAMES[1:3]}, [])


VOTT = dict(
    cat_train=[f'{name}.png {sign}1' for name, sign in zip(NAMES[:3], ('', '-', ''))],
    cat_val=[f'{name}.png 1' for name in NAMES[3:]],
    test_train=[f'{name}.png -1' for name in NAMES[:3]],
    test_val=[f'{name}.png 1' for name in NAMES[3:]],
)
"""VoTT writes lists of classes alone, here of two, 'cat' and 'test'; all images of the split are in each."""


@pytest.mark.parametrize(
    ('lists', 'splits'),
    [
        (dict(trainval=NAMES), {'train': NAMES}),
        (dict(trainval=NAMES, val=NAMES[3:]), {'train': NAMES[:3], 'val': NAMES[3:]}),
        (dict(trainval=NAMES[:3], test=NAMES[3:]), {'train': NAMES[:3], 'test': NAMES[3:]}),
        (dict(default=NAMES), {'train': NAMES}),
        (dict(train=[f'JPEGImages/{name}.png' for name in NAMES]), {'train': NAMES}),
        (dict(train=[f'{name}.png SegmentationClass/{name}.png' for name in NAMES]), {'train': NAMES}),
        (VOTT, {'train': NAMES[:3], 'val': NAMES[3:]}),
        (VOTT | dict(train=NAMES), {'train': NAMES}),
    ],
)
def test_trainval_lists_of_tools_and_paths_in_lists(lists, splits, tmp_path):
    voc(tmp_path, lists=lists)
    assert read(tmp_path) == (splits, [])


def test_what_no_list_names_is_said(tmp_path):
    voc(tmp_path / 'objects', lists=dict(train=NAMES[:2], val=NAMES[3:4]))
    files, (problem,) = read(tmp_path / 'objects')
    assert files == {'train': NAMES[:2], 'val': NAMES[3:4]}
    assert (problem.kind, problem.severe) == (Fault.NOT_LISTED, False)
    assert '2 of 5 images are in none of its lists' in problem.what
    assert 'p00002.png, JPEGImages/p00004.png' in problem.what
    label_maps(tmp_path / 'maps', NAMES[:3])
    write_lists(tmp_path / 'maps', dict(train=NAMES[:2]), 'Segmentation')
    files, (problem,) = read(tmp_path / 'maps', False)
    assert files == {'train': NAMES[:2]}  # images without label maps need not be listed
    assert '1 of 3 images are in none of its lists' in problem.what


def test_what_a_list_names_and_is_not_there_must_be_mended(tmp_path):
    label_maps(tmp_path, NAMES[:3])
    write_lists(tmp_path, dict(train=[*NAMES[:4], 'p99999']), 'Segmentation')
    files, problems = read(tmp_path, False)
    assert files == {'train': NAMES[:3]}
    assert [(problem.kind, problem.severe) for problem in problems] == [
        (Fault.MISSING_IMAGE, True),
        (Fault.MISSING_LABELS, True),
    ]
    assert 'names p99999, which is not there' in problems[0].what
    assert problems[1].file.endswith('p00003.png')


def test_listed_images_without_an_xml_file_are_background(tmp_path):
    voc(tmp_path, lists=dict(train=NAMES))
    (tmp_path / f'Annotations/{NAMES[1]}.xml').unlink()
    assert read(tmp_path) == ({'train': NAMES}, [])
    data = read_own_data(str(tmp_path), True)
    assert data.class_counts == {'train': [4]}


def test_lists_that_name_nothing_are_refused(tmp_path):
    voc(tmp_path, lists=dict(train=['a', 'b']))
    with pytest.raises(
        UserError, match=r'lists of images \(ImageSets/Main/train.txt\), but they name none that is there'
    ):
        read(tmp_path)


@pytest.mark.parametrize('layout', ['labelme', 'voc', 'maps'])
def test_the_folder_of_the_annotations_may_say_the_split(layout, tmp_path):
    write_images(tmp_path / 'images', [f'{name}.png' for name in NAMES])
    for split, names in (('train', NAMES[:3]), ('val', NAMES[3:])):
        write_annotations(tmp_path / f'labels/{split}', names, layout)
    assert read(tmp_path, layout != 'maps') == ({'train': NAMES[:3], 'val': NAMES[3:]}, [])


@pytest.mark.parametrize('layout', ['labelme', 'voc', 'maps'])
def test_folders_that_contradict_each_other_are_named(layout, tmp_path):
    write_images(tmp_path / 'images', [f'{NAMES[0]}.png'])
    write_images(tmp_path / 'images/train', [f'{NAMES[1]}.png'])
    write_annotations(tmp_path / 'labels', NAMES[:1], layout)
    write_annotations(tmp_path / 'labels/val', NAMES[1:2], layout)
    files, (problem,) = read(tmp_path, layout != 'maps')
    assert files == {'train': NAMES[:2]}  # the image's folder counts
    assert problem.kind == Fault.SPLITS_DIFFER
    assert 'labels/val/p00001' in problem.what
    assert 'images/train/p00001.png' in problem.what


def test_a_file_of_one_split_that_names_images_of_another_is_named(tmp_path):
    for split, other in (('train', 'val'), ('val', 'train')):
        write_images(tmp_path / f'images/{split}', [f'{split}.png'.replace(split, NAMES[split == 'val'])])
        name = f'{other}/{NAMES[other == "val"]}.png'
        write_json(tmp_path / f'annotations/{split}.json', coco_content({name: OBJECTS}))
    files, problems = read(tmp_path)
    assert files == {'train': [NAMES[1]], 'val': [NAMES[0]]}
    assert [problem.kind for problem in problems] == [Fault.SPLITS_DIFFER] * 2
    assert 'the folder says val, but the file train, which counts' in problems[0].what


def test_a_key_of_data_yaml_that_names_a_folder_of_another_split_is_named(tmp_path):
    for split in ('train', 'val'):
        write_images(tmp_path / f'images/{split}', [f'{NAMES[split == "val"]}.png'])
        (tmp_path / f'labels/{split}').mkdir(parents=True)
        (tmp_path / f'labels/{split}/{NAMES[split == "val"]}.txt').write_text('0 0.5 0.5 0.25 0.25\n')
    (tmp_path / 'data.yaml').write_text('train: images/train\nval: images/train\nnames: [cat]\n')
    files, (problem,) = read(tmp_path)
    assert files == {'train': NAMES[:1], 'val': NAMES[:1]}
    assert (problem.kind, problem.severe) == (Fault.SPLITS_DIFFER, False)
    assert 'its val is images/train, whose name says train: val counts' in problem.what


def write_annotations(folder, names, layout):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if layout == 'maps':
            cv2.imwrite(str(folder / f'{name}.png'), np.eye(48, 64, dtype=np.uint8))
        elif layout == 'voc':
            (folder / f'{name}.xml').write_text(voc_xml(f'{name}.png', OBJECTS))
        else:
            shape = dict(label='bird', points=[[1, 1], [5, 1], [5, 5]], shape_type='polygon')
            write_json(folder / f'{name}.json', dict(shapes=[shape], imagePath=f'{name}.png'))
