import json
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from fasternet_mm.datasets.dataset_classes import LabelMapDataset
from fasternet_mm.engine.bad_samples import WatchedDataset
from fasternet_mm.report.runner_report import write_test_report


@pytest.mark.parametrize('several', [False, True])
def test_images_of_one_name_have_rows_of_their_own_and_are_compared_with_their_own_truth(several, tmp_path):
    records = []
    for camera, wrong in (('front', 0), ('rear', 5)):
        true = np.zeros((10, 10), np.uint8)
        true[5:] = 1
        true[0] = 7
        predicted = np.where(true == 7, 0, true)
        predicted[1, :wrong] = 1
        for kind, array in (('truth', true), ('found', predicted), ('images', np.zeros((10, 10, 3), np.uint8))):
            (tmp_path / kind / camera).mkdir(parents=True)
            Image.fromarray(array).save(tmp_path / kind / camera / '0001.png')
        paths = [str(tmp_path / kind / camera / '0001.png') for kind in ('images', 'truth')]
        records.append(dict(zip(('img_path', 'seg_map_path'), paths)))
    (tmp_path / 'list.json').write_text(json.dumps(records))
    meta = dict(classes=('road', 'sky'), palette=[(1, 2, 3), (4, 5, 6)])
    dataset = LabelMapDataset(ann_file=str(tmp_path / 'list.json'), metainfo=meta, reduce_zero_label=False)
    metric = dict(type='IoUMetric', ignore_index=7)
    model = dict(decode_head=dict(ignore_index=7), data_preprocessor=dict(seg_pad_val=7))
    cfg = Config(dict(default_scope='mmseg', model=model, test_evaluator=[metric] if several else metric))
    object.__setattr__(cfg, '_filename', str(tmp_path / 'upernet_streets/config.py'))
    loader = SimpleNamespace(dataset=WatchedDataset(dataset))
    runner = SimpleNamespace(test_dataloader=loader, cfg=cfg, work_dir=str(tmp_path))
    write_test_report(runner, str(tmp_path / 'found'), str(tmp_path / 'page.html'))
    page = (tmp_path / 'page.html').read_text()
    assert '<h1>upernet_streets</h1>' in page
    assert 'rear/0001' in page
    assert 'front/0001' not in page  # nothing is wrong there
    # Of 80 + 100 pixels that count, 5 of road are called sky: IoU 75 / 80 and 100 / 105.
    assert f'{(75 / 80 + 100 / 105) / 2:.3f}' in page
