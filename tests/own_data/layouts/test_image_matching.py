"""Which image an annotation file means, in every layout."""

import json
import unicodedata
from random import Random

import cv2
import numpy as np
import pytest
from own_layouts import coco_content, voc_xml, write_images, write_json

from fasternet_mm.errors import UserError
from fasternet_mm.own_data.layouts.data_folder import DataFolder
from fasternet_mm.own_data.layouts.label_maps import find_label_maps
from fasternet_mm.own_data.layouts.problems import Fault
from fasternet_mm.own_data.layouts.recognition import read_own_data

BOX = [10, 20, 30, 15]
OBJECTS = [('bird', BOX, None)]
NAME, OTHER = 'p00000.png', 'p00001.png'


def images(root, *folders, names=(NAME,)):
    for folder in folders:
        write_images(root / folder, names)


def coco(root, *names, file='annotations.json'):
    write_json(root / file, coco_content({name: OBJECTS for name in names}))


def via(root, *names, file='via.json'):
    shape = dict(name='rect', x=10, y=20, width=30, height=15)
    region = dict(shape_attributes=shape, region_attributes=dict(kind='bird'))
    write_json(root / file, {name: dict(filename=name, size=1, regions=[region]) for name in names})


def labelme(root, file, path, *labels):
    shapes = [dict(label=label, points=[[1, 1], [5, 1], [5, 5]], shape_type='polygon') for label in labels or ['bird']]
    write_json(root / file, dict(shapes=shapes, imagePath=path, imageData=None, imageHeight=48, imageWidth=64))


def voc(root, file, name=NAME):
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(voc_xml(name, OBJECTS))


def yolo_list(root, *names):
    (root / 'list.txt').write_text('\n'.join(names))
    (root / 'data.yaml').write_text('train: list.txt\nnames: [bird]\n')
    for folder in ('labels', 'labels/s1'):
        (root / folder).mkdir()
        for name in names:
            (root / folder / f'{name[-10:-4]}.txt').write_text('0 0.5 0.5 0.25 0.25\n')


NAMING = dict(coco=coco, via=via, yolo=yolo_list)
"""Layouts in which one file names many images."""

ALONE = dict(
    labelme=lambda root: labelme(root, 'json/p00000.json', NAME),
    voc=lambda root: voc(root, 'Annotations/p00000.xml'),
    coco=lambda root: coco(root, NAME),
    via=lambda root: via(root, NAME),
)


def read(root):
    """What was read of images, with how many objects each; and what is wrong."""
    data = read_own_data(str(root), True)
    files = {}
    for split, content in data.splits.items():
        counts = {image['file_name']: 0 for image in content['images']}
        by_id = {image['id']: image['file_name'] for image in content['images']}
        for record in content['annotations']:
            counts[by_id[record['image_id']]] += 1
        files[split] = counts
    return files, data.problems


def severe(problems):
    return [problem for problem in problems if problem.severe]


def refusal(root, instances=True):
    with pytest.raises(UserError) as error:
        read_own_data(str(root), instances)
    return str(error.value)


@pytest.mark.parametrize(
    'others',
    [
        ['masks'],
        ['SegmentationClass', 'SegmentationObject', 'SegmentationClassVisualization'],
        ['annotations/viz', 'overlays', 'predictions', 'thumbnails'],
        ['photos_old', 'a'],
    ],
)
@pytest.mark.parametrize('layout', ALONE)
def test_folders_of_images_come_before_others(layout, others, tmp_path):
    images(tmp_path, 'JPEGImages', *others)
    ALONE[layout](tmp_path)
    expected = ['JPEGImages/p00000.png']
    if others[0] == 'photos_old':  # photos may be of images too
        assert f'JPEGImages/{NAME}' in refusal(tmp_path)
    else:
        assert [*read(tmp_path)[0]['train']] == expected


@pytest.mark.parametrize('layout', ALONE)
def test_two_images_that_fit_equally_well_are_named(layout, tmp_path):
    images(tmp_path, 'first', 'second')
    ALONE[layout](tmp_path)
    said = refusal(tmp_path)
    assert f'may be first/{NAME} or second/{NAME}: leave one' in said


@pytest.mark.parametrize('layout', ALONE)
def test_images_in_a_folder_of_masks_alone_are_taken_and_it_is_said(layout, tmp_path):
    images(tmp_path, 'masks')
    ALONE[layout](tmp_path)
    files, problems = read(tmp_path)
    assert files == {'train': {f'masks/{NAME}': 1}}
    assert [(problem.kind, problem.file) for problem in problems] == [(Fault.UNLIKELY_FOLDER, str(tmp_path / 'masks'))]


