"""What is written in a format is read back as it was, by our own readers and by COCO's API."""

import contextlib
import io
import json
import shutil

import cv2
import numpy as np
import pytest
from own_layouts import BOXES, CLASSES, POLYGONS, coco_content, made, write_coco, write_images, write_json
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from fasternet_mm.annotation_formats import FORMAT_NAMES
from fasternet_mm.datasets.shapes import draw_image
from fasternet_mm.own_data.format_conversion import convert
from fasternet_mm.own_data.layouts.recognition import read_own_data

SOURCES = ('coco', 'yolo', 'voc', 'labelme', 'via')
OBJECT_FORMATS = ('coco', 'yolo', 'voc', 'labelme')


def objects_of(data):
    """For each split and image's name the objects: class, box, and pycocotools' mask, in the order of the file."""
    found = {}
    for split, content in data.splits.items():
        sizes = {image['id']: (image['height'], image['width']) for image in content['images']}
        names = {image['id']: image['file_name'].rpartition('/')[2] for image in content['images']}
        images = {name: [] for name in names.values()}
        for annotation in content['annotations']:
            mask = annotation.get('segmentation')
            if isinstance(mask, list):
                mask = coco_masks.merge(coco_masks.frPyObjects(mask, *sizes[annotation['image_id']]))
            kind = data.classes[annotation['category_id'] - 1]
            images[names[annotation['image_id']]].append((kind, annotation['bbox'], mask, annotation['iscrowd']))
        found[split] = images
    return found


def assert_same(actual, expected, with_masks):
    assert {split: images.keys() for split, images in actual.items()} == {
        split: images.keys() for split, images in expected.items()
    }
    pairs = [
        pair
        for split, images in expected.items()
        for name in images
        for pair in zip(actual[split][name], images[name], strict=True)
    ]
    assert pairs
    for (kind, box, mask, crowd), (expected_kind, expected_box, expected_mask, expected_crowd) in pairs:
        assert (kind, crowd) == (expected_kind, expected_crowd)
        assert np.abs(np.subtract(box, expected_box)).max() <= 1e-3
        assert (mask is not None) == with_masks
        if with_masks:
            assert coco_masks.iou([mask], [expected_mask], [0])[0][0] >= 0.98


def converted(source, target, annotation_format, **options):
    writer = convert(read_own_data(str(source)), target, annotation_format, **options)
    data = read_own_data(str(target))
    assert not data.problems
    return data, {what: count for what, count in writer.not_kept.items() if count}


@pytest.mark.parametrize('target', OBJECT_FORMATS)
@pytest.mark.parametrize('source', SOURCES)
def test_every_layout_is_the_same_in_every_format(tmp_path, source, target):
    (POLYGONS.get(source) or BOXES[source])(tmp_path / 'data', made())
    expected = objects_of(read_own_data(str(tmp_path / 'data')))
    data, _ = converted(tmp_path / 'data', tmp_path / 'out', target)
    assert_same(objects_of(data), expected, with_masks='voc' not in (source, target))
    assert set(data.classes) == set(CLASSES)
    assert data.classes == CLASSES or target in ('voc', 'labelme')


@pytest.mark.parametrize('target', OBJECT_FORMATS)
def test_boxes_alone_stay_boxes(tmp_path, target):
    BOXES['coco'](tmp_path / 'data', made(masks=False))
    content = json.loads((tmp_path / 'data/annotations/instances_train2017.json').read_text())
    for annotation in content['annotations']:
        annotation['bbox'] = [side + 0.37 for side in annotation['bbox']]
    write_json(tmp_path / 'data/annotations/instances_train2017.json', content)
    expected = objects_of(read_own_data(str(tmp_path / 'data')))
    data, not_kept = converted(tmp_path / 'data', tmp_path / 'out', target)
    assert_same(objects_of(data), expected, with_masks=False)
    assert not not_kept


