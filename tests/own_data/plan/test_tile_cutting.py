"""Images and annotations cut into tiles, against what is cut by hand and by pycocotools."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from own_layouts import made, write_coco
from own_plans import planned
from pycocotools import mask as rle

from fasternet_mm.datasets.checks import check_data
from fasternet_mm.inference.tiles import Tiling
from fasternet_mm.own_data.layouts.annotated_data import DetectionData, SegmentationData
from fasternet_mm.own_data.plan import recipe
from fasternet_mm.own_data.plan.recipe import choose_tile
from fasternet_mm.own_data.plan.tile_cutting import cut_into_tiles
from fasternet_mm.own_data.plan.training_plan import plan_text, put_in_place
from fasternet_mm.own_data.plan.validation_split import read_earlier_split

MASK_RCNN = 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py'

TILING = Tiling((100, 100), 0.2)
"""Of images of 100 x 180 pixels: two tiles, of the columns 0 to 100 and 80 to 180."""

CIRCLE = np.zeros((100, 180), np.uint8)
cv2.circle(CIRCLE, (95, 60), 30, 1, -1)


def boxed(x, y, width, height, **more):
    return dict(category_id=1, bbox=[x, y, width, height], area=width * height, iscrowd=0, **more)


def square(x, y, width, height):
    return boxed(x, y, width, height, segmentation=[[x, y, x + width, y, x + width, y + height, x, y + height]])


@pytest.fixture
def cut(tmp_path):
    """Cut images of 100 x 180, each with these annotations, of which val has the last; gives their splits."""

    def cut(*annotations, tiling=TILING):
        (tmp_path / 'photos').mkdir()
        images, objects = [], []
        for number, of_image in enumerate(annotations, start=1):
            pixels = np.random.default_rng(number).integers(0, 256, (100, 180, 3)).astype(np.uint8)
            cv2.imwrite(str(tmp_path / f'photos/{number}.png'), pixels)
            images.append(dict(id=number, file_name=f'photos/{number}.png', height=100, width=180))
            objects += [{**obj, 'image_id': number, 'id': len(objects)} for obj in of_image]
        content = dict(annotations=objects, categories=[dict(id=1, name='cell')])
        splits = dict(train=dict(content, images=images[:-1]), val=dict(content, images=images[-1:]))
        data, text = cut_into_tiles(DetectionData('COCO', tmp_path, splits), tiling, tmp_path / 'work')
        cut.text = text
        return data.splits

    return cut


def boxes_in(split, tile):
    """Box and ``iscrowd`` of the annotations in the tile of a number."""
    image = split['images'][tile]
    of_image = [obj for obj in split['annotations'] if obj['image_id'] == image['id']]
    return [(obj['bbox'], obj['iscrowd']) for obj in of_image]


@pytest.mark.parametrize('shape', [boxed, square])
def test_objects_are_cut_at_the_borders_of_tiles(cut, shape):
    whole, halved, rest = shape(82, 10, 16, 20), shape(60, 10, 50, 20), shape(30, 40, 60, 20)
    train = cut([whole, halved, rest, shape(10, 70, 20, 20)], [])['train']
    assert [(image['height'], image['width']) for image in train['images']] == [(100, 100), (100, 100)]
    assert boxes_in(train, 0) == [
        ([82, 10, 16, 20], 0),
        ([60, 10, 40, 20], 0),
        ([30, 40, 60, 20], 0),
        ([10, 70, 20, 20], 0),
    ]
    # Of the third object a sixth is left: it is neither an object nor background.
    assert boxes_in(train, 1) == [([2, 10, 16, 20], 0), ([0, 10, 30, 20], 0), ([0, 40, 10, 20], 1)]
    assert [annotation['id'] for annotation in train['annotations']] == list(range(1, 8))
    assert [annotation['area'] for annotation in train['annotations']] == [320, 800, 1200, 400, 320, 600, 200]


def test_masks_are_cut_to_the_pixel(cut):
    encoded = rle.encode(np.asfortranarray(CIRCLE))
    segmentation = dict(size=encoded['size'], counts=encoded['counts'].decode())
    circle = dict(boxed(65, 30, 61, 61), area=int(CIRCLE.sum()), segmentation=segmentation)
    train = cut([circle], [])['train']
    for annotation, columns in zip(train['annotations'], (slice(0, 100), slice(80, 180)), strict=True):
        assert np.array_equal(rle.decode(annotation['segmentation']), CIRCLE[:, columns])
        assert annotation['area'] == CIRCLE[:, columns].sum()
        assert annotation['bbox'] == rle.toBbox(annotation['segmentation']).tolist()
    json.dumps(train)


def test_a_slanted_polygon_gets_the_box_of_what_is_left(cut):
    """A triangle whose tip reaches into the second tile: below its own box's height."""
    triangle = boxed(20, 20, 80, 40, segmentation=[[20, 20, 100, 60, 20, 60]])
    triangle['area'] = 1600
    train = cut([triangle], [])['train']
    assert boxes_in(train, 1) == [([0, 50, 20, 10], 1)]
    assert train['annotations'][1]['area'] == pytest.approx(100)