@pytest.mark.parametrize('layout', NAMING)
def test_an_image_that_is_missing_is_not_replaced_by_its_mask(layout, tmp_path):
    images(tmp_path, 'images', names=[NAME])
    images(tmp_path, 'masks', names=[NAME, OTHER])
    NAMING[layout](tmp_path, NAME, OTHER)
    files, problems = read(tmp_path)
    assert files == {'train': {f'images/{NAME}': 1}}
    (problem,) = severe(problems)
    assert (problem.kind, problem.file) == (Fault.MISSING_IMAGE, str(tmp_path / 'images' / OTHER))


@pytest.mark.parametrize(
    'prefix',
    [
        'data/images/',
        'images\\1/',
        'C:\\Users\\me\\images\\',
        '/home/me/images/',
        '../../elsewhere/',
        '/data/upload/1/',
        '/data/local-files/?d=scans%2F',
        'http://localhost:8080/data/upload/1/',
        'https://host/a%20b/',
        's3://bucket/folder/',
        'file:///home/me/',
    ],
)
@pytest.mark.parametrize('layout', NAMING)
def test_paths_of_another_machine_are_matched_by_their_ends(layout, prefix, tmp_path):
    images(tmp_path, 'images', names=[NAME, OTHER])
    NAMING[layout](tmp_path, prefix + NAME, prefix + OTHER)
    files, problems = read(tmp_path)
    assert problems == []
    assert files == {'train': {f'images/{NAME}': 1, f'images/{OTHER}': 1}}


def test_percent_signs_are_decoded_only_where_no_file_has_them(tmp_path):
    images(tmp_path, 'images', names=[NAME, OTHER])
    (tmp_path / 'images' / NAME).rename(tmp_path / 'images/a b.png')
    (tmp_path / 'images' / OTHER).rename(tmp_path / 'images/c%20d.png')
    coco(tmp_path, 'a%20b.png', 'c%20d.png')
    assert read(tmp_path) == ({'train': {'images/a b.png': 1, 'images/c%20d.png': 1}}, [])


@pytest.mark.parametrize('layout', ALONE)
@pytest.mark.parametrize('form', ['NFC', 'NFD'])
def test_names_that_look_the_same_are_the_same(layout, form, tmp_path):
    name = '사진é'
    other = 'NFC' if form == 'NFD' else 'NFD'
    images(tmp_path, 'images', names=[NAME])
    (tmp_path / 'images' / NAME).rename(tmp_path / 'images' / (unicodedata.normalize(form, name) + '.png'))
    ALONE[layout](tmp_path)
    for file in [*tmp_path.rglob('*.json'), *tmp_path.rglob('*.xml')]:
        text = json.dumps(unicodedata.normalize(other, name))[1:-1] if file.suffix == '.json' else name
        file.write_text(file.read_text().replace('p00000', text))
        if layout in ('labelme', 'voc'):
            file.rename(file.with_stem(unicodedata.normalize(other, name)))
    files, problems = read(tmp_path)
    assert problems == []
    assert [[*part.values()] for part in files.values()] == [[1]]


@pytest.mark.parametrize('end', ['', '_mask'])
def test_label_maps_and_yolos_labels_have_names_that_look_the_same(end, tmp_path):
    image, label = unicodedata.normalize('NFD', 'é'), unicodedata.normalize('NFC', 'é')
    images(tmp_path, 'images', 'masks')
    (tmp_path / 'images' / NAME).rename(tmp_path / f'images/{image}.png')
    cv2.imwrite(str(tmp_path / f'masks/{label}{end}.png'), np.eye(48, 64, dtype=np.uint8))
    (tmp_path / 'masks' / NAME).unlink()
    data = read_own_data(str(tmp_path), False)
    assert (len(data.splits['train']), data.problems) == (1, [])
    if not end:
        (tmp_path / 'labels').mkdir()
        (tmp_path / f'labels/{label}.txt').write_text('0 0.5 0.5 0.25 0.25\n')
        (tmp_path / 'data.yaml').write_text('train: images\nnames: [bird]\n')
        assert read(tmp_path)[0] == {'train': {f'images/{image}.png': 1}}
        (tmp_path / f'labels/{label}.txt').rename(tmp_path / f'images/{label}.txt')
        assert read(tmp_path)[0] == {'train': {f'images/{image}.png': 1}}


def test_a_name_in_another_case_is_taken_where_it_is_the_only_one(tmp_path):
    images(tmp_path, 'images', names=[NAME])
    coco(tmp_path, 'P00000.PNG')
    assert read(tmp_path) == ({'train': {f'images/{NAME}': 1}}, [])
    images(tmp_path, 'images')
    (tmp_path / 'images' / NAME).rename(tmp_path / 'images/P00000.png')
    images(tmp_path, 'images')
    assert 'has none of them' in refusal(tmp_path)


