import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from fasternet_mm.errors import UserError
from fasternet_mm.visualization import drawing
from fasternet_mm.visualization.drawing import draw_labels, draw_objects, place_labels, with_legend, write_sheet
from fasternet_mm.visualization.palette import default_palette, palette_of
from fasternet_mm.visualization.sample_drawing import draw_beside_truth

PALETTE = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
META = dict(classes=('road', 'tree', 'sky'), palette=PALETTE)
GRAY = np.full((60, 200, 3), 90, np.uint8)


@pytest.fixture(autouse=True)
def _opaque(monkeypatch):
    monkeypatch.setattr(drawing, 'OPACITY', 1)


@pytest.fixture
def image(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / 'image.png')
    return str(tmp_path / 'image.png')


def labels():
    result = np.zeros((60, 200), np.uint8)
    result[:, 100:] = 2
    return result


def colors(part):
    return {tuple(color) for color in part.reshape(-1, 3).tolist()}


def test_a_label_map_is_drawn_over_the_image_with_a_legend_of_its_classes():
    drawn = with_legend(draw_labels(GRAY, labels(), PALETTE), [labels()], META['classes'])
    assert drawn.shape == (60 + 16, 200, 3)
    assert tuple(drawn[30, 50]) == PALETTE[0]
    assert tuple(drawn[30, 150]) == PALETTE[2]
    assert colors(drawn[60:]) >= {PALETTE[0], PALETTE[2]}
    assert PALETTE[1] not in colors(drawn[60:])  # there is no tree
    assert (GRAY == 90).all()


def test_truth_stands_on_the_left_and_what_is_ignored_stays_as_it_was(image):
    sample = SegDataSample(metainfo=dict(img_path=image))
    sample.pred_sem_seg = PixelData(data=torch.from_numpy(labels())[None].long())
    sample.gt_sem_seg = PixelData(data=torch.full((1, 60, 200), 255))
    drawn = draw_beside_truth(sample, META, 0.3)
    assert drawn.shape[1] == 400
    assert tuple(drawn[30, 50]) == (90, 90, 90)
    assert tuple(drawn[30, 250]) == PALETTE[0]


def test_a_legend_wider_than_the_image_wraps_and_widens():
    classes = ('a rather long name of a class indeed', 'tree', 'sky')
    height, width, _ = with_legend(GRAY, [labels()], classes).shape
    assert height == 60 + 2 * 16
    assert width > 200


def test_objects_are_drawn_as_frames_masks_and_text_and_the_first_is_on_top():
    masks = np.zeros((2, 60, 200), bool)
    masks[0, 30:50, 50:90] = masks[1, 30:50, 70:120] = True
    boxes = np.array([[50, 30, 90, 50], [70, 30, 120, 50]], np.float32)
    drawn = draw_objects(GRAY, boxes, PALETTE[:2], ['tree 0.90', 'дерево 0.80'], masks)
    assert tuple(drawn[40, 80]) == PALETTE[0]  # both masks are here
    assert tuple(drawn[40, 110]) == PALETTE[1]
    assert tuple(drawn[50, 60]) == PALETTE[0]  # the frame, beyond the mask
    assert (drawn[20:28, 50:90] > 240).any()  # text above the box
    assert (drawn[:15, 150:] == 90).all()


def covered(places, extents, boxes=()):
    """How often each pixel of 640x480 is covered by labels, and whether by a box."""
    image = np.zeros((480, 640), int)
    for (left, top), (width, height) in zip(places, extents):
        image[top : top + height, left : left + width] += 1
    inside = np.zeros((480, 640), bool)
    for left, top, right, bottom in boxes:
        inside[top:bottom, left:right] = True
    return image, inside


def test_labels_cover_neither_objects_nor_each_other_where_there_is_room():
    boxes = np.array([(40 + 60 * x, y, 90 + 60 * x, y + 50) for x in range(9) for y in (0, 90, 200, 430)])
    extents = np.full((len(boxes), 2), (48, 18))
    places = place_labels(boxes.astype(float), extents, (640, 480))
    image, inside = covered(places, extents, boxes)
    assert image.sum() == len(boxes) * 48 * 18  # all are inside the image
    assert image.max() == 1
    assert not image[inside].any()


def test_a_label_touches_its_own_box():
    boxes = np.random.default_rng(0).integers(0, 400, (12, 2))
    boxes = np.concatenate([boxes, boxes + 60], axis=1)
    extents = np.full((12, 2), (40, 12))
    for (left, top), (x1, y1, x2, y2) in zip(place_labels(boxes.astype(float), extents, (640, 480)), boxes):
        assert left <= x2 + 1
        assert left + 40 >= x1
        assert top <= y2 + 1
        assert top + 12 >= y1


def test_without_room_labels_are_left_out_and_the_first_ones_stand():
    boxes = np.array([(100, 100, 110, 110), (101, 101, 111, 111)] * 20, float)
    places = place_labels(boxes, np.full((40, 2), (60, 14)), (200, 200))
    has_room = (places >= 0).all(axis=1)
    assert has_room[0]
    assert 0 < has_room.sum() < 20
    image, _ = covered(places[has_room], np.full((has_room.sum(), 2), (60, 14)))
    assert (image > 1).sum() <= 0.15 * has_room.sum() * 60 * 14  # a quarter of LARGEST_HIDDEN


