"""What only one layout has, and how layouts are recognized."""

import base64
import json
import math
import shutil
from io import BytesIO

import cv2
import numpy as np
import pytest
from own_layouts import (
    CLASSES,
    coco_content,
    made,
    voc_xml,
    write_coco,
    write_images,
    write_json,
    write_labelme,
    write_via,
    write_voc,
    write_voc_beside,
    write_yolo,
)
from PIL import Image
from pycocotools import mask

from fasternet_mm.datasets import shapes
from fasternet_mm.errors import UserError
from fasternet_mm.own_data.layouts.problems import Fault
from fasternet_mm.own_data.layouts.recognition import read_own_data

ONE = {'train': {'p00000.png': [('bird', [10, 20, 30, 15], None)]}}


def objects(root, instances=True):
    data = read_own_data(str(root), instances)
    assert [str(problem) for problem in data.problems if problem.severe] == []
    return data.splits['train']['annotations']


def boxes(root):
    return [record['bbox'] for record in objects(root)]


def refusal(root, instances=True):
    with pytest.raises(UserError) as error:
        read_own_data(str(root), instances)
    return str(error.value)


# COCO


@pytest.mark.parametrize('places', [('a.json', 'images'), ('a.json', '.'), ('ann/test_coco.json', 'ann')])
def test_one_json_and_one_folder_of_images_are_all_to_train_on(places, tmp_path):
    write_images(tmp_path / places[1], ['p00000.png'])
    write_json(tmp_path / places[0], coco_content(ONE['train']))
    data = read_own_data(str(tmp_path), True)
    assert list(data.splits) == ['train']
    assert (tmp_path / data.splits['train']['images'][0]['file_name']).is_file()


def test_images_of_the_same_names_are_taken_from_the_folder_of_their_split(tmp_path):
    for split, number in (('train', 0), ('val', 1)):
        write_json(tmp_path / f'annotations/{split}.json', coco_content(ONE['train']))
        write_images(tmp_path / f'{split}2017', [f'p0000{number}.png'])
        (tmp_path / f'{split}2017/p0000{number}.png').rename(tmp_path / f'{split}2017/p00000.png')
    data = read_own_data(str(tmp_path), True)
    for split in ('train', 'val'):
        assert data.splits[split]['images'][0]['file_name'] == f'{split}2017/p00000.png'


def test_labelmes_background_is_no_class_of_its_coco_export_unless_it_has_objects(tmp_path):
    write_coco(tmp_path, ONE)
    (file,) = tmp_path.rglob('*.json')
    content = json.loads(file.read_text())
    content['categories'].insert(0, dict(id=0, name='_background_', supercategory=None))
    file.write_text(json.dumps(content))
    assert read_own_data(str(tmp_path)).classes == CLASSES
    content['annotations'][0]['category_id'] = 0
    file.write_text(json.dumps(content))
    assert read_own_data(str(tmp_path)).classes == ['_background_', *CLASSES]


def test_captions_and_keypoints_beside_instances_are_left_alone(tmp_path):
    write_coco(tmp_path, made())
    shutil.copy(
        tmp_path / 'annotations/instances_train2017.json', tmp_path / 'annotations/person_keypoints_train2017.json'
    )
    assert objects(tmp_path)


def test_rle_is_kept_and_gives_box_and_area_where_they_lack(tmp_path):
    write_images(tmp_path, ['p00000.png'])
    content = coco_content(ONE['train'])
    counts = [48 * 10 + 20, 5, 43, 5, 48 * 54 - 73]  # two columns of five pixels from x=10, y=20
    content['annotations'][0].update(segmentation=dict(size=[48, 64], counts=counts))
    del content['annotations'][0]['bbox']
    write_json(tmp_path / 'a.json', content)
    (annotation,) = objects(tmp_path)
    assert annotation['segmentation'] == dict(size=[48, 64], counts=counts)
    assert (annotation['bbox'], annotation['area'], annotation['iscrowd']) == ([10, 20, 2, 5], 10, 0)


def test_a_size_that_is_not_stated_is_read_as_opencv_reads_it(tmp_path):
    write_json(tmp_path / 'a.json', coco_content({'p.jpg': []}))
    content = json.loads((tmp_path / 'a.json').read_text())
    del content['images'][0]['width'], content['images'][0]['height']
    write_json(tmp_path / 'a.json', content)
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    Image.new('RGB', (64, 48)).save(tmp_path / 'p.jpg', exif=exif)
    (image,) = read_own_data(str(tmp_path), True).splits['train']['images']
    assert (image['height'], image['width']) == cv2.imread(str(tmp_path / 'p.jpg')).shape[:2] == (64, 48)


