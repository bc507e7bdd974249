"""What is wrong in data is named with its file, and the rest is read."""

import json
import re
import shutil

import pytest
from own_layouts import made, write_coco, write_labelme, write_via, write_voc, write_yolo

from fasternet_mm.own_data.layouts.problems import Fault
from fasternet_mm.own_data.layouts.recognition import read_own_data
from fasternet_mm.own_data.plan.data_checks import check_own_data

NAN = float('nan')


def check(root):
    data = read_own_data(str(root))
    return data, check_own_data(data).problems


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_text(path, *changes):
    text = path.read_text()
    for old, new in zip(changes[::2], changes[1::2]):
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)


def cut(path):
    path.write_bytes(path.read_bytes()[:-60])


def coco(change):
    return lambda root: edit(root / 'annotations/instances_train2017.json', change)


def annotation(**values):
    return coco(lambda content: content['annotations'][0].update(values))


def image(**values):
    return coco(lambda content: content['images'][0].update(values))


def keep_annotations(those):
    return coco(lambda content: content.update(annotations=[*filter(those, content['annotations'])]))


FILES = {
    'cut': (lambda r: cut(r / 'images/train/p00000.png'), Fault.UNREADABLE, 'p00000.png: is cut off or broken'),
    'text': (
        lambda r: (r / 'images/train/p00001.png').write_text('x'),
        Fault.UNREADABLE,
        'p00001.png: is not an image',
    ),
    'missing': (lambda r: (r / 'images/train/p00002.png').unlink(), Fault.MISSING_IMAGE, 'p00002.png: does not exist'),
    'in both': (
        lambda r: shutil.copy(r / 'images/train/p00003.png', next((r / 'images/val').iterdir())),
        Fault.IN_TWO_SPLITS,
        r'val/p0000.+png: is in val, and in train as .*train/p00003.png',
    ),
}
RECORDS = {
    'size': (
        image(width=65),
        Fault.WRONG_SIZE,
        r'p00003.png: has 48x64 pixels .H x W., but .*train2017.json says 48x65$',
    ),
    'turned': (image(width=48, height=64), Fault.WRONG_SIZE, 'EXIF orientation'),
    'no size': (image(width='x'), Fault.MALFORMED, r'image 0 \(p00003.png\) has the height 48 and the width .x'),
    'outside': (annotation(bbox=[64, 0, 5, 5]), Fault.OUTSIDE_IMAGE, r'annotation 100 \(images/train/p00003.png\)'),
    'over the edge': (annotation(bbox=[60, 0, 5.5, 5]), Fault.OVER_EDGE, 'annotation 100 .* over the edge of .*48x64'),
    'empty': (
        annotation(bbox=[3, 3, 0, 5], segmentation=[]),
        Fault.EMPTY,
        'annotation 100 .* is under a pixel wide or high: its box x=3 y=3 width=0',
    ),
    'under a pixel': (annotation(bbox=[3, 3, 5, 0.98], segmentation=[]), Fault.EMPTY, 'height=0.98'),
    'under a pixel inside': (
        annotation(bbox=[63.1, 3, 5, 5], segmentation=[]),
        Fault.EMPTY,
        'less than a pixel in the image of 48x64 pixels',
    ),
    'swapped': (
        annotation(bbox=[9, 3, -4, 5], segmentation=[]),
        Fault.SWAPPED,
        'annotation 100 .* a width or height below zero .*width=-4',
    ),
    'nan': (annotation(bbox=[3, 3, NAN, 5], segmentation=[]), Fault.NOT_A_NUMBER, 'annotation 100 .* the box'),
    'text box': (annotation(bbox='3 3 4 5', segmentation=None), Fault.NOT_A_NUMBER, "the box '3 3 4 5'"),
    'nan beside an outline': (annotation(bbox=[3, 3, NAN, 5]), Fault.BAD_BOX, 'that of its outline is taken'),
    'empty beside an outline': (annotation(bbox=[0, 0, 0, 0]), Fault.BAD_BOX, 'that of its outline is taken'),
    'nothing': (annotation(bbox=None, segmentation=[[]]), Fault.MALFORMED, 'has neither a box nor an outline'),
    'huge': (annotation(segmentation=[[0, 0, 1e300, 0, 5, 5]]), Fault.BAD_OUTLINE, '1e[+]300.*its box alone is kept'),
    'huge alone': (annotation(segmentation=[[0, 0, 1e300, 0, 5, 5]], bbox=None), Fault.NOT_A_NUMBER, '1e[+]300'),
    'two points': (
        annotation(segmentation=[[1, 1, 5, 5]]),
        Fault.BAD_OUTLINE,
        'annotation 100 .* polygon of 2 points where three are needed: its box alone',
    ),
    'two points in a part': (
        annotation(segmentation=[[1, 1, 5, 5], [1, 1, 9, 1, 9, 9]]),
        Fault.FEW_POINTS,
        'annotation 100 .* polygon of 2 points .*: this part is left out',
    ),
    'two points alone': (
        annotation(segmentation=[[1, 1, 5, 5]], bbox=None),
        Fault.BAD_OUTLINE,
        'polygon of 2 points .*: its place is neither trained nor background',
    ),
    'a point alone': (annotation(segmentation=[[1, 1]], bbox=None), Fault.EMPTY, 'polygon of 1 point where'),
    'line': (annotation(segmentation=[[1, 1, 5, 5, 3, 3]]), Fault.BAD_OUTLINE, 'annotation 100 .* encloses no pixel'),
    'odd': (annotation(segmentation=[[1, 1, 5, 5, 3, 3, 4]]), Fault.BAD_OUTLINE, 'polygon of 7 numbers'),
    'odd alone': (annotation(segmentation=[[1, 1, 5, 5, 3, 3, 4]], bbox=None), Fault.MALFORMED, 'polygon of 7 numbers'),
    'words': (annotation(segmentation='1 1 5 5'), Fault.BAD_OUTLINE, 'neither polygons nor RLE'),
    'rle': (
        annotation(segmentation=dict(size=[48, 64], counts=[5])),
        Fault.BAD_OUTLINE,
        'counts end before the image does: its box alone is kept',
    ),
    'rle alone': (
        annotation(segmentation=dict(size=[48, 64], counts=[5]), bbox=None),
        Fault.MALFORMED,
        'counts end before the image',
    ),
    'rle of nothing': (
        annotation(segmentation=dict(size=[48, 64], counts=[48 * 64])),
        Fault.BAD_OUTLINE,
        'mask without a pixel: its box alone is kept',
    ),
    'crowd': (
        annotation(iscrowd='no'),
        Fault.MALFORMED,
        "has the iscrowd 'no': 0 or 1, false or true is needed",
    ),
    'crowd of two': (annotation(iscrowd=2), Fault.MALFORMED, 'has the iscrowd 2'),
    'ignored': (annotation(ignore=[]), Fault.MALFORMED, r'has the ignore \[\]'),
    'image id': (
        coco(lambda content: content['images'][0].update(id=content['images'][1]['id'])),
        Fault.DUPLICATE,
        r'image 1 \(p00002.png\) has the id 8 of one before',
    ),
    'annotation id': (
        coco(lambda content: content['annotations'][0].update(id=content['annotations'][1]['id'])),
        Fault.DUPLICATE_OBJECT_ID,
        'annotation 101 .* has the id of one before',
    ),
    'file name': (
        coco(lambda content: content['images'][0].update(file_name=content['images'][1]['file_name'])),
        Fault.DUPLICATE,
        'p00002.png: is named 2 times in .*train2017.json',
    ),
    'unknown image': (annotation(image_id=7777), Fault.UNKNOWN_ID, 'annotation 100 has the image_id 7777, which'),
    'text for a number': (
        annotation(image_id='8'),
        Fault.UNKNOWN_ID,
        'has the image_id "8" .not 8., which no image has',
    ),
    'text class': (annotation(category_id='10'), Fault.UNKNOWN_ID, 'has the category_id "10" .not 10., which no'),
    'truth for a number': (annotation(image_id=True), Fault.MALFORMED, r'annotations\[0\] has no image_id'),
    'half an id': (annotation(image_id=8.5), Fault.MALFORMED, r'annotations\[0\] has no image_id'),
    'unknown class': (annotation(category_id=77), Fault.UNKNOWN_ID, 'annotation 100 .* has the category_id 77'),
    'no image': (annotation(image_id=None), Fault.MALFORMED, r'annotations\[0\] has no image_id'),
    'above': (image(file_name='../../../q.png'), Fault.OUTSIDE_FOLDER, 'q.png. is not in the folder'),
    'absolute': (image(file_name='/etc/passwd'), Fault.OUTSIDE_FOLDER, '/etc/passwd. is not in the folder'),
}
WHOLE = {
    'category': (coco(lambda c: c['categories'][1].update(id=10)), Fault.DUPLICATE, 'category 1 has the id or name'),
    'no samples': (
        keep_annotations(lambda record: record['category_id'] != 12),
        Fault.NO_SAMPLES,
        "the class 'traffic light' has no samples in train",
    ),
    'unlabeled': (
        keep_annotations(lambda record: record['id'] < 102),
        Fault.MOSTLY_EMPTY,
        '3 of the 4 images of train have no objects to train on',
    ),
}


