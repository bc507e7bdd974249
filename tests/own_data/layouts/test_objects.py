"""Objects whose files say something odd: what is mended, what is asked, what is a crowd."""

import json

import numpy as np
import pytest
from own_layouts import coco_content, voc_xml, write_images, write_json, yolo_line
from pycocotools import mask as coco_masks

from fasternet_mm.own_data.layouts.normal_form import truth_value
from fasternet_mm.own_data.layouts.problems import Fault
from fasternet_mm.own_data.layouts.recognition import read_own_data
from fasternet_mm.own_data.plan.data_checks import check_own_data

NAME = 'p00000.png'
BOX = [10, 20, 30, 15]
RLE = dict(size=[48, 64], counts=[48 * 10 + 20, 5, 43, 5, 48 * 54 - 73])


def coco(folder, *records, size=(64, 48)):
    """A COCO file of one image, or of one for each record, with these annotations beside the usual keys."""
    names = [f'p{number:05d}.png' for number in range(max(1, len(records)))]
    write_images(folder, names, size)
    content = coco_content({name: [('bird', BOX, None)] for name in names}, size=size)
    for record, changes in zip(content['annotations'], records):
        record.update(changes)
    write_json(folder / 'a.json', content)


def read(folder):
    data = read_own_data(str(folder), True)
    return data, {problem.kind for problem in check_own_data(data).problems} - {Fault.NO_SAMPLES}


def only(folder):
    data, kinds = read(folder)
    (annotation,) = data.splits['train']['annotations']
    return annotation, kinds


# Corners


def test_swapped_corners_of_pascal_voc_are_sorted_and_pixels_counted_from_1_stay_whole(tmp_path):
    write_images(tmp_path, [NAME])
    swapped = voc_xml(NAME, [('bird', [40, 20, -30, 15], None)])  # xmin 40, xmax 10
    for source, box in (('Unknown', [10, 20, 30, 15]), ('PASCAL VOC2007', [9, 19, 31, 16])):
        (tmp_path / 'p00000.xml').write_text(
            swapped.replace('<database>', f'<annotation>{source}</annotation><database>')
        )
        annotation, kinds = only(tmp_path)
        assert annotation['bbox'] == box
        assert kinds == {Fault.SWAPPED}


def test_a_negative_width_of_yolo_is_the_same_box(tmp_path):
    write_images(tmp_path / 'images', [NAME])
    (tmp_path / 'labels').mkdir()
    values = yolo_line('bird', BOX, None).split()
    values[3] = f'-{values[3]}'
    (tmp_path / 'labels/p00000.txt').write_text(' '.join(values))
    (tmp_path / 'data.yaml').write_text('train: images\nnames: [bird]\n')
    annotation, kinds = only(tmp_path)
    assert annotation['bbox'] == pytest.approx(BOX, abs=0.01)
    assert kinds == {Fault.SWAPPED}


def test_a_negative_height_of_via_is_the_same_box(tmp_path):
    write_images(tmp_path, [NAME])
    shape = dict(name='rect', x=10, y=35, width=30, height=-15)
    regions = [dict(shape_attributes=shape, region_attributes=dict(kind='bird'))]
    write_json(tmp_path / 'via.json', dict(a=dict(filename=NAME, size=1, regions=regions, file_attributes={})))
    annotation, kinds = only(tmp_path)
    assert annotation['bbox'] == BOX
    assert kinds == {Fault.SWAPPED}


def test_a_negative_height_of_coco_is_the_same_box(tmp_path):
    coco(tmp_path, dict(bbox=[10, 35, 30, -15]))
    annotation, kinds = only(tmp_path)
    assert annotation['bbox'] == BOX
    assert annotation['area'] == 30 * 15
    assert kinds == {Fault.SWAPPED}


# Outlines

NO_OUTLINE = [None, [], [[]], [[], []], {}, BOX, [BOX], [[10, 20, 40, 35]], [10, 20, 40, 35]]