def test_objects_over_the_edge_are_cut_there(tmp_path):
    write_images(tmp_path, ['p00000.png'])
    content = coco_content({'p00000.png': [('bird', [50, 30, 20, 20], [50, 30, 70, 30, 70, 50, 50, 50])]})
    write_json(tmp_path / 'a.json', content)
    (annotation,) = objects(tmp_path)
    assert annotation['bbox'] == [50, 30, 14, 18]
    assert annotation['area'] == 14 * 18
    assert sorted(zip(*[iter(annotation['segmentation'][0])] * 2)) == [(50, 30), (50, 48), (64, 30), (64, 48)]


def test_two_files_for_one_split_and_files_of_no_split_are_refused_by_name(tmp_path):
    write_images(tmp_path, ['p00000.png'])
    for name in ('a.json', 'b.json'):
        write_json(tmp_path / name, coco_content(ONE['train']))
    assert 'has 2 COCO annotation files (a.json, b.json): leave one, or one each with train' in refusal(tmp_path)
    for old, new in (('a.json', 'val.json'), ('b.json', 'test.json')):
        (tmp_path / old).rename(tmp_path / new)
    assert 'has test and val data, but none to train' in refusal(tmp_path).replace('val and test', 'test and val')


# Pascal VOC


def test_the_challenges_own_files_count_pixels_from_1(tmp_path):
    write_voc_beside(tmp_path, ONE)
    (xml,) = tmp_path.rglob('*.xml')
    assert boxes(tmp_path) == [[10, 20, 30, 15]]
    challenge = '<source><database>The VOC2007 Database</database><annotation>PASCAL VOC2007</annotation></source>'
    whole = voc_xml('p00000.png', [('bird', [1, 1, 63, 47], None)])  # xmin=1, xmax=64
    xml.write_text(whole.replace('<source><database>Unknown</database></source>', challenge))
    assert boxes(tmp_path) == [[0, 0, 64, 48]]


def test_difficult_objects_are_neither_trained_nor_scored(tmp_path):
    write_voc_beside(tmp_path, ONE)
    (xml,) = tmp_path.rglob('*.xml')
    xml.write_text(xml.read_text().replace('<difficult>0', '<difficult>1'))
    assert objects(tmp_path)[0]['iscrowd'] == 1


def test_trainval_and_sizes_of_zero_are_what_the_challenge_has(tmp_path):
    write_voc(tmp_path, ONE)
    sets = tmp_path / 'ImageSets/Main'
    (sets / 'train.txt').rename(sets / 'trainval.txt')
    (sets / 'bird_trainval.txt').write_text('p00000 1\n')
    (xml,) = tmp_path.rglob('*.xml')
    xml.write_text(xml.read_text().replace('64', '0', 1).replace('48', '0', 1))
    assert boxes(tmp_path) == [[10, 20, 30, 15]]


def test_the_image_is_the_filename_where_none_has_the_xml_files_name(tmp_path):
    write_voc_beside(tmp_path, ONE)
    (xml,) = tmp_path.rglob('*.xml')
    xml.rename(xml.with_name('other.xml'))
    assert boxes(tmp_path) == [[10, 20, 30, 15]]


# YOLO


@pytest.mark.parametrize(
    ('yaml', 'message'),
    [
        ('train: images/train\nnames: [yes, no, x]', 'quotes around names such as yes'),
        ('train: images/train\nnames: [a, a, b]', 'a name or number twice'),
        ('train: images/train\nnames: {0: a, b: c}', 'a number for each'),
        ('train: images/nowhere\nnames: [a]', 'has train: images/nowhere, which is not in'),
        ('train: ../../nowhere\nnames: [a]', 'has train: ../../nowhere, which is not in'),
        ('train: /etc\nnames: [a]', 'has train: /etc, which is not in'),
        ('train: images/train\nnames: [a]\nkpt_shape: [17, 3]', 'keypoints'),
        ('train: images/train\nnames: [a', 'is not YAML'),
        ('train: !!python/object/apply:os.system [touch made]\nnames: [a]', 'is not YAML'),
    ],
)
def test_a_data_yaml_that_cannot_be_used_is_refused(yaml, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_yolo(tmp_path, ONE, yaml)
    assert message in refusal(tmp_path)
    assert not (tmp_path / 'made').exists()


def test_an_absolute_path_into_the_folder_is_taken(tmp_path):
    write_yolo(tmp_path, ONE, f'path: {tmp_path}\ntrain: images/train\nnames: [bird]\n')
    assert boxes(tmp_path) == [[10, 20, 30, 15]]


def test_boxes_and_polygons_in_one_file_are_both_read(tmp_path):
    write_yolo(tmp_path, ONE)
    with open(tmp_path / 'labels/train/p00000.txt', 'a') as file:
        file.write('1 0.25 0.25 0.5 0.25 0.5 0.5\n')
    assert boxes(tmp_path) == [[10, 20, 30, 15], [16, 12, 16, 12]]
    assert not read_own_data(str(tmp_path), True).with_masks


def yolo(root, yaml, labels='0 0.5 0.5 0.25 0.25', images='images/train', folder='labels/train'):
    write_images(root / images, ['p00000.png'])
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / 'p00000.txt').write_text(labels)
    if yaml:
        (root / 'data.yaml').write_text(yaml)


