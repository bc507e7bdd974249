"""Files as the formats' own descriptions have them, with numbers computed by hand; folders that appear whole."""

import base64
import errno
import json
import shutil
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml

from fasternet_mm.annotation_formats.labeled_images import LabeledImage, LabeledObject
from fasternet_mm.annotation_formats.labelme_writer import labelme_content
from fasternet_mm.annotation_formats.mask_outlines import encode_region
from fasternet_mm.annotation_formats.writing import losses, writing
from fasternet_mm.annotation_formats.yolo_writer import yolo_lines
from fasternet_mm.errors import UserError

CLASSES = ['cat', 'traffic light']
SIZE = (40, 80)
BOX = LabeledObject(1, [10, 5, 20.5, 10], 205)
TRIANGLE = LabeledObject(0, [8, 4, 32, 16], 256, [[8, 4, 40, 4, 40, 20]])
PARTS = LabeledObject(0, [0, 0, 30, 10], 200, [[0, 0, 10, 0, 10, 10, 0, 10], [20, 0, 30, 0, 30, 10, 20, 10]])


def ring():
    pixels = np.zeros(SIZE, bool)
    pixels[5:25, 10:30] = True
    pixels[10:20, 15:25] = False
    return pixels


RING = LabeledObject(1, [10, 5, 20, 20], 300, encode_region(ring()))


def image(*objects, name='a.png', **changes):
    return LabeledImage(name, SIZE, np.full((*SIZE, 3), (250, 100, 0), np.uint8), objects, **changes)


def written(folder, annotation_format, *images, **options):
    with writing(annotation_format, folder, CLASSES, **options) as writer:
        for each in images:
            writer.add('train', each)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def test_yolo_has_the_center_of_a_box_and_the_points_of_an_outline_as_fractions(tmp_path):
    assert yolo_lines([BOX, TRIANGLE], SIZE) == '1 0.253125 0.25 0.25625 0.25\n0 0.1 0.1 0.5 0.1 0.5 0.5\n'
    files = written(tmp_path / 'out', 'yolo', image(BOX), image(name='b c.png'))
    assert files == [
        'data.yaml',
        'images/train/a.png',
        'images/train/b c.png',
        'labels/train/a.txt',
        'labels/train/b c.txt',
    ]
    assert (tmp_path / 'out/labels/train/b c.txt').read_text() == ''
    assert yaml.safe_load((tmp_path / 'out/data.yaml').read_text()) == {
        'train': 'images/train',
        'names': {0: 'cat', 1: 'traffic light'},
    }


def test_yolo_has_nothing_outside_of_the_image():
    beyond = LabeledObject(0, [-0.5, 30, 81, 10.4], 700, [[-0.5, 30, 80.5, 30, 80.5, 40.4]])
    assert yolo_lines([beyond], SIZE) == '0 0 0.75 1 0.75 1 1\n'


def test_pascal_voc_has_the_edges_of_boxes_and_whole_numbers_without_a_point(tmp_path):
    files = written(tmp_path / 'out', 'voc', image(BOX, LabeledObject(0, [0, 0, 80, 40], 3200, ignored=True)))
    assert files == ['Annotations/train/a.xml', 'ImageSets/Main/train.txt', 'JPEGImages/train/a.png']
    assert (tmp_path / 'out/ImageSets/Main/train.txt').read_text() == 'train/a\n'
    root = ElementTree.parse(tmp_path / 'out/Annotations/train/a.xml').getroot()
    assert [root.findtext(f'size/{side}') for side in ('width', 'height', 'depth')] == ['80', '40', '3']
    assert (root.findtext('folder'), root.findtext('filename')) == ('JPEGImages', 'train/a.png')
    boxes = [
        [obj.findtext('name'), obj.findtext('difficult'), *(side.text for side in obj.find('bndbox'))]
        for obj in root.findall('object')
    ]
    assert boxes == [['traffic light', '0', '10', '5', '30.5', '15'], ['cat', '1', '0', '0', '80', '40']]


def test_labelme_has_rectangles_polygons_groups_and_masks():
    content = labelme_content('a.png', [BOX, TRIANGLE, PARTS, RING], CLASSES, SIZE)
    # The keys that LabelMe's label_file.py reads.
    assert {'version', 'flags', 'shapes', 'imagePath', 'imageData', 'imageHeight', 'imageWidth'} == content.keys()
    assert (content['imagePath'], content['imageData']) == ('a.png', None)
    assert (content['imageHeight'], content['imageWidth']) == (40, 80)
    box, triangle, first, second, mask = content['shapes']
    assert (box['label'], box['shape_type'], box['points']) == ('traffic light', 'rectangle', [[10, 5], [30.5, 15]])
    assert (triangle['shape_type'], triangle['points']) == ('polygon', [[8, 4], [40, 4], [40, 20]])
    assert [shape['group_id'] for shape in content['shapes']] == [None, None, 3, 3, None]
    assert first['points'] == [[0, 0], [10, 0], [10, 10], [0, 10]]
    assert second['points'] == [[20, 0], [30, 0], [30, 10], [20, 10]]
    assert (mask['shape_type'], mask['points']) == ('mask', [[10, 5], [29, 24]])
    png = np.frombuffer(base64.b64decode(mask['mask']), np.uint8)
    assert np.array_equal(cv2.imdecode(png, cv2.IMREAD_UNCHANGED) > 0, ring()[5:25, 10:30])