@pytest.mark.parametrize('segmentation', NO_OUTLINE, ids=str)
def test_a_segmentation_that_says_no_more_than_the_box_is_none(segmentation, tmp_path):
    coco(tmp_path, dict(segmentation=segmentation))
    annotation, kinds = only(tmp_path)
    assert annotation['bbox'] == BOX
    assert 'segmentation' not in annotation
    assert kinds == set()


POINTS = [[10, 20], [40, 20], [40, 35]]


@pytest.mark.parametrize('segmentation', [[10, 20, 40, 20, 40, 35], POINTS, [POINTS]], ids=str)
def test_one_polygon_without_a_list_around_it_and_points_as_pairs_are_polygons(segmentation, tmp_path):
    coco(tmp_path, dict(segmentation=segmentation))
    annotation, kinds = only(tmp_path)
    assert annotation['segmentation'] == [[10, 20, 40, 20, 40, 35]]
    assert kinds == set()


CROSSING = {
    'bowtie': [[10, 10, 30, 30, 30, 10, 10, 30]],
    'small bowtie': [[10, 10, 15, 15, 15, 10, 10, 15]],
    'closed bowtie': [[10, 10, 40, 30, 40, 10, 10, 30, 10, 10]],
    'uneven bowtie': [[10, 10, 30, 40, 30, 10, 10, 20]],
    'two parts on each other': [[10, 10, 40, 10, 40, 40, 10, 40], [12, 12, 38, 12, 38, 38, 12, 38]],
}


@pytest.mark.parametrize('shape', CROSSING)
def test_outlines_that_cross_are_kept_with_the_area_that_cocos_api_fills(shape, tmp_path):
    polygons = CROSSING[shape]
    coco(tmp_path, dict(segmentation=polygons, bbox=None))
    annotation, kinds = only(tmp_path)
    assert annotation['segmentation'] == polygons
    floats = [[float(value) for value in polygon] for polygon in polygons]
    assert annotation['area'] == coco_masks.area(coco_masks.merge(coco_masks.frPyObjects(floats, 48, 64)))
    assert kinds == set()


def test_outlines_that_do_not_cross_have_their_exact_area(tmp_path):
    generator = np.random.default_rng(0)
    for _ in range(30):
        angles = np.sort(generator.uniform(0, 2 * np.pi, 12))
        radii = generator.uniform(3, 15, 12)
        points = np.stack([30 + radii * np.cos(angles), 24 + radii * np.sin(angles)], 1).round(2)
        coco(tmp_path, dict(segmentation=[points.ravel().tolist()], bbox=None))
        after = np.roll(points, -1, 0)
        exact = abs((points[:, 0] * after[:, 1] - points[:, 1] * after[:, 0]).sum()) / 2
        assert only(tmp_path)[0]['area'] == pytest.approx(exact, abs=0.01)


BAD_OUTLINES = {
    'two points': [[10, 20, 11, 22]],
    'a line': [[10, 20, 20, 30, 30, 40]],
    'odd': [[10, 20, 30, 40, 50, 20, 1]],
    'words in a list': ['a', 'b'],
    'a mask in a list': [RLE],
    'text': [['a', 'b', 'c', 'd', 'e', 'f']],
    'a short mask': dict(size=[48, 64], counts=[5]),
    'a turned mask': dict(RLE, size=[64, 48]),
    'an empty mask': dict(size=[48, 64], counts=[48 * 64]),
    'outside': [[100, 100, 120, 100, 120, 120]],
}


@pytest.mark.parametrize('shape', BAD_OUTLINES)
def test_a_bad_outline_beside_a_sound_box_leaves_the_box(shape, tmp_path):
    coco(tmp_path, dict(segmentation=BAD_OUTLINES[shape]))
    annotation, kinds = only(tmp_path)
    assert annotation['bbox'] == BOX
    assert annotation['iscrowd'] == 0
    assert 'segmentation' not in annotation
    assert kinds == {Fault.BAD_OUTLINE}


def test_where_an_outline_of_two_points_is_all_there_is_its_place_is_ignored(tmp_path):
    coco(tmp_path, dict(segmentation=[[10, 20, 40, 35]], bbox=None), {})
    data, kinds = read(tmp_path)
    assert [obj['bbox'] for obj in data.ignored_regions['train']] == [BOX]
    assert len(data.objects['train']) == 1
    assert kinds == {Fault.BAD_OUTLINE}