@pytest.fixture
def masks(tmp_path):
    """COCO data of RLE masks: overlapping shapes and rings, of which some are in several parts."""
    images, annotations = [], []
    (tmp_path / 'data/images').mkdir(parents=True)
    for number in range(6):
        pixels, objects = draw_image(np.random.default_rng((3, number)))
        images.append(dict(id=number, file_name=f'{number}.png', width=pixels.shape[1], height=pixels.shape[0]))
        assert cv2.imwrite(str(tmp_path / f'data/images/{number}.png'), pixels)
        for category, mask in objects:
            encoded = coco_masks.encode(np.asfortranarray(mask, np.uint8))
            record = dict(id=len(annotations), image_id=number, category_id=category, iscrowd=0)
            record |= dict(bbox=coco_masks.toBbox(encoded).tolist(), area=int(mask.sum()))
            record |= dict(segmentation=dict(size=encoded['size'], counts=encoded['counts'].decode()))
            annotations.append(record)
    categories = [dict(id=number, name=f'shape {number}') for number in range(6)]
    content = dict(images=images, annotations=annotations, categories=categories)
    write_json(tmp_path / 'data/annotations.json', content)
    return tmp_path / 'data'


@pytest.mark.parametrize('target', ['coco', 'yolo', 'labelme'])
def test_masks_with_holes_and_parts_come_back(masks, tmp_path, target):
    expected = objects_of(read_own_data(str(masks)))
    data, not_kept = converted(masks, tmp_path / 'out', target)
    assert_same(objects_of(data), expected, with_masks=True)
    assert any('holes' in what for what in not_kept) == (target == 'yolo')
    # Through another format and back.
    again, _ = converted(tmp_path / 'out', tmp_path / 'again', 'coco')
    assert_same(objects_of(again), objects_of(data), with_masks=True)


def test_coco_files_are_read_by_cocos_api(masks, tmp_path):
    data, _ = converted(masks, tmp_path / 'out', 'coco')
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(str(tmp_path / 'out/annotations/instances_train.json'))
    (expected,) = objects_of(data).values()
    assert [category['name'] for category in api.loadCats(api.getCatIds())] == data.classes
    for image in api.loadImgs(api.getImgIds()):
        assert (tmp_path / 'out/images/train' / image['file_name']).is_file()
        annotations = api.loadAnns(api.getAnnIds(image['id']))
        for annotation, (kind, box, mask, _) in zip(annotations, expected[image['file_name']], strict=True):
            assert api.loadCats(annotation['category_id'])[0]['name'] == kind
            assert annotation['bbox'] == box
            assert np.array_equal(api.annToMask(annotation), coco_masks.decode(mask))
            assert annotation['area'] == coco_masks.area(mask)


def test_crowds_stay_crowds_and_yolo_which_has_none_leaves_them_out(tmp_path):
    write_coco(tmp_path / 'data', made())
    file = tmp_path / 'data/annotations/instances_train2017.json'
    content = json.loads(file.read_text())
    content['annotations'][0]['iscrowd'] = 1
    write_json(file, content)
    expected = objects_of(read_own_data(str(tmp_path / 'data')))
    for target in OBJECT_FORMATS:
        data, not_kept = converted(tmp_path / 'data', tmp_path / target, target)
        crowds = sum(crowd for images in objects_of(data).values() for group in images.values() for *_, crowd in group)
        if target == 'yolo':
            assert crowds == 0
            assert not_kept['crowds and difficult objects, which YOLO cannot mark: left out'] == 1
        else:
            assert crowds == 1
            assert_same(objects_of(data), expected, with_masks=target != 'voc')


def test_a_file_of_nothing_but_crowds_is_not_taken_for_masks_of_a_brush(masks, tmp_path):
    content = json.loads((masks / 'annotations.json').read_text())
    content['annotations'][0].update(iscrowd=1, ignore=1)
    del content['annotations'][1:]
    write_json(masks / 'annotations.json', content)
    convert(read_own_data(str(masks)), tmp_path / 'out', 'coco')
    data = read_own_data(str(tmp_path / 'out'))
    assert [annotation['iscrowd'] for annotation in data.splits['train']['annotations']] == [1]