def test_coco_has_ids_areas_and_scores(tmp_path):
    found = LabeledObject(1, [10, 5, 20.5, 10], 205, score=0.75)
    crowd = LabeledObject(0, [8, 4, 32, 16], 256, TRIANGLE.segmentation, ignored=True)
    files = written(tmp_path / 'out', 'coco', image(found), image(crowd, name='c/ä.png'), category_ids=[17, 10])
    assert files == ['annotations/instances_train.json', 'images/train/a.png', 'images/train/c/ä.png']
    assert json.loads((tmp_path / 'out/annotations/instances_train.json').read_text()) == {
        'images': [
            {'id': 1, 'file_name': 'a.png', 'width': 80, 'height': 40},
            {'id': 2, 'file_name': 'c/ä.png', 'width': 80, 'height': 40},
        ],
        'annotations': [
            {
                'id': 1,
                'image_id': 1,
                'category_id': 10,
                'bbox': [10, 5, 20.5, 10],
                'area': 205,
                'iscrowd': 0,
                'segmentation': [],
                'score': 0.75,
            },
            {
                'id': 2,
                'image_id': 2,
                'category_id': 17,
                'bbox': [8, 4, 32, 16],
                'area': 256,
                'iscrowd': 1,
                'segmentation': [[8, 4, 40, 4, 40, 20]],
                'ignore': 1,
            },
        ],
        'categories': [{'id': 17, 'name': 'cat'}, {'id': 10, 'name': 'traffic light'}],
    }


def test_label_maps_need_outlines_and_at_most_255_classes(tmp_path):
    with pytest.raises(UserError, match='none of the 1 objects has an outline'):
        written(tmp_path / 'out', 'label-maps', image(BOX))
    with (
        pytest.raises(UserError, match='256 classes do not fit'),
        writing('label-maps', tmp_path / 'out', list(map(str, range(255)))),
    ):
        pass
    assert [*tmp_path.iterdir()] == []


def test_a_crowd_does_not_count_in_a_label_map(tmp_path):
    crowd = LabeledObject(0, [8, 4, 32, 16], 256, TRIANGLE.segmentation, ignored=True)
    written(tmp_path / 'out', 'label-maps', image(RING, crowd))
    label_map = cv2.imread(str(tmp_path / 'out/labels/train/a.png'), cv2.IMREAD_UNCHANGED)
    assert (label_map[4, 38], label_map[30, 2], label_map[6, 20]) == (255, 0, 2)
    assert (tmp_path / 'out/classes.txt').read_text() == '0 background\n1 cat\n2 traffic light\n'


def test_pixels_are_written_where_there_is_no_file(tmp_path):
    written(tmp_path / 'out', 'yolo', image(BOX))
    assert np.array_equal(cv2.imread(str(tmp_path / 'out/images/train/a.png')), np.full((*SIZE, 3), (0, 100, 250)))


# Whole or not at all


def test_nothing_is_left_where_writing_fails(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    source = tmp_path / 'a.png'
    cv2.imwrite(str(source), np.zeros((*SIZE, 3)))
    monkeypatch.setattr(shutil, 'copyfile', full)
    with pytest.raises(OSError, match='No space'):
        written(tmp_path / 'new/out', 'coco', LabeledImage('a.png', SIZE, source))
    assert [*(tmp_path / 'new').iterdir()] == []


def test_a_folder_with_something_in_it_is_refused_and_an_empty_one_taken(tmp_path):
    (tmp_path / 'out').mkdir()
    written(tmp_path / 'out', 'yolo', image(BOX))
    with pytest.raises(UserError, match='may be work of yours: move it away, or name another'):
        written(tmp_path / 'out', 'yolo', image(BOX))
    assert oct((tmp_path / 'out').stat().st_mode)[-3:] == '755'


def test_a_link_to_another_disk_is_refused_in_a_sentence(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EXDEV, 'Invalid cross-device link')

    source = tmp_path / 'a.png'
    source.touch()
    monkeypatch.setattr('os.link', link)
    with pytest.raises(UserError, match='leave out --link'):
        written(tmp_path / 'out', 'coco', LabeledImage('a.png', SIZE, source), link=True)
    assert [*tmp_path.iterdir()] == [source]


def test_what_is_not_kept_is_a_line_with_its_number(tmp_path):
    with writing('yolo', tmp_path / 'out', CLASSES) as writer:
        writer.add('train', image(RING, PARTS, LabeledObject(0, [0, 0, 9, 9], 81, ignored=True)))
    assert losses(writer) == [
        'not kept:   crowds and difficult objects, which YOLO cannot mark: left out (1)',
        'not kept:   outlines of several parts or with holes: cuts of no width make each one polygon (2)',
    ]