def test_a_part_that_cannot_be_used_is_left_out_of_its_outline(tmp_path):
    coco(tmp_path, dict(segmentation=[[1, 1], [10, 20, 40, 20, 40, 35]], bbox=None))
    annotation, kinds = only(tmp_path)
    assert annotation['bbox'] == BOX
    assert annotation['segmentation'] == [[10, 20, 40, 20, 40, 35]]
    assert kinds == {Fault.FEW_POINTS}


# Crowds


@pytest.mark.parametrize('no', [None, 0, 0.0, False, '0', '0.0', 'false', 'False', ''], ids=repr)
def test_what_tools_write_for_no_is_no(no):
    assert truth_value(no) is False


@pytest.mark.parametrize('yes', [1, 1.0, True, '1', 'true', ' TRUE '], ids=repr)
def test_what_tools_write_for_yes_is_yes(yes):
    assert truth_value(yes) is True


@pytest.mark.parametrize('neither', [2, -1, 0.5, 'no', [], {}, [1]], ids=repr)
def test_anything_else_is_neither(neither):
    assert truth_value(neither) is None


@pytest.mark.parametrize('flag', ['iscrowd', 'ignore'])
def test_crowds_and_what_converters_call_ignored_are_no_objects(flag, tmp_path):
    coco(tmp_path, {flag: 1}, {flag: '0'})
    data, kinds = read(tmp_path)
    assert len(data.ignored_regions['train']) == len(data.objects['train']) == 1
    assert data.class_counts == {'train': [1, 0, 0]}
    assert kinds == set()


def test_difficult_objects_of_pascal_voc_and_labelme_are_no_objects(tmp_path):
    objects = [('bird', BOX, None), ('bird', [1, 2, 9, 9], None)]
    for layout in ('voc', 'labelme'):
        write_images(tmp_path / layout, [NAME])
    xml = voc_xml(NAME, objects).replace('<difficult>0', '<difficult>True', 1)
    (tmp_path / 'voc/p00000.xml').write_text(xml)
    shapes = [
        dict(label='bird', shape_type='rectangle', points=[[x, y], [x + w, y + h]], difficult=x == 10)
        for _, (x, y, w, h), _ in objects
    ]
    write_json(tmp_path / 'labelme/p00000.json', dict(shapes=shapes, imagePath=NAME))
    for layout in ('voc', 'labelme'):
        data, kinds = read(tmp_path / layout)
        assert [obj['bbox'] for obj in data.ignored_regions['train']] == [BOX], layout
        assert data.class_counts == {'train': [1]}
        assert kinds == set()


def test_an_object_of_labelme_is_difficult_where_a_part_of_it_is(tmp_path):
    write_images(tmp_path, [NAME])
    shapes = [
        dict(label='bird', group_id=1, points=[[x, 5], [x + 9, 5], [x + 9, 20]], difficult=x > 9) for x in (5, 30)
    ]
    write_json(tmp_path / 'p00000.json', dict(shapes=shapes, imagePath=NAME))
    data, _ = read(tmp_path)
    assert [obj['bbox'] for obj in data.ignored_regions['train']] == [[5, 5, 34, 15]]
    assert data.objects == {'train': []}


ATTRIBUTES = dict(attributes=dict(occluded=False))
POLYGON = dict(segmentation=[[10, 20, 40, 20, 40, 35]])
BRUSH = dict(segmentation=RLE, iscrowd=1)


@pytest.mark.parametrize(
    ('records', 'masks'),
    [
        ([BRUSH, BRUSH], True),
        ([BRUSH | ATTRIBUTES, POLYGON | ATTRIBUTES], True),
        ([BRUSH, POLYGON], False),  # as in COCO's own files
        ([BRUSH | ATTRIBUTES, POLYGON | dict(iscrowd=1) | ATTRIBUTES], False),
        ([BRUSH | ATTRIBUTES, BRUSH | dict(iscrowd=0) | ATTRIBUTES], False),
    ],
)
def test_rle_masks_that_are_the_crowds_of_a_labeling_tool_are_objects(records, masks, tmp_path):
    coco(tmp_path, *records)
    data, kinds = read(tmp_path)
    crowds = sum(record.get('iscrowd', 0) for record in records)
    assert len(data.ignored_regions['train']) == (0 if masks else crowds)
    assert (Fault.BRUSH_MASKS in kinds) == masks