def test_what_formats_cannot_hold_is_counted(tmp_path):
    images = {'p00000.png': [('bird', [4, 4, 20, 10], [4, 4, 24, 4, 24, 14]), ('bird', [30, 8, 9, 9], None)]}
    write_coco(tmp_path / 'data', {'train': images})
    file = tmp_path / 'data/annotations/instances_train2017.json'
    content = json.loads(file.read_text())
    content['annotations'][0]['bbox'] = [3, 4, 22, 10]
    write_json(file, content)
    counts = {
        target: converted(tmp_path / 'data', tmp_path / target, target)[1] for target in (*OBJECT_FORMATS, 'label-maps')
    }
    assert counts == {
        'coco': {},
        'yolo': {
            "boxes that differ from their outlines' boxes: YOLO has the outlines alone": 1,
            'objects with boxes alone beside others with outlines: Ultralytics takes the boxes alone of such data': 1,
        },
        'voc': {
            'outlines and masks: Pascal VOC has boxes': 1,
            'classes without an object: Pascal VOC has no list of classes': 2,
        },
        'labelme': {
            "boxes that differ from their outlines' boxes: LabelMe has the outlines alone": 1,
            'objects with boxes alone beside others with outlines: their rectangles count as outlines': 1,
            'classes without an object: LabelMe has no list of classes': 2,
        },
        'label-maps': {
            'objects with boxes alone: the pixels in them do not count (255)': 1,
            'objects as such: of their pixels the class is kept': 1,
        },
    }


# Label maps


def test_objects_become_label_maps_with_small_ones_over_large_ones(tmp_path):
    square, small = [10, 10, 40, 10, 40, 40, 10, 40], [20, 20, 30, 20, 30, 30, 20, 30]
    objects = [('cat', [20, 20, 10, 10], small), ('bird', [10, 10, 30, 30], square), ('bird', [50, 0, 8, 8], None)]
    write_coco(tmp_path / 'data', {'train': {'p00000.png': objects}})
    data, _ = converted(tmp_path / 'data', tmp_path / 'out', 'label-maps')
    assert (data.layout, data.classes) == ('index PNGs', ['background', *CLASSES])
    ((image, label_map),) = data.splits['train']
    expected = np.zeros((48, 64), np.uint8)
    expected[10:40, 10:40], expected[20:30, 20:30], expected[:8, 50:58] = 1, 2, 255
    assert np.array_equal(cv2.imread(str(label_map), cv2.IMREAD_UNCHANGED), expected)
    assert image == tmp_path / 'out/images/train/p00000.png'


@pytest.fixture
def label_maps(tmp_path):
    """Two regions of a class and one of another over background; a corner does not count."""
    write_images(tmp_path / 'maps/images', ['p00000.png'])
    label_map = np.zeros((48, 64), np.uint8)
    label_map[4:10, 4:20], label_map[30:40, 4:20], label_map[4:40, 30:50], label_map[40:, 50:] = 1, 1, 2, 255
    (tmp_path / 'maps/labels').mkdir()
    assert cv2.imwrite(str(tmp_path / 'maps/labels/p00000.png'), label_map)
    (tmp_path / 'maps/classes.txt').write_text('background\nroad\ntree\n')
    return tmp_path / 'maps'


@pytest.mark.parametrize('target', OBJECT_FORMATS)
def test_connected_regions_of_label_maps_become_objects(label_maps, tmp_path, target):
    data, not_kept = converted(label_maps, tmp_path / 'out', target)
    objects = [(kind, box) for kind, box, _, _ in objects_of(data)['train']['p00000.png']]
    assert objects == [('road', [4, 4, 16, 6]), ('road', [4, 30, 16, 10]), ('tree', [30, 4, 20, 36])]
    assert data.classes == ['road', 'tree']
    assert not_kept['regions of label maps, which say no objects: each connected one became one'] == 3
    assert data.with_masks == (target != 'voc')