@pytest.mark.parametrize('layout', NAMING)
def test_an_image_of_another_folder_does_not_stand_in_for_one_that_is_missing(layout, tmp_path):
    images(tmp_path, 'images/s1', names=[OTHER])
    images(tmp_path, 'images/s2', names=[NAME])
    NAMING[layout](tmp_path, f's1/{NAME}', f's1/{OTHER}')
    _, problems = read(tmp_path)
    assert [problem.file for problem in severe(problems)] == [str(tmp_path / f'images/s1/{NAME}')]


def test_an_image_of_another_split_does_not_stand_in_for_one_that_is_missing(tmp_path):
    images(tmp_path, 'train', names=[OTHER])
    images(tmp_path, 'val', names=[NAME, OTHER])
    for split in ('train', 'val'):
        coco(tmp_path, NAME, OTHER, file=f'{split}.json')
    files, problems = read(tmp_path)
    assert files == {'train': {f'train/{OTHER}': 1}, 'val': {f'val/{NAME}': 1, f'val/{OTHER}': 1}}
    assert [problem.file for problem in severe(problems)] == [str(tmp_path / 'train' / NAME)]


@pytest.mark.parametrize('folders', [('Annotations/{}', 'JPEGImages/{}'), ('{}/xml', '{}/images'), ('{}', '{}')])
@pytest.mark.parametrize('layout', ['voc', 'labelme'])
def test_files_of_one_image_have_its_path_below_their_folder(layout, folders, tmp_path):
    for camera in ('cam0', 'cam1'):
        images(tmp_path, folders[1].format(camera))
        if layout == 'voc':
            voc(tmp_path, folders[0].format(camera) + '/p00000.xml')
        else:
            labelme(tmp_path, folders[0].format(camera) + '/p00000.json', f'D:\\shots\\{NAME}')
    files, problems = read(tmp_path)
    assert problems == []
    assert files == {'train': {f'{folders[1].format(camera)}/{NAME}': 1 for camera in ('cam0', 'cam1')}}


@pytest.mark.parametrize('path', [NAME, f'C:\\x\\{NAME}', f'/home/me/{NAME}'])
@pytest.mark.parametrize('layout', ['voc', 'labelme'])
def test_an_image_beside_other_annotations_does_not_stand_in_for_a_missing_one(layout, path, tmp_path):
    images(tmp_path, 'train', names=[OTHER])
    images(tmp_path, 'val')
    for name in (NAME, OTHER):
        if layout == 'voc':
            voc(tmp_path, f'train/{name[:-4]}.xml', path.replace(NAME, name))
        else:
            labelme(tmp_path, f'train/{name[:-4]}.json', path.replace(NAME, name))
    data = read_own_data(str(tmp_path), True)
    assert data.class_counts == {'train': [1]}
    assert [problem.severe for problem in data.problems] == [True]
    assert 'p00000' in str(data.problems[0])


def test_an_image_beside_its_annotation_is_its_image_whatever_the_folder_is_called(tmp_path):
    for folder, name in (('annotations', NAME), ('images', OTHER)):
        images(tmp_path, folder, names=[name])
        labelme(tmp_path, f'{folder}/{name[:-4]}.json', name)
    assert read(tmp_path) == ({'train': {f'annotations/{NAME}': 1, f'images/{OTHER}': 1}}, [])


def test_an_imagepath_with_folders_leads_below_any_folder(tmp_path):
    images(tmp_path, 'images/a', 'images/b')
    labelme(tmp_path, 'json/first.json', f'b/{NAME}')
    labelme(tmp_path, 'json/second.json', f'..\\images\\a\\{NAME}')
    assert read(tmp_path) == ({'train': {f'images/a/{NAME}': 1, f'images/b/{NAME}': 1}}, [])


def test_an_xml_files_filename_decides_between_images_of_its_name(tmp_path):
    images(tmp_path, 'images')
    cv2.imwrite(str(tmp_path / 'images/p00000.jpg'), np.zeros((48, 64, 3), np.uint8))
    voc(tmp_path, 'Annotations/p00000.xml', NAME)
    assert read(tmp_path)[0] == {'train': {f'images/{NAME}': 1}}
    voc(tmp_path, 'Annotations/p00000.xml', 'p00000')
    assert 'may be images/p00000.jpg or images/p00000.png' in refusal(tmp_path)