def test_data_of_crowds_alone_have_nothing_to_learn_from_and_say_why(tmp_path):
    coco(tmp_path, dict(iscrowd=1), dict(iscrowd='1'))
    problems = check_own_data(read_own_data(str(tmp_path), True)).problems
    (named,) = [str(problem) for problem in problems if problem.kind is Fault.NOTHING_TO_LEARN]
    assert 'all 2 objects of train are crowds, difficult or of an unusable outline: none is trained' in named


def test_images_of_crowds_alone_have_annotations_but_nothing_to_train_on(tmp_path):
    coco(tmp_path, dict(iscrowd=1), dict(iscrowd=1), {})
    data, kinds = read(tmp_path)
    assert data.without_annotations == {'train': 0}
    assert kinds == {Fault.MOSTLY_EMPTY}


# Ids


def test_whole_floats_are_the_same_ids_as_integers(tmp_path):
    coco(tmp_path, {}, {})
    path = tmp_path / 'a.json'
    content = json.loads(path.read_text())
    for image in content['images']:
        image.update(id=float(image['id']), width=float(image['width']))
    content['annotations'][0].update(category_id=10.0)
    content['categories'][0].update(id=10.0)
    path.write_text(json.dumps(content))
    data, kinds = read(tmp_path)
    assert data.class_counts == {'train': [2, 0, 0]}
    assert kinds == set()


# What numbers mean


def asked(folder):
    data = read_own_data(str(folder), True)
    return [problem.what for problem in data.problems if problem.kind is Fault.NOTATION]


def random_boxes(generator, count, size, longest=0.7):
    """Boxes x, y, width, height of whole pixels in an image."""
    sides = np.array(size)
    extents = np.maximum(2, generator.uniform(0.02, longest, (count, 2)) * sides).astype(int)
    corners = (generator.random((count, 2)) * (sides + 1 - extents)).astype(int)
    return np.concatenate([corners, extents], 1).tolist()


def write_boxes(folder, boxes, layout, size=(64, 48)):
    """One box an image; ``boxes`` are the four numbers as the layout has them."""
    names = [f'p{number:05d}.png' for number in range(len(boxes))]
    write_images(folder / 'images', names, size)
    if layout == 'COCO':
        content = coco_content({name: [('bird', box, None)] for name, box in zip(names, boxes)}, size=size)
        write_json(folder / 'a.json', content)
    for name, numbers in zip(names, boxes):
        if layout == 'Pascal VOC':
            x, y, x1, y1 = numbers
            text = voc_xml(name, [('bird', [x, y, x1 - x, y1 - y], None)], size)
            (folder / 'images' / name).with_suffix('.xml').write_text(text)
        if layout == 'YOLO':
            (folder / 'images' / name).with_suffix('.txt').write_text(' '.join(map(str, [0, *numbers])))
    if layout == 'YOLO':
        (folder / 'data.yaml').write_text('train: images\nnames: [bird]\n')
    if layout == 'VIA':
        records = {}
        for name, numbers in zip(names, boxes):
            shape = dict(zip(('x', 'y', 'width', 'height'), numbers), name='rect')
            regions = [dict(shape_attributes=shape, region_attributes=dict(kind='bird'))]
            records[name] = dict(filename=name, size=1, regions=regions, file_attributes={})
        write_json(folder / 'via.json', records)


def corners(boxes):
    return [[x, y, x + w, y + h] for x, y, w, h in boxes]


def centers(boxes, size=(64, 48)):
    return [[(x + w / 2) / size[0], (y + h / 2) / size[1], w / size[0], h / size[1]] for x, y, w, h in boxes]