@pytest.mark.parametrize('case', [*FILES, *RECORDS, *WHOLE])
def test_each_problem_is_named_with_its_file_and_the_rest_is_read(case, tmp_path):
    break_it, kind, message = (FILES | RECORDS | WHOLE)[case]
    write_coco(tmp_path, made(train=4))
    assert check(tmp_path)[1] == []
    break_it(tmp_path)
    data, problems = check(tmp_path)
    (named,) = [str(problem) for problem in problems if problem.kind == kind]
    assert named.startswith(str(tmp_path))
    assert re.search(message, named), named
    assert data.splits['train']['annotations']


def test_problems_together_are_all_named_and_all_that_is_sound_stays(tmp_path):
    write_coco(tmp_path, made(train=90, val=3))
    path = tmp_path / 'annotations/instances_train2017.json'
    for break_it, _, _ in RECORDS.values():
        break_it(tmp_path)
        # The next one breaks records that this one left alone.
        edit(path, lambda content: [[part.append(part.pop(0)) for _ in '123'] for part in content.values()])
    for break_it, _, _ in FILES.values():
        break_it(tmp_path)
    data, problems = check(tmp_path)
    assert {problem.kind for problem in problems} >= {kind for _, kind, _ in (FILES | RECORDS).values()}
    sound = made(train=90, val=3)['train']
    for image in data.splits['train']['images']:
        read = [r['bbox'] for r in data.splits['train']['annotations'] if r['image_id'] == image['id']]
        boxes = [box for _, box, _ in sound[image['file_name'].rpartition('/')[2]]]
        mended = [[60, 0, 4, 5], [5, 3, 4, 5], [1, 1, 4, 4]]  # cut, sorted, of two points
        assert all(box in [*boxes, *mended] for box in read)
    assert len(data.splits['train']['annotations']) > 40