def problems_of(root):
    return [(problem.kind, problem.severe, problem.what) for problem in read_own_data(str(root), True).problems]


@pytest.mark.parametrize('mark', [b'\xef\xbb\xbf', b''])
def test_byte_order_marks_are_no_part_of_any_file(mark, tmp_path):
    yolo(tmp_path / 'yolo', 'train: list.txt\nnames: [bird]\n')
    (tmp_path / 'yolo/list.txt').write_text('images/train/p00000.png\n')
    write_voc(tmp_path / 'voc', ONE)
    write_labelme(tmp_path / 'labelme', ONE)
    write_coco(tmp_path / 'coco', ONE)
    for file in tmp_path.rglob('*'):
        if file.suffix in ('.txt', '.yaml', '.xml', '.json'):
            file.write_bytes(mark + file.read_bytes())
    for layout in ('yolo', 'voc', 'labelme', 'coco'):
        assert len(objects(tmp_path / layout)) == 1, layout


@pytest.mark.parametrize(
    ('names', 'label', 'classes', 'number', 'said'),
    [
        ('{1: cat, 2: dog}', 2, ['cat', 'dog'], 2, '1 cat → 0, 2 dog → 1'),
        ('{0: cat, 2: dog}', 2, ['cat', 'dog'], 2, '0 cat → 0, 2 dog → 1'),
        ('{"7": cat}', 7, ['cat'], 1, '7 cat → 0'),
        ('{1: dog, 0: cat}', 1, ['cat', 'dog'], 2, None),
    ],
)
def test_names_with_gaps_are_numbered_afresh_and_shown(names, label, classes, number, said, tmp_path):
    yolo(tmp_path, f'train: images/train\nnames: {names}\n', f'{label} 0.5 0.5 0.25 0.25')
    data = read_own_data(str(tmp_path), True)
    assert data.classes == classes
    assert [record['category_id'] for record in data.splits['train']['annotations']] == [number]
    expected = [(Fault.NAMES_CHANGED, False, f'its names are numbered afresh: {said}')] if said else []
    assert problems_of(tmp_path) == expected


def test_a_number_that_names_does_not_have_is_named(tmp_path):
    yolo(tmp_path, 'train: images/train\nnames: {1: cat, 3: dog}\n', '1 .5 .5 .1 .1\n2 .5 .5 .1 .1')
    assert (Fault.UNKNOWN_ID, True, 'line 2 has the class 2, but names has 1, 3') in problems_of(tmp_path)


def test_names_without_splits_take_the_images_that_have_labels_and_say_so(tmp_path):
    yolo(tmp_path, None)
    yolo(tmp_path, None, images='images/val', folder='labels/val')
    yolo(tmp_path, 'nc: 1\nnames: [cat]\n', images='extra', folder='notes')
    data = read_own_data(str(tmp_path), True)
    assert {split: [image['file_name'] for image in content['images']] for split, content in data.splits.items()} == {
        'train': ['images/train/p00000.png'],
        'val': ['images/val/p00000.png'],
    }
    ((kind, is_severe, what),) = problems_of(tmp_path)
    assert (kind, is_severe) == (Fault.ASSUMED, False)
    assert what.startswith(
        'has names but no train: the images in images/train, images/val, which have labels, are taken'
    )


