import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from fasternet_mm.inference.drawing import draw_prediction

PALETTE = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]


@pytest.fixture
def visualizer():
    visualizer = SegLocalVisualizer(alpha=1.0)
    visualizer.dataset_meta = dict(classes=('road', 'tree', 'sky'), palette=PALETTE)
    return visualizer


@pytest.fixture
def sample(tmp_path):
    cv2.imwrite(str(tmp_path / 'picture.png'), np.full((60, 200, 3), 90, np.uint8))
    labels = torch.zeros(1, 60, 200, dtype=torch.long)
    labels[:, :, 100:] = 2
    sample = SegDataSample(metainfo=dict(img_path=str(tmp_path / 'picture.png')))
    sample.pred_sem_seg = PixelData(data=labels)
    sample.gt_sem_seg = PixelData(data=torch.full_like(labels, 255))
    return sample


def read(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def test_a_label_map_is_drawn_over_the_picture_with_a_legend_of_its_classes(visualizer, sample, tmp_path):
    draw_prediction(visualizer, sample, str(tmp_path / 'out.png'), 0.3)
    drawing = read(tmp_path / 'out.png')
    assert drawing.shape == (60 + 18, 200, 3)
    assert tuple(drawing[30, 50]) == PALETTE[0]
    assert tuple(drawing[30, 150]) == PALETTE[2]
    legend = {tuple(colour) for colour in drawing[60:].reshape(-1, 3)}
    assert PALETTE[0] in legend
    assert PALETTE[2] in legend
    assert PALETTE[1] not in legend  # there is no tree


def test_truth_stands_on_the_left_and_what_is_ignored_stays_as_it_was(visualizer, sample, tmp_path):
    draw_prediction(visualizer, sample, str(tmp_path / 'out.png'), 0.3, beside_truth=True)
    drawing = read(tmp_path / 'out.png')
    assert drawing.shape[1] == 400
    assert tuple(drawing[30, 250]) == PALETTE[0]


def test_a_legend_wider_than_the_picture_wraps_and_widens(visualizer, sample, tmp_path):
    visualizer.dataset_meta['classes'] = ('a rather long name of a class indeed', 'tree', 'sky')
    draw_prediction(visualizer, sample, str(tmp_path / 'out.png'), 0.3)
    height, width, _ = read(tmp_path / 'out.png').shape
    assert height == 60 + 2 * 18
    assert width > 200