@pytest.mark.parametrize('path', ['p00000.json', 'elsewhere.png', None, ''])
def test_where_imagepath_is_no_image_it_is_the_one_of_the_files_name(path, tmp_path):
    images(tmp_path, '.')
    labelme(tmp_path, 'p00000.json', path)
    assert read(tmp_path) == ({'train': {NAME: 1}}, [])


def test_drawings_beside_labelmes_images_are_no_background(tmp_path):
    images(tmp_path, '.', names=[NAME, OTHER])
    for end in ('_viz', '_mask', '_overlay'):
        cv2.imwrite(str(tmp_path / f'p00000{end}.png'), np.zeros((48, 64, 3), np.uint8))
    labelme(tmp_path, 'p00000.json', NAME)
    assert read(tmp_path)[0] == {'train': {NAME: 1, OTHER: 0}}


@pytest.mark.parametrize('layout', NAMING)
def test_where_no_image_is_there_the_first_ones_and_the_nearest_file_are_named(layout, tmp_path):
    images(tmp_path, 'images', names=['p00009.png'])
    NAMING[layout](tmp_path, NAME, OTHER, 'p00002.png', 'p00003.png')
    (tmp_path / 'broken.json').write_text('{"images": [')
    said = refusal(tmp_path)
    assert 'names 4 images (' in said
    assert all(name in said for name in (NAME, OTHER)) or 'p00003.png, p00002.png, p00001.png, …' in said
    assert f"{tmp_path} has none of them (did you mean 'p00009.png'?)" in said
    assert f'(before that: {tmp_path}/broken.json: is not JSON' in said


def test_where_no_annotation_can_be_read_the_first_mistakes_are_shown(tmp_path):
    images(tmp_path, 'images')
    for number in range(5):
        voc(tmp_path, f'Annotations/{number}.xml')
        (tmp_path / f'Annotations/{number}.xml').write_text('<annotation><object>')
    said = refusal(tmp_path)
    assert said.startswith(f'{tmp_path} has no annotation file that can be read')
    assert f'(before that: {tmp_path}/Annotations/0.xml: is not XML' in said
    assert said.endswith('; … (5 in all))')


@pytest.mark.parametrize('layout', ['voc', 'labelme'])
def test_where_no_file_of_one_image_has_it_the_first_ones_are_named(layout, tmp_path):
    images(tmp_path, 'images', names=['p00009.png'])
    for number in range(4):
        name = f'p0000{number}.png'
        if layout == 'voc':
            voc(tmp_path, f'Annotations/p0000{number}.xml', name)
        else:
            labelme(tmp_path, f'Annotations/p0000{number}.json', name)
    said = refusal(tmp_path)
    assert f'{tmp_path}/Annotations names 4 images (p00000.png, p00001.png, p00002.png, …), and {tmp_path} has' in said
    assert f"{tmp_path} has none of them (did you mean 'p00009.png'?)" in said


def test_nothing_outside_of_the_folder_is_opened(tmp_path):
    images(tmp_path, 'elsewhere', names=['p00007.png'])
    images(tmp_path, 'data/images', names=[OTHER])
    coco(tmp_path / 'data', OTHER, '../elsewhere/p00007.png', str(tmp_path / 'elsewhere/p00007.png'))
    files, problems = read(tmp_path / 'data')
    assert files == {'train': {f'images/{OTHER}': 1}}
    assert [problem.kind for problem in problems] == [Fault.OUTSIDE_FOLDER] * 2


def nested(random, root, groups):
    """The path of each image, 'GROUP/NUMBER', with the groups below or above the folder of all."""
    below = random.random() < 0.5
    paths = {}
    for group in groups:
        for number in range(random.randint(1, 3)):
            parts = (root, group) if below else (group, root)
            paths[f'{group}/{number}'] = '/'.join([*filter(None, parts), str(number)])
    return paths


