import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from fasternet_mm.errors import UserError
from fasternet_mm.report.worst_images import RIGHT, WIDTHS, WRONG, draw_verdicts, open_image, resize_labels
from fasternet_mm.visualization import drawing


def test_what_is_right_is_blue_and_what_is_wrong_is_orange_at_the_scale_of_the_drawing(monkeypatch):
    monkeypatch.setattr(drawing, 'OPACITY', 1)
    mask = np.zeros((50, 100), np.uint8)
    mask[20:40, 10:30] = 1
    objects = [
        dict(bbox=[10, 20, 20, 20], segmentation=rle.encode(np.asfortranarray(mask)), text='cat', right=True),
        dict(bbox=[60, 20, 20, 20], text='dog', right=False),
        dict(bbox=[85, 20, 10, 20], segmentation=[[85, 20, 95, 20, 95, 40, 85, 40]], text='cow', right=False),
    ]
    image = draw_verdicts(np.zeros((200, 400, 3), np.uint8), objects, (50, 100))
    assert tuple(image[120, 80]) == RIGHT  # inside the first mask
    assert tuple(image[120, 240]) == WRONG  # on the frame of the second box
    assert tuple(image[120, 280]) == (0, 0, 0)  # it has no mask
    assert tuple(image[120, 360]) == WRONG  # inside the polygon


@pytest.mark.parametrize(('width', 'drawn'), [(100, WIDTHS[0]), (500, 500), (2000, WIDTHS[1])])
def test_images_are_as_wide_as_the_page_wants_them(width, drawn, tmp_path):
    Image.new('RGB', (width, width // 2)).save(tmp_path / 'a.jpg')
    assert open_image(tmp_path / 'a.jpg').shape == (drawn // 2, drawn, 3)


def test_a_file_that_is_not_an_image_is_named(tmp_path):
    (tmp_path / 'a.jpg').write_text('text')
    with pytest.raises(UserError, match=r'a\.jpg cannot be shown in the report'):
        open_image(tmp_path / 'a.jpg')


def test_labels_are_resized_without_new_ones():
    labels = np.array([[0, 9], [255, 3]])
    assert resize_labels(labels, (4, 4))[::2, 1::2].tolist() == labels.tolist()
    assert resize_labels(np.arange(9).reshape(3, 3), (1, 3)).tolist() == [[3, 4, 5]]
