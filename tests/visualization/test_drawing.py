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
from fasternet_mm.visualization.drawing import draw_labels, draw_objects, with_legend
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
    drawn = with_legend(draw_labels(GRAY, labels(), PALETTE), [labels()], **META)
    assert drawn.shape == (60 + 18, 200, 3)
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
    height, width, _ = with_legend(GRAY, [labels()], classes, PALETTE).shape
    assert height == 60 + 2 * 18
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
