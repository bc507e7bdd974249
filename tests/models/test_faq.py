"""What docs/faq.md says of FasterNet in detectors of others."""

import re

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from small_models import SMALL, image

from fasternet_mm.engine.config import load_config
from fasternet_mm.engine.runner import build_model
from fasternet_mm.models import FasterNet

SIZE = (96, 128)


@pytest.fixture(scope='module')
def blocks(root):
    """The page's blocks of Python."""
    return re.findall(r'^```python\n(.*?)^```', (root / 'docs/faq.md').read_text(), re.MULTILINE | re.DOTALL)


def run(block):
    names = {}
    exec(compile(block, 'docs/faq.md', 'exec'), names)
    return names


def gradients_missing(model):
    return [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_the_maps_are_those_that_the_page_prints(blocks, capsys):
    (block,) = [block for block in blocks if 'backbone.channels)' in block]
    run(block)
    expected = re.findall(r'# (\[.*\])', block)
    assert [line.split('  #')[0] for line in capsys.readouterr().out.splitlines()] == expected


@pytest.mark.parametrize('arch', ['t0', 't1', 't2', 's', 'm', 'l'])
def test_the_table_has_the_channels_of_each_stride(arch, root):
    row = re.search(rf'^\| {arch.upper()} \|(.*)\|$', (root / 'docs/faq.md').read_text(), re.MULTILINE)[1]
    with torch.device('meta'):
        assert FasterNet(arch).channels == [int(cell) for cell in row.split('|')]


def test_a_step_in_torchvisions_detector_reaches_every_parameter(blocks):
    (block,) = [block for block in blocks if 'FasterNetFPN' in block]
    names = run(block)
    total = sum(names['losses'].values())
    total.backward()
    assert total.isfinite()
    assert gradients_missing(names['detector']) == []


def test_detr_learns_and_predicts(blocks, tmp_path):
    (block,) = [block for block in blocks if block.startswith('# detr_fasternet_t0.py')]
    (tmp_path / 'detr.py').write_text(block)
    cfg = load_config(str(tmp_path / 'detr.py'))
    assert cfg.model.neck.in_channels == [FasterNet('t0').channels[-1]]
    cfg.model.backbone.update(arch=SMALL, init_cfg=None)
    cfg.model.neck.in_channels = [128]
    for part in ('encoder', 'decoder'):
        cfg.model[part].num_layers = 1
    cfg.model.bbox_head.num_classes = 3
    torch.manual_seed(0)
    model = build_model(cfg).train()
    model.init_weights()
    images = torch.stack([image(*SIZE, seed) for seed in (1, 2)]) / 255
    total, _ = model.parse_losses(model.loss(images, [labeled(), labeled()]))
    total.backward()
    assert total.isfinite()
    assert gradients_missing(model) == []
    with torch.no_grad():
        found = model.eval().predict(images, [labeled(), labeled()])[0].pred_instances
    assert len(found) == 100
    assert found.bboxes.isfinite().all()


def labeled():
    shape = dict(img_shape=SIZE, ori_shape=SIZE, batch_input_shape=SIZE, scale_factor=(1.0, 1.0))
    sample = DetDataSample(metainfo=shape)
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[10.0, 10, 60, 70]]), labels=torch.tensor([1]))
    return sample
