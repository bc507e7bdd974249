from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from fasternet_mm.inference.label_map_files import WriteLabelMapsHook
from fasternet_mm.visualization.sample_drawing import DrawPredictionsHook

META = dict(classes=('road', 'sky', 'tree'), palette=[(200, 0, 0), (0, 200, 0), (0, 0, 200)])


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / 'images' / name for name in ('a/0001.jpg', 'b/0001.jpg', 'b/0001.png', 'sheet.jpg')]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (40, 32)).save(path)
    return [str(path) for path in paths]


def run(hook, images, label, **meta):
    """Test on these images as MMEngine's loop does; ``label`` gives the class predicted for each."""
    records = [dict(img_path=path) for path in images]
    methods = dict(__len__=lambda _: len(records), get_data_info=lambda _, number: records[number])
    dataset = type('Data', (), dict(metainfo=META, **methods))()
    loader = SimpleNamespace(dataset=dataset)
    visualizer = SimpleNamespace(dataset_meta=None)  # as in all processes but the first
    runner = SimpleNamespace(test_dataloader=loader, rank=0, visualizer=visualizer)
    hook.before_test_epoch(runner)
    for number, path in enumerate(images):
        sample = SegDataSample(metainfo=dict(img_path=path, **meta))
        sample.pred_sem_seg = PixelData(data=torch.full((1, 32, 40), label(number)))
        sample.gt_sem_seg = PixelData(data=torch.zeros((1, 32, 40), dtype=torch.long))
        hook.after_test_iter(runner, number, outputs=[sample])
    hook.after_test_epoch(runner)


@pytest.mark.parametrize('reduced', [False, True])
def test_images_of_one_name_get_label_maps_of_their_own(reduced, images, tmp_path):
    run(WriteLabelMapsHook(str(tmp_path / 'out')), images, lambda number: number % 3, reduce_zero_label=reduced)
    written = {
        path.relative_to(tmp_path / 'out').as_posix(): np.unique(np.asarray(Image.open(path))).tolist()
        for path in (tmp_path / 'out').rglob('*.png')
    }
    classes = {'a/0001.png': 0, 'b/0001.jpg.png': 1, 'b/0001.png.png': 2, 'sheet.png': 0}
    assert written == {name: [number + reduced] for name, number in classes.items()}


def test_images_of_one_name_get_drawings_of_their_own_beside_the_sheet(images, tmp_path):
    run(DrawPredictionsHook(str(tmp_path / 'out')), images, lambda number: number % 3)
    drawn = {path.relative_to(tmp_path / 'out').as_posix(): path for path in (tmp_path / 'out').rglob('*.png')}
    assert set(drawn) == {'a/0001.png', 'b/0001.jpg.png', 'b/0001.png.png', 'sheet-1.png', 'sheet.png'}
    assert Image.open(drawn['sheet-1.png']).size[0] == 80
    assert Image.open(drawn['sheet.png']).size[0] >= 3 * 640
    colors = {name: Image.open(drawn[name]).getpixel((60, 16)) for name in ('a/0001.png', 'b/0001.jpg.png')}
    assert colors == {'a/0001.png': (100, 0, 0), 'b/0001.jpg.png': (0, 100, 0)}