def test_label_maps_stay_as_they_are_and_those_of_objects_come_back(label_maps, tmp_path):
    data, not_kept = converted(label_maps, tmp_path / 'same', 'label-maps')
    expected = cv2.imread(str(label_maps / 'labels/p00000.png'), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(cv2.imread(str(data.splits['train'][0][1]), cv2.IMREAD_UNCHANGED), expected)
    assert data.classes == ['background', 'road', 'tree']
    assert not not_kept
    converted(label_maps, tmp_path / 'coco', 'coco')
    data, _ = converted(tmp_path / 'coco', tmp_path / 'back', 'label-maps')
    expected[expected == 255] = 0
    assert np.array_equal(cv2.imread(str(data.splits['train'][0][1]), cv2.IMREAD_UNCHANGED), expected)


def test_colors_of_label_maps_become_numbers(label_maps, tmp_path):
    colors = np.array([[0, 0, 0], [0, 0, 250], [0, 250, 0]], np.uint8)  # BGR
    numbers = cv2.imread(str(label_maps / 'labels/p00000.png'), cv2.IMREAD_UNCHANGED)
    numbers[numbers == 255] = 0
    assert cv2.imwrite(str(label_maps / 'labels/p00000.png'), colors[numbers])
    (label_maps / 'classes.txt').write_text('background 0 0 0\nroad 250 0 0\ntree 0 250 0\n')
    data, _ = converted(label_maps, tmp_path / 'out', 'label-maps')
    assert np.array_equal(cv2.imread(str(data.splits['train'][0][1]), cv2.IMREAD_UNCHANGED), numbers)


# Names and files


@pytest.mark.parametrize('target', FORMAT_NAMES)
def test_folders_spaces_umlauts_equal_stems_and_turned_images_come_back(tmp_path, target):
    names = ['cam 0/1.png', 'cam 1/1.png', 'cam 1/1.jpg', 'Bäume & Sträucher/Häuschen 7.png', 'turned.jpg']
    images = {name: [('bird', [4 + number, 4, 20, 9], None)] for number, name in enumerate(names)}
    for name in names:
        (tmp_path / 'data/images' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (64, 48), (len(name), 0, 0)).save(tmp_path / 'data/images' / name)
    exif = Image.Exif()
    exif[0x112] = 6  # a quarter turn
    Image.new('RGB', (48, 64)).save(tmp_path / 'data/images/turned.jpg', exif=exif)
    content = coco_content(images)
    if target == 'label-maps':
        for annotation in content['annotations']:
            x, y, width, height = annotation['bbox']
            annotation['segmentation'] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    write_json(tmp_path / 'data/annotations.json', content)
    data, _ = converted(tmp_path / 'data', tmp_path / 'out', target)
    folder = {'voc': 'JPEGImages/train/', 'labelme': 'train/'}.get(target, 'images/train/')
    # Images are taken in the order of their paths, so the PNG comes after the JPEG of its name.
    expected = ['Bäume & Sträucher/Häuschen 7.png', 'cam 0/1.png', 'cam 1/1-2.png', 'cam 1/1.jpg', 'turned.jpg']
    assert sorted(path.relative_to(tmp_path / 'out').as_posix() for path in data.image_paths['train']) == [
        folder + name for name in expected
    ]
    assert (tmp_path / 'out' / folder / 'cam 1/1-2.png').read_bytes() == (
        tmp_path / 'data/images/cam 1/1.png'
    ).read_bytes()
    if target != 'label-maps':
        boxes = {
            image['file_name'].removeprefix(folder): annotation['bbox'][0]
            for image, annotation in zip(data.splits['train']['images'], data.splits['train']['annotations'])
        }
        assert boxes == dict(
            zip(['cam 0/1.png', 'cam 1/1-2.png', 'cam 1/1.jpg', *expected[:1], 'turned.jpg'], range(4, 9))
        )


@pytest.mark.parametrize('target', FORMAT_NAMES)
def test_images_without_objects_stay(tmp_path, target):
    write_coco(tmp_path / 'data', made(train=3, val=0))  # the third is empty
    data, _ = converted(tmp_path / 'data', tmp_path / 'out', target)
    assert len(data.image_paths['train']) == 3


def test_splits_may_have_images_of_one_name(tmp_path):
    for split in ('train', 'val', 'test'):
        write_images(tmp_path / 'data/images' / split, ['p00000.png'])
        content = coco_content({'p00000.png': [('bird', [4, 4, 20, 9], None)]})
        write_json(tmp_path / f'data/annotations/{split}.json', content)
    for target in OBJECT_FORMATS:
        data, _ = converted(tmp_path / 'data', tmp_path / target, target)
        assert {split: len(images['p00000.png']) for split, images in objects_of(data).items()} == {
            'train': 1,
            'val': 1,
            'test': 1,
        }


def test_images_are_copied_or_linked(tmp_path):
    write_coco(tmp_path / 'data', made(train=1, val=0))
    source = tmp_path / 'data/images/train/p00000.png'
    for link in (False, True):
        converted(tmp_path / 'data', tmp_path / f'out {link}', 'yolo', link=link)
        assert (tmp_path / f'out {link}/images/train/p00000.png').samefile(source) == link
    shutil.rmtree(tmp_path / 'out True')
    assert source.is_file()