def test_ignored_regions_stay_ignored(cut):
    train = cut([dict(boxed(10, 10, 160, 50), iscrowd=1)], [])['train']
    assert [annotation['iscrowd'] for annotation in train['annotations']] == [1]  # of tiles without objects one is left


def test_tiles_hold_the_pixels_and_their_names_say_where(cut, tmp_path):
    train = cut([boxed(82, 10, 16, 20)], [])['train']
    names = [str(tmp_path / 'work' / 'tiles' / f'1.y0.x{x}.png') for x in (0, 80)]
    assert [image['file_name'] for image in train['images']] == names
    image = cv2.imread(str(tmp_path / 'photos' / '1.png'))
    assert np.array_equal(cv2.imread(names[1]), image[:, 80:])


def test_images_no_larger_than_a_tile_stay(cut):
    splits = cut([boxed(82, 10, 16, 20)], [], tiling=Tiling((100, 180)))
    assert [image['file_name'] for image in splits['train']['images']] == ['photos/1.png']
    assert boxes_in(splits['train'], 0) == [([82, 10, 16, 20], 0)]


def test_training_has_as_many_tiles_without_objects_as_with_some_and_validation_all(cut):
    tiling = Tiling((20, 20), 0.1)  # 6 x 10 tiles
    splits = cut([boxed(2, 2, 4, 4), boxed(60, 60, 4, 4)], [boxed(2, 2, 4, 4)], tiling=tiling)
    with_objects = len({annotation['image_id'] for annotation in splits['train']['annotations']})
    assert len(splits['train']['images']) == 2 * with_objects
    assert len(splits['val']['images']) == 60


def test_tests_are_of_whole_images_and_the_split_can_be_resumed(cut, tmp_path):
    splits = cut([boxed(82, 10, 16, 20)], [boxed(5, 5, 9, 9)], [boxed(20, 20, 10, 10)])
    assert [image['file_name'] for image in splits['test']['images']] == ['photos/3.png']
    assert cut.text == (
        '100x100 (H x W), overlapping by 0.2 at least: 4 from 2 images of train, 2 from 1 images of val; evaluated on '
        'tiles, tested in whole images'
    )
    assert read_earlier_split(tmp_path / 'work', tmp_path).parts == dict(
        train=frozenset(('photos/1.png', 'photos/2.png')), val=frozenset(('photos/3.png',))
    )


def test_label_maps_are_cut_with_their_images(tmp_path):
    random = np.random.default_rng(0)
    pairs = []
    for number in range(2):
        image, labels = tmp_path / f'{number}.png', tmp_path / f'labels/{number}.png'
        labels.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(image), random.integers(0, 256, (100, 180, 3)).astype(np.uint8))
        label_map = np.full((100, 180), 255, np.uint8)
        label_map[:, :20] = number
        cv2.imwrite(str(labels), label_map)
        pairs.append((image, labels))
    splits = dict(train=pairs[:1], val=pairs[1:])
    colors = [(0, 0, 0), (9, 9, 9)]
    data = SegmentationData('index PNGs', tmp_path, splits, ['a', 'b'], colors, {0: 0, 1: 1}, True, [], {})
    tiled, _ = cut_into_tiles(data, TILING, tmp_path / 'work')
    # The second tile of train has no labels, so that nothing could be learned there.
    assert [image.name for image, _ in tiled.splits['train']] == ['0.y0.x0.png']
    assert [image.name for image, _ in tiled.splits['val']] == ['1.y0.x0.png', '1.y0.x80.png']
    assert tiled.splits['test'] == pairs[1:]
    image, labels = tiled.splits['val'][1]
    assert np.array_equal(cv2.imread(str(image)), cv2.imread(str(pairs[1][0]))[:, 80:])
    assert (cv2.imread(str(labels), cv2.IMREAD_UNCHANGED) == 255).all()
    assert [tiled.classes_in[image] for image, _ in tiled.splits['val']] == [{1}, set()]