def test_a_data_yaml_without_train_is_named_where_no_image_has_labels(tmp_path):
    write_images(tmp_path / 'images', ['p00000.png'])
    (tmp_path / 'a.txt').write_text('0 0.5 0.5 0.25 0.25\n')
    (tmp_path / 'data.yaml').write_text('names: [cat]\n')
    assert f'{tmp_path}/data.yaml lacks names or train: add "train: FOLDER OF IMAGES"' in refusal(tmp_path)


@pytest.mark.parametrize(
    'entry', ['/kaggle/input/set/images/train', 'C:\\set\\images\\train', '../../set/images/train']
)
def test_folders_of_another_machine_are_matched_by_their_ends(entry, tmp_path):
    yolo(tmp_path, f"train: '{entry}'\nnames: [cat]\n")
    assert boxes(tmp_path) == [[24, 18, 16, 12]]


def test_cvats_darknet_files_are_read(tmp_path):
    yolo(tmp_path, None, images='obj_train_data', folder='obj_train_data')
    (tmp_path / 'train.txt').write_text('data/obj_train_data/p00000.png\n')
    (tmp_path / 'obj.names').write_text('cat\n')
    (tmp_path / 'obj.data').write_text(
        'classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n'
    )
    assert boxes(tmp_path) == [[24, 18, 16, 12]]
    assert read_own_data(str(tmp_path), True).classes == ['cat']


def test_labels_are_found_beside_a_folder_of_images_of_any_name(tmp_path):
    for camera, labels in (('a', '0 0.5 0.5 0.25 0.25'), ('b', '')):
        yolo(tmp_path, None, labels, f'JPEGImages/{camera}', f'labels/{camera}')
    (tmp_path / 'data.yaml').write_text('train: JPEGImages\nnames: [cat]\n')
    (record,) = objects(tmp_path)
    assert record['image_id'] == 1  # of JPEGImages/a, the first


def test_a_folder_of_masks_below_the_named_one_is_no_folder_of_images(tmp_path):
    yolo(tmp_path, 'train: .\nnames: [cat]\n')
    write_images(tmp_path / 'masks/train', ['p00000.png'])
    (image,) = read_own_data(str(tmp_path), True).splits['train']['images']
    assert image['file_name'] == 'images/train/p00000.png'


# LabelMe and VIA


def labelme(root, *shapes):
    write_labelme(root, ONE)
    (file,) = root.rglob('*.json')
    content = json.loads(file.read_text())
    content['shapes'] = [dict(label='bird', group_id=None, flags={}) | shape for shape in shapes]
    file.write_text(json.dumps(content))


def test_shapes_of_one_group_are_parts_of_one_object(tmp_path):
    parts = ([[1, 1], [5, 1], [5, 5]], [[10, 10], [20, 10], [20, 20]])
    shapes = [dict(points=part, shape_type='polygon', group_id=3) for part in parts]
    labelme(tmp_path, *shapes, dict(points=parts[0], shape_type='polygon', group_id=3, label='cat'))
    first, second = objects(tmp_path)
    assert first['segmentation'] == [[1, 1, 5, 1, 5, 5], [10, 10, 20, 10, 20, 20]]
    assert (first['bbox'], first['area']) == ([1, 1, 19, 19], 8 + 50)
    assert second['segmentation'] == [[1, 1, 5, 1, 5, 5]]


def test_a_circle_becomes_a_polygon(tmp_path):
    labelme(tmp_path, dict(points=[[30, 20], [30, 30]], shape_type='circle'))
    (annotation,) = objects(tmp_path)
    assert annotation['bbox'] == [20, 10, 20, 20]
    assert annotation['area'] == pytest.approx(math.pi * 100, rel=0.003)


def test_rectangles_are_outlines_only_among_other_shapes(tmp_path):
    rectangle = dict(points=[[1, 2], [9, 8]], shape_type='rectangle')
    labelme(tmp_path / 'a', rectangle)
    assert 'segmentation' not in objects(tmp_path / 'a')[0]
    labelme(tmp_path / 'b', rectangle, dict(points=[[1, 1], [5, 1], [5, 5]], shape_type='polygon'))
    assert objects(tmp_path / 'b')[0]['segmentation'] == [[1, 2, 9, 2, 9, 8, 1, 8]]


def png(*rows):
    content = BytesIO()
    Image.fromarray(np.array(rows, bool)).save(content, 'png')
    return base64.b64encode(content.getvalue()).decode()


def mask_shape(x, y, *rows, **more):
    points = [[x + 0.4, y], [x + len(rows[0]) - 0.6, y + len(rows) - 1]]
    return dict(points=points, shape_type='mask', mask=png(*rows)) | more


