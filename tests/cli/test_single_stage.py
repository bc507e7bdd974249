"""Single-stage detectors on data of one's own, through the commands."""

import json
import re

import pytest
import torch
from own_layouts import made, write_coco

pytestmark = pytest.mark.usefixtures('in_the_project')

SHORT = ('--size', '64', '96', '--cfg-options', 'model.test_cfg.score_thr=0')
TINY = """
model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dim=16, depths=(1, 1, 1, 1), act='GELU'), init_cfg=None),
    neck=dict(in_channels=[32, 64, 128], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64, stacked_convs=1),
)
"""


@pytest.fixture
def data(tmp_path):
    """Eight images to train on, one object of which is a crowd, and two to evaluate on."""
    write_coco(tmp_path / 'data', made(train=8, val=2))
    path = tmp_path / 'data/annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['iscrowd'] = 1
    path.write_text(json.dumps(content))
    return tmp_path / 'data'


def test_rtmdet_ins_is_trained_tested_applied_reported_and_resumed(data, tmp_path, run, root):
    config = tmp_path / 'tiny_rtmdet_ins.py'
    config.write_text(f"_base_ = '{root}/configs/rtmdet_ins_fasternet_t0.py'\n{TINY}")
    work, own = tmp_path / 'out', (config, '--data', data, '--work-dir', tmp_path / 'out')
    said = run('train', *own, '--epochs', 1, *SHORT)
    assert '| segm |' in said
    assert 'learned as background' not in said
    trained = torch.load(work / 'epoch_1.pth', weights_only=True)
    assert trained['meta']['dataset_meta']['classes'] == ('bird', 'cat', 'traffic light')

    said = run('test', work, '--report', tmp_path / 'report.html', '--show-dir', tmp_path / 'drawings')
    assert re.search(r'\| segm \| \d\.\d', said)
    assert 'traffic light' in (tmp_path / 'report.html').read_text()
    assert len([*(tmp_path / 'drawings').glob('p*')]) == 2

    run('predict', work, data / 'images/val', '--out-dir', tmp_path / 'found', '--score-thr', 0)
    found = json.loads((tmp_path / 'found/results.json').read_text())
    assert {tuple(record['segmentation']['size']) for record in found} == {(48, 64)}  # of the images

    run('train', *own, '--epochs', 2, '--resume', *SHORT)
    assert torch.load(work / 'epoch_2.pth', weights_only=True)['meta']['epoch'] == 2


@pytest.mark.slow
def test_a_detector_of_the_page_is_trained_and_tested(data, tmp_path, run, root):
    page = (root / 'docs/other-detectors.md').read_text()
    block = re.search(r'```python\n# atss_fasternet_t0\.py\n(.*?)```', page, re.S)[1]
    (tmp_path / 'atss_fasternet_t0.py').write_text(block)
    config = tmp_path / 'tiny_atss.py'
    config.write_text(f"_base_ = 'atss_fasternet_t0.py'\n{TINY}")
    said = run('train', config, '--data', data, '--work-dir', tmp_path / 'out', '--epochs', 1, *SHORT)
    assert 'learned as background' not in said
    assert (tmp_path / 'out/best_coco_bbox_mAP_epoch_1.pth').is_file()
    said = run('test', tmp_path / 'out', '--out', tmp_path / 'results.json')
    assert re.search(r'\| bbox \| \d\.\d', said)
    assert '| segm' not in said
    assert {record['category_id'] for record in json.loads((tmp_path / 'results.json').read_text())} == {1, 2, 3}