@pytest.mark.parametrize(
    ('size', 'sides', 'resized', 'tile'),
    [
        ((3000, 4000), [16, 16, 16, 16], (800, 1067), (384, 4.27, 7.5)),  # 800 / 3000 times 16; twice 16 in tiles
        ((3000, 4000), [64, 64, 64, 64], (800, 1067), (800, 17.07, 3.75)),  # as large as in the image
        ((3000, 4000), [2, 2, 2, 2], (800, 1067), (128, 0.53, 23.44)),
        ((3000, 4000), [200, 200, 200, 200], (800, 1067), None),  # still 53 pixels
        ((600, 800), [16, 16, 16, 16], (1000, 1333), None),  # enlarged without tiles
        ((1000, 1300), [20, 20, 20, 20], (800, 1040), (512, 16.0, 1.95)),
        ((3000, 4000), [], (800, 1067), None),
    ],
)
def test_tiles_are_suggested_where_objects_are_small_against_the_image(size, sides, resized, tile):
    chosen = choose_tile('detection', [size] * 3, sides, resized)
    if tile is None or tile[2] < 2:
        assert chosen is None
    else:
        assert chosen == pytest.approx(tile, abs=0.01)


def test_a_training_in_tiles_is_planned_put_in_place_and_resumed(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    write_coco(tmp_path / 'photos', made(train=8, val=3))
    draft, work, again = tmp_path / 'draft', tmp_path / 'work', tmp_path / 'again'
    cfg, plan = planned(MASK_RCNN, tmp_path / 'photos', draft, tiling=Tiling((40, 40), 0.2), epochs=1)
    lines = [line for line in plan_text(plan).splitlines() if line.startswith('tiles:')]
    assert len(lines) == 1
    assert lines[0].startswith('tiles:         40x40 (H x W), overlapping by 0.2 at least: ')
    assert 'from 8 images of train, 12 from 3 images of val' in lines[0]  # of 48x64 pixels: two rows of two tiles
    assert plan.recipe.steps == -(-len(plan.data.image_paths['train']) // plan.recipe.batch)
    put_in_place(cfg, work)
    assert cfg.tile == dict(tile=(40, 40), overlap=0.2)
    for split, sizes in dict(train={(40, 40)}, val={(40, 40)}, test={(48, 64)}).items():
        dataset = cfg[f'{split}_dataloader'].dataset
        content = json.loads(Path(dataset.ann_file).read_text())
        assert {(image['height'], image['width']) for image in content['images']} == sizes
        files = [Path(dataset.data_prefix.img, image['file_name']) for image in content['images']]
        assert {cv2.imread(str(file)).shape[:2] for file in files} == sizes
    assert cfg.test_evaluator.ann_file == cfg.test_dataloader.dataset.ann_file
    check_data(cfg, ('train', 'val', 'test'))
    resumed, plan_again = planned(MASK_RCNN, tmp_path / 'photos', again, earlier=work)
    assert resumed.tile == cfg.tile
    assert len(plan_again.data.image_paths['train']) == len(plan.data.image_paths['train'])


def test_a_plan_suggests_tiles(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    write_coco(tmp_path / 'photos', made(train=8, val=3))
    _, plan = planned(MASK_RCNN, tmp_path / 'photos', tmp_path / 'work')
    assert plan.tiles == ''
    monkeypatch.setattr(recipe, 'LARGEST', dict(detection=(32, 43)))
    monkeypatch.setattr(recipe, 'SMALLEST_TILE', 16)
    _, plan = planned(MASK_RCNN, tmp_path / 'photos', tmp_path / 'work')
    assert re.fullmatch(
        r'a quarter of the objects are below \d+ pixels once images are resized: with --tile (\d+) \1 they are '
        r'[\d.]+ times as large, and predictions take longer by the number of tiles',
        plan.tiles,
    )