def rim(box):
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def fractions(boxes, size=(64, 48)):
    return [[value / size[place % 2] for place, value in enumerate(box)] for box in boxes]


MISREAD = {
    'COCO, corners': ('COCO', corners, 'are their numbers x1, y1, x2, y2? COCO has x, y, width, height'),
    'VIA, corners': ('VIA', corners, 'are their numbers x1, y1, x2, y2? VIA has x, y, width, height'),
    'COCO, fractions': (
        'COCO',
        fractions,
        '30 of the 30 objects of train are under a pixel: are their coordinates frac',
    ),
    'VIA, fractions': ('VIA', fractions, 'are their coordinates fractions'),
    'Pascal VOC, fractions': ('Pascal VOC', lambda boxes: fractions(corners(boxes)), 'are their coordinates fractions'),
    'YOLO, corners': (
        'YOLO',
        lambda boxes: fractions(corners(boxes)),
        'are their numbers x1, y1, x2, y2? YOLO has cen',
    ),
    'YOLO, pixels': ('YOLO', lambda boxes: boxes, 'are their coordinates pixels? Fractions (0 to 1) are needed'),
    'YOLO, outlines in pixels': ('YOLO', lambda boxes: [rim(box) for box in boxes], 'are their coordinates pixels?'),
    'YOLO, fractions of fractions': (
        'YOLO',
        lambda boxes: fractions(centers(boxes)),
        'a model learns nothing from them',
    ),
}


@pytest.mark.parametrize('case', MISREAD)
def test_numbers_that_mean_something_else_are_asked_about_once(case, tmp_path):
    layout, written, question = MISREAD[case]
    boxes = random_boxes(np.random.default_rng(1), 30, (64, 48))
    write_boxes(tmp_path, written(boxes), layout)
    (what,) = asked(tmp_path)
    assert question in what


def test_sizes_in_place_of_corners_are_asked_about(tmp_path):
    write_boxes(tmp_path, random_boxes(np.random.default_rng(1), 30, (64, 48), longest=0.3), 'Pascal VOC')
    (what,) = asked(tmp_path)
    assert 'are their numbers x, y, width, height? Pascal VOC has xmin, ymin, xmax, ymax' in what


def test_four_swapped_boxes_may_be_sound_as_sizes_by_chance_and_are_sorted(tmp_path):
    write_boxes(tmp_path, [[20, 15, 10, 5]] * 4, 'Pascal VOC')
    assert asked(tmp_path) == []
    data = read_own_data(str(tmp_path), True)
    assert [obj['bbox'] for obj in data.objects['train']] == [[10, 5, 10, 10]] * 4


def test_boxes_over_the_edge_of_which_some_cannot_be_corners_are_no_corners(tmp_path):
    boxes = [[10, 10, 60, 45]] * 18 + [[50, 40, 30, 20]] * 2
    write_boxes(tmp_path, boxes, 'COCO')
    assert asked(tmp_path) == []
    write_boxes(tmp_path / 'all', boxes[:18], 'COCO')
    assert len(asked(tmp_path / 'all')) == 1


SOUND = dict(COCO=lambda boxes: boxes, VIA=lambda boxes: boxes, YOLO=centers)
SOUND['Pascal VOC'] = corners


@pytest.mark.parametrize('layout', SOUND)
def test_nothing_is_asked_about_sound_boxes_and_boxes_with_corners_swapped_or_over_the_edge(layout, tmp_path):
    for seed in range(8):
        generator = np.random.default_rng(seed)
        boxes = random_boxes(generator, int(generator.integers(1, 25)), (64, 48), generator.uniform(0.1, 1))
        for box in boxes if seed % 2 else []:  # amodal: parts outside of the image are annotated too
            box[0] += int(generator.integers(-6, 7))
            box[1] += int(generator.integers(-6, 7))
        written = SOUND[layout](boxes)
        if layout == 'Pascal VOC' and seed % 2:  # drawn from right to left
            written = [[x1, y, x0, y1] for x0, y, x1, y1 in written]
        write_boxes(tmp_path / str(seed), written, layout)
        assert asked(tmp_path / str(seed)) == [], seed