@pytest.mark.parametrize('side', [160, 640, 2560])
def test_lines_and_texts_grow_with_the_image(side):
    image = np.full((side, side, 3), 90, np.uint8)
    drawn = draw_objects(image, np.array([[0.5, 0.5, 0.9, 0.9]]) * side, [(255, 0, 0)], ['tree 0.90'])
    middle = drawn[round(0.7 * side), : round(0.7 * side)]
    assert (middle == (255, 0, 0)).all(axis=1).sum() == pytest.approx(side / 300, abs=0.7)
    label = (drawn != 90).any(axis=2)[:, round(0.52 * side)]
    assert (
        0.03 * side <= label[: round(0.5 * side)].sum() <= max(0.04 * side, 13)
    )  # a line of the font is 1.17 of its size


def test_an_overlay_has_the_hue_and_its_legend_the_color_of_what_is_drawn(monkeypatch):
    monkeypatch.setattr(drawing, 'OPACITY', 0.5)
    image = np.full((60, 200, 3), (0, 200, 40), np.uint8)  # gray 0.587 * 200 + 0.114 * 40 = 122
    drawn = with_legend(draw_labels(image, labels(), PALETTE), [labels()], META['classes'])
    assert tuple(drawn[30, 50]) == ((200 + 122) // 2, 122 // 2, 122 // 2)
    assert tuple(drawn[30, 150]) == (122 // 2, 122 // 2, (200 + 122) // 2)
    assert colors(drawn[60:]) >= {(161, 61, 61), (61, 61, 161)}


def test_a_sheet_with_one_tall_image_is_full(tmp_path):
    sizes = [(120, 160)] * 5 + [(900, 100)] + [(120, 160)] * 6
    for number, size in enumerate(sizes):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f'{number}.png')
    write_sheet([tmp_path / f'{number}.png' for number in range(12)], tmp_path / 'sheet.png')
    sheet = np.asarray(Image.open(tmp_path / 'sheet.png'))
    assert sheet.shape[1] == 3 * 640
    assert (sheet == 255).mean() < 0.06


def test_a_sheet_of_one_image_is_that_image(tmp_path):
    Image.fromarray(np.zeros((120, 160, 3), np.uint8)).save(tmp_path / 'a.png')
    write_sheet([tmp_path / 'a.png'], tmp_path / 'sheet.png')
    sheet = np.asarray(Image.open(tmp_path / 'sheet.png'))
    assert sheet.shape[1] == 640
    assert (sheet[8:, 8:-8] == 0).all()


@pytest.mark.parametrize('box', [(0, 0, 200, 60), (150, 40, 200, 60), (-20, -9, 4, 3), (199, 59, 199, 59)])
def test_text_stays_inside_the_image_wherever_the_box_is(box):
    drawn = draw_objects(GRAY, np.array([box], np.float32), PALETTE[:1], ['a long name 0.90'])
    assert drawn.shape == GRAY.shape
    assert (drawn == PALETTE[0]).all(2).sum() > 500  # the text's background


def test_detections_above_the_threshold_are_drawn_beside_the_truth(image):
    sample = DetDataSample(metainfo=dict(img_path=image))
    box, mask = torch.tensor([[20.0, 30, 60, 50]]), np.ones((1, 60, 200), np.uint8)
    sample.gt_instances = InstanceData(bboxes=box, labels=torch.tensor([1]), masks=BitmapMasks(mask, 60, 200))
    sample.pred_instances = InstanceData(
        bboxes=box.repeat(2, 1), labels=torch.tensor([0, 2]), scores=torch.tensor([0.9, 0.2])
    )
    drawn = draw_beside_truth(sample, META, 0.3)
    assert tuple(drawn[5, 190]) == PALETTE[1]
    right = colors(drawn[:, 200:])
    assert PALETTE[0] in right
    assert PALETTE[2] not in right


@pytest.mark.parametrize('palette', [None, 'random', [(1, 2, 3)]])
def test_classes_without_colors_get_different_ones(palette):
    assert len(set(palette_of(dict(classes='abcdef', palette=palette)))) == 6


def test_default_colors_of_neighbors_are_far_apart():
    colors = np.array(default_palette(150))
    assert len(set(map(tuple, colors.tolist()))) == 150
    assert np.abs(np.diff(colors, axis=0)).sum(1).min() > 150


@pytest.mark.parametrize('broken', [float('nan'), float('inf')])
def test_an_object_whose_box_is_not_finite_is_not_drawn(broken):
    boxes = np.array([[20, 20, broken, 50], [120, 20, 150, 50]], np.float32)
    masks = np.zeros((2, 60, 200), bool)
    masks[0, :, :90] = True
    drawing = draw_objects(GRAY, boxes, PALETTE[:2], ['road', 'tree'], masks)
    np.testing.assert_array_equal(drawing, draw_objects(GRAY, boxes[1:], PALETTE[1:2], ['tree'], masks[1:]))


def test_a_format_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'a.txt: a drawing can be .png'):
        drawing.write_drawing(tmp_path / 'a.txt', GRAY)
    assert not list(tmp_path.iterdir())