@pytest.mark.parametrize('seed', range(40))
def test_in_nested_folders_no_image_is_lost_or_taken_for_another(seed, tmp_path):
    random = Random(seed)
    groups = random.choice(
        [[''], ['cam0', 'cam1'], ['train', 'val'], ['train/a', 'train/b', 'val/a'], ['a/b', 'a/c', 'd/b']]
    )
    paths = nested(random, random.choice(['images', 'JPEGImages', 'data/imgs', 'photos', '']), groups)
    truth = {key: f'{path}.jpg' for key, path in paths.items()}
    missing = set(random.sample([*truth], random.randint(0, len(truth) - 1)))
    files = [path for key, path in truth.items() if key not in missing]
    for folder in random.sample(['viz', 'overlays', 'predictions', 'SegmentationObject'], random.randint(0, 2)):
        files += [f'{folder}/{key}.{random.choice(["jpg", "png"])}' for key in truth]
    labels = {f'{random.choice(["Annotations", "labels"])}/{key}': key for key in truth}
    label_maps = [f'{path}.png'.replace('//', '/') for path in labels]
    for file in [*files, *label_maps]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    folder = DataFolder(tmp_path)

    prefix = random.choice(['', 'C:\\me\\set\\', '/home/me/x/', 'http://h/up/', 'images/'])
    xml = [label.replace('.png', '.xml') for label in label_maps]
    names = [prefix + key.rpartition('/')[2] + '.jpg' for key in labels.values()]
    for images, keys in (
        (folder.find_images([f'{prefix}{key.lstrip("/")}.jpg' for key in truth], 'all.json', None), truth),
        (folder.images_of(xml, names, stem_first=True), labels.values()),
        (folder.images_of(xml, names, stem_first=False), labels.values()),
    ):
        assert {key: image for key, image in zip(keys, images) if image in folder.all} == {
            key: image for key, image in truth.items() if key not in missing
        }
    pairs = {label: image for image, label in find_label_maps(folder)}
    assert pairs == {label: truth[key] for label, key in zip(label_maps, labels.values()) if key not in missing}


# Class names, and labels that are none


def test_labelmes_ignored_regions_do_not_count_and_background_is_no_object(tmp_path):
    images(tmp_path, '.', names=[NAME, OTHER])
    labelme(tmp_path, 'p00000.json', NAME, 'cat', '__ignore__', '_background_')
    labelme(tmp_path, 'p00001.json', OTHER, 'dog')
    data = read_own_data(str(tmp_path), True)
    assert data.classes == ['cat', 'dog']
    content = data.splits['train']
    assert [(record['category_id'], record['iscrowd']) for record in content['annotations']] == [
        (1, 0),
        (1, 1),  # the region is ignored for every class
        (2, 1),
        (2, 0),
    ]


@pytest.mark.parametrize('layout', ['labelme', 'voc', 'coco', 'via', 'yolo'])
def test_spaces_around_class_names_do_not_count_and_merges_are_said(layout, tmp_path):
    images(tmp_path, 'images', names=[NAME, OTHER])
    if layout == 'yolo':
        yolo_list(tmp_path, NAME, OTHER)
        (tmp_path / 'labels/p00001.txt').write_text('1 0.5 0.5 0.25 0.25\n')
        (tmp_path / 'data.yaml').write_text('train: list.txt\nnames: [bird, " bird "]\n')
    elif layout == 'labelme':
        labelme(tmp_path, 'json/p00000.json', NAME, 'bird')
        labelme(tmp_path, 'json/p00001.json', OTHER, ' bird ')
    elif layout == 'voc':
        voc(tmp_path, 'Annotations/p00000.xml')
        voc(tmp_path, 'Annotations/p00001.xml', OTHER)
        xml = tmp_path / 'Annotations/p00001.xml'
        xml.write_text(xml.read_text().replace('>bird<', '> bird <'))
    else:
        NAMING[layout](tmp_path, NAME, OTHER)
        (file,) = tmp_path.glob('*.json')
        content = json.loads(file.read_text())
        if layout == 'coco':
            content['categories'] = [dict(id=1, name='bird'), dict(id=2, name=' bird ')]
            for number, record in enumerate(content['annotations']):
                record['category_id'] = 1 + number
        else:
            content[OTHER]['regions'][0]['region_attributes']['kind'] = ' bird '
        write_json(file, content)
    data = read_own_data(str(tmp_path), True)
    assert data.classes == ['bird']
    assert data.class_counts == {'train': [2]}
    (problem,) = data.problems
    assert (problem.kind, problem.severe) == (Fault.NAMES_CHANGED, False)
    assert "' bird ', 'bird' differ only in spaces" in problem.what


def test_classes_whose_names_look_the_same_are_one(tmp_path):
    images(tmp_path / 'train', '.')
    images(tmp_path / 'val', '.', names=[OTHER])
    for split, name, form in (('train', NAME, 'NFC'), ('val', OTHER, 'NFD')):
        content = coco_content({name: OBJECTS})
        content['categories'][0]['name'] = unicodedata.normalize(form, 'métro')
        write_json(tmp_path / f'{split}.json', content)
    data = read_own_data(str(tmp_path), True)
    assert data.classes == ['métro', 'cat', 'traffic light']
    assert data.class_counts == {'train': [1, 0, 0], 'val': [1, 0, 0]}
    assert [problem.kind for problem in data.problems] == [Fault.NAMES_CHANGED]