LABEL, SHAPES = 'labels/train/p00000.txt', 'images/train/p00000.json'
OTHERS = {
    'yolo words': (write_yolo, lambda r: (r / LABEL).write_text('0 a b c d'), Fault.MALFORMED, 'line 1 has something'),
    'yolo scores': (write_yolo, lambda r: (r / LABEL).write_text('0 .5 .5 .1 .1 .9'), Fault.MALFORMED, 'has 6 values'),
    'yolo class': (
        write_yolo,
        lambda r: (r / LABEL).write_text('\n3 .5 .5 .1 .1'),
        Fault.UNKNOWN_ID,
        'line 2 .* class 3',
    ),
    'yolo pixels': (write_yolo, lambda r: (r / LABEL).write_text('0 30 20 5 5'), Fault.OUTSIDE_IMAGE, 'line 1 is out'),
    'yolo nan': (
        write_yolo,
        lambda r: (r / LABEL).write_text('0 .5 nan .1 .1'),
        Fault.NOT_A_NUMBER,
        'line 1 has the box',
    ),
    'yolo bytes': (write_yolo, lambda r: (r / LABEL).write_bytes(b'\xff\xfe0 1'), Fault.MALFORMED, 'not a text file'),
    'yolo alone': (
        write_yolo,
        lambda r: (r / 'labels/train/q.txt').write_text(''),
        Fault.ORPHAN_LABELS,
        'q.txt: has the labels of no image',
    ),
    'yolo alone beside': (
        write_yolo,
        lambda r: [
            (r / LABEL).rename(r / LABEL.replace('labels', 'images')),
            (r / 'images/train/q.txt').write_text('1 0.5 0.5 0.2 0.2\n'),
            (r / 'images/train/readme.txt').write_text('1 image each\n'),
        ],
        Fault.ORPHAN_LABELS,
        'q.txt: has the labels of no image',
    ),
    'yolo no test': (
        write_yolo,
        lambda r: edit_text(r / 'data.yaml', 'names', 'test: images/test\nnames'),
        Fault.MISSING_SPLIT,
        'data.yaml: its test: images/test is not in',
    ),
    'voc number': (
        write_voc,
        lambda r: edit_text(r / 'Annotations/p00000.xml', '<xmin>', '<xmin>x'),
        Fault.NOT_A_NUMBER,
        r'p00000.xml: object 1 \(bird\) has the box',
    ),
    'voc difficult': (
        write_voc,
        lambda r: edit_text(r / 'Annotations/p00000.xml', '<difficult>0', '<difficult>maybe'),
        Fault.MALFORMED,
        r"p00000.xml: object 1 \(bird\) has the difficult 'maybe': 0 or 1",
    ),
    'labelme difficult': (
        write_labelme,
        lambda r: edit(r / SHAPES, lambda c: c['shapes'][0].update(difficult='maybe')),
        Fault.MALFORMED,
        r"shape 0 \(bird\) has the difficult 'maybe'",
    ),
    'voc box': (
        write_voc,
        lambda r: edit_text(r / 'Annotations/p00000.xml', '<bndbox>', '<box>', '</bndbox>', '</box>'),
        Fault.MALFORMED,
        'has no bndbox',
    ),
    'voc name': (
        write_voc,
        lambda r: edit_text(r / 'Annotations/p00000.xml', 'bird', ' '),
        Fault.MALFORMED,
        'object 1 has no name',
    ),
    'voc cut': (
        write_voc,
        lambda r: (r / 'Annotations/p00000.xml').write_text('<annotation><obj'),
        Fault.MALFORMED,
        'is not XML',
    ),
    'voc entities': (
        write_voc,
        lambda r: (r / 'Annotations/p00000.xml').write_text(
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><object>&x;</object></annotation>'
        ),
        Fault.MALFORMED,
        'declares entities',
    ),
    'voc list': (
        write_voc,
        lambda r: edit_text(r / 'ImageSets/Main/train.txt', 'p00000', 'p0'),
        Fault.MISSING_IMAGE,
        'train.txt: names p0, which is not there',
    ),
    'voc size': (
        write_voc,
        lambda r: edit_text(r / 'Annotations/p00000.xml', '<width>64', '<width>63'),
        Fault.WRONG_SIZE,
        'p00000.png: has 48x64 pixels .H x W., but .*p00000.xml says 48x63',
    ),
    'labelme json': (write_labelme, lambda r: cut(r / SHAPES), Fault.MALFORMED, 'p00000.json: is not JSON'),
    'labelme line': (
        write_labelme,
        lambda r: edit(r / SHAPES, lambda c: c['shapes'][0].update(shape_type='line')),
        Fault.MALFORMED,
        r'shape 0 \(bird\) is a line',
    ),
    'labelme points': (
        write_labelme,
        lambda r: edit(r / SHAPES, lambda c: c['shapes'][0].update(points=[[1, None]])),
        Fault.NOT_A_NUMBER,
        'shape 0 has points',
    ),
    'labelme path': (
        write_labelme,
        lambda r: edit(
            (r / SHAPES).rename(r / 'images/train/other.json'), lambda c: c.update(imagePath='C:\\images\\a.png')
        ),
        Fault.OUTSIDE_FOLDER,
        'which is not in the folder',
    ),
    'via class': (
        write_via,
        lambda r: edit_text(r / 'via_train.json', '"kind": "bird"', '"kind": ""'),
        Fault.MALFORMED,
        'region 0 of p00000.png has no kind',
    ),
    'via point': (
        write_via,
        lambda r: edit_text(r / 'via_train.json', '"name": "polygon"', '"name": "point"'),
        Fault.MALFORMED,
        'is a point: polygons',
    ),
    'via numbers': (
        write_via,
        lambda r: edit_text(r / 'via_train.json', 'all_points_x', 'all_points'),
        Fault.MALFORMED,
        'polygon without sound numbers',
    ),
}


@pytest.mark.parametrize('case', OTHERS)
def test_problems_of_other_layouts_are_named_with_their_file_too(case, tmp_path):
    write, break_it, kind, message = OTHERS[case]
    write(tmp_path, made(train=4))
    assert not check(tmp_path)[1]
    break_it(tmp_path)
    data, problems = check(tmp_path)
    assert [problem for problem in problems if problem.kind == kind], problems
    named = next(str(problem) for problem in problems if problem.kind == kind)
    assert re.search(message, named), named
    assert data.splits['train']['annotations']