def decoded(annotation):
    return np.argwhere(mask.decode(annotation['segmentation'])).tolist()  # y, x


def test_a_mask_is_what_its_png_has_between_its_corners(tmp_path):
    labelme(tmp_path, mask_shape(10, 5, [0, 1, 1], [1, 1, 0]), dict(points=[[1, 1], [9, 1], [9, 9]], mask=None))
    first, second = objects(tmp_path)
    assert decoded(first) == [[5, 11], [5, 12], [6, 10], [6, 11]]
    assert (first['bbox'], first['area']) == ([10, 5, 3, 2], 4)
    assert second['segmentation'] == [[1, 1, 9, 1, 9, 9]]


def test_masks_of_one_group_are_one_object_and_mixed_ones_are_named(tmp_path):
    parts = [mask_shape(x, 5, [1, 1], [1, 1], group_id=1) for x in (0, 62)]
    labelme(tmp_path / 'a', *parts)
    (annotation,) = objects(tmp_path / 'a')
    assert decoded(annotation) == [[y, x] for y in (5, 6) for x in (0, 1, 62, 63)]
    labelme(tmp_path / 'b', parts[0], dict(points=[[1, 1], [9, 1], [9, 9]], group_id=1))
    (problem,) = read_own_data(str(tmp_path / 'b')).problems
    assert problem.severe
    assert 'shape 1 (bird) is of one group with shape 0 (bird), but only one of them is a mask' in problem.what


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(mask=None), 'it is not a PNG in base64'),
        (dict(mask='AAAA'), 'it is not a PNG in base64'),
        (dict(mask=png([1, 1, 1])), 'it has 1x3 pixels (H x W), and is not what is between its corners'),
        (dict(points=[[60, 5], [64, 6]]), 'are not two of an area in the image'),
        (dict(points=[[5, 6], [math.inf, 7]]), 'has a mask that cannot be used'),
        (dict(points=[[5, 6]]), 'is a mask of 1 points'),
        (dict(shape_type='line'), 'is a line: polygons, rectangles, circles and masks are objects'),
    ],
)
def test_a_mask_that_cannot_be_used_is_named(change, said, tmp_path):
    labelme(tmp_path, mask_shape(10, 5, [1, 1], [1, 1]) | change, dict(points=[[1, 1], [9, 1], [9, 9]]))
    data = read_own_data(str(tmp_path))
    (problem,) = data.problems
    assert problem.severe
    assert said in problem.what
    assert len(data.objects['train']) == 1


def test_a_turned_rectangle_of_x_anylabeling_is_an_outline(tmp_path):
    corners = [[10, 5], [20, 10], [18, 14], [8, 9]]
    labelme(tmp_path, dict(points=corners, shape_type='rotation', direction=0.46))
    assert objects(tmp_path)[0]['segmentation'] == [[10, 5, 20, 10, 18, 14, 8, 9]]


def test_json_files_may_be_in_a_folder_of_their_own(tmp_path):
    labelme(tmp_path, dict(points=[[1, 2], [9, 8]], shape_type='rectangle'))
    (file,) = tmp_path.rglob('*.json')
    (tmp_path / 'json').mkdir()
    file.rename(tmp_path / 'json/p00000.json')
    assert boxes(tmp_path) == [[1, 2, 8, 6]]


def test_an_ellipse_is_turned_as_via_draws_it(tmp_path):
    write_via(tmp_path, ONE)
    file = tmp_path / 'via_train.json'
    content = json.loads(file.read_text())
    (record,) = content['_via_img_metadata'].values()
    shape = dict(name='ellipse', cx=32, cy=24, rx=16, ry=4, theta=math.pi / 2)
    record['regions'][0]['shape_attributes'] = shape
    file.write_text(json.dumps(content))
    (annotation,) = objects(tmp_path)
    assert annotation['bbox'] == [28, 8, 8, 32]


def via(root, *attributes):
    write_via(root, {'train': {'p00000.png': [('bird', [1, 2, 10, 10], None)] * len(attributes)}})
    file = root / 'via_train.json'
    content = json.loads(file.read_text())
    (record,) = content['_via_img_metadata'].values()
    for region, values in zip(record['regions'], attributes):
        region['region_attributes'] = values
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('attributes', 'classes'),
    [
        ([{}, {}], ['object']),
        ([dict(x='cat'), dict(x='dog')], ['cat', 'dog']),
        ([dict(x={'cat': True, 'dog': False}), dict(x={'dog': True})], ['cat', 'dog']),
        ([dict(kind='cat', note=''), dict(kind='cat', note='blurred')], ['cat']),
        ([dict(label='cat', id=str(n)) for n in range(4)], ['cat']),
        ([dict(label='cat', color='red') for n in range(4)], ['cat']),
    ],
)
def test_the_attribute_with_the_class_is_found(attributes, classes, tmp_path):
    via(tmp_path, *attributes)
    objects(tmp_path)
    assert read_own_data(str(tmp_path), True).classes == classes


def test_an_image_record_that_is_broken_and_json_of_another_kind_are_named(tmp_path):
    via(tmp_path, dict(kind='cat'))
    file = tmp_path / 'via_train.json'
    content = json.loads(file.read_text())
    content['_via_img_metadata']['b.png-1'] = dict(filename='b.png')
    file.write_text(json.dumps(content))
    (tmp_path / 'info.json').write_text('{}')
    (tmp_path / 'recipe.json').write_text(json.dumps(dict(data=shapes.NAME)))  # of the embedded data
    problems = read_own_data(str(tmp_path), True).problems
    assert [(problem.severe, str(problem).removeprefix(f'{tmp_path}/')) for problem in problems] == [
        (False, 'info.json: is JSON of no known layout'),
        (True, 'via_train.json: has a record b.png-1 without a filename or regions'),
    ]


def test_several_attributes_that_may_be_the_class_are_named(tmp_path):
    via(tmp_path, *[dict(color='red', shape='round')] * 4)
    assert 'with the attributes color, shape, several of which may be the class' in refusal(tmp_path)


# Recognition


def test_links_to_images_are_followed_and_hidden_files_are_not_data(tmp_path):
    data, elsewhere = tmp_path / 'data', tmp_path / 'elsewhere'
    write_coco(data, made())
    shutil.move(data / 'images', elsewhere)
    (data / 'images').symlink_to(elsewhere)
    (data / 'again').symlink_to(data)
    (data / 'annotations/.hidden.json').write_text('{')
    (data / '__MACOSX').mkdir()
    (data / '__MACOSX/instances_train2017.json').write_text('{')
    assert objects(data)


def test_a_folder_that_does_not_exist_or_is_a_file_or_is_empty_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'empty').mkdir()
    assert 'nowhere does not exist: name the folder' in refusal(tmp_path / 'nowhere')
    assert 'file is a file: name the folder' in refusal(tmp_path / 'file')
    assert 'empty has no files' in refusal(tmp_path / 'empty')


def test_two_layouts_in_one_folder_are_refused(tmp_path):
    write_coco(tmp_path, ONE)
    write_yolo(tmp_path, ONE)
    assert 'has annotations in 2 layouts (COCO, YOLO): leave one, or name the folder of one' in refusal(tmp_path)


@pytest.mark.parametrize(
    ('file', 'content', 'message'),
    [
        ('labels/p00000.txt', '0 0.5 0.5 0.1 0.1', 'look like YOLO labels, so write a data.yaml with "train:'),
        ('all.json', '{"images": []}', 'all.json is JSON of another kind: export the annotations as COCO'),
        ('all.json', '{"images": [', 'all.json: is not JSON'),
        ('all.xml', '<annotations/>', 'all.xml is XML of another kind: export the annotations as Pascal VOC'),
        ('all.csv', 'a,b', 'export the annotations from your labeling tool as COCO, which most tools write'),
    ],
)
def test_a_layout_that_is_not_recognized_is_told_with_the_nearest(file, content, message, tmp_path):
    write_images(tmp_path / 'images', ['p00000.png', 'p00001.png'])
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    said = refusal(tmp_path)
    assert said.startswith(
        f'{tmp_path} has 3 files (2 .png, 1 {(tmp_path / file).suffix}), but no COCO, VIA or LabelMe'
    )
    assert message in said


def test_objects_for_a_segmenter_and_label_maps_for_a_detector_are_told_apart(tmp_path):
    write_coco(tmp_path / 'objects', ONE)
    assert 'has COCO annotations of objects, for which there are the RTMDet and R-CNN configs' in refusal(
        tmp_path / 'objects', False
    )
    write_images(tmp_path / 'maps/images', ['p00000.png'])
    (tmp_path / 'maps/masks').mkdir()
    cv2.imwrite(str(tmp_path / 'maps/masks/p00000.png'), np.zeros((48, 64), np.uint8))
    assert 'has label maps, for which there are the UPerNet and Semantic FPN configs' in refusal(tmp_path / 'maps')
