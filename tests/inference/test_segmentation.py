"""Ways of running a segmenter that must agree."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from fasternet_mm.engine.runner import build_model


@pytest.fixture(scope='module')
def cfg(root):
    return Config.fromfile(root / 'configs/shapes/upernet_fasternet_t0_shapes.py')


@pytest.fixture(scope='module')
def segmenter(cfg):
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    return model.eval()


def batch(height, width):
    torch.manual_seed(1)
    sample = SegDataSample(metainfo=dict(ori_shape=(height, width), img_shape=(height, width), img_path='x.png'))
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, height, width, dtype=torch.long))
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    return dict(inputs=[image], data_samples=[sample])


def logits(model, data):
    with torch.no_grad():
        return model.test_step(data)[0].seg_logits.data


def sliding(model, monkeypatch):
    monkeypatch.setitem(model.test_cfg, 'mode', 'slide')
    return model


@pytest.mark.parametrize('size', [(160, 160), (96, 160), (64, 40)])
def test_sliding_over_an_image_no_larger_than_the_crop_is_the_whole(segmenter, monkeypatch, size):
    whole = logits(segmenter, batch(*size))
    slid = logits(sliding(segmenter, monkeypatch), batch(*size))
    torch.testing.assert_close(slid, whole)


def test_sliding_over_a_larger_image_covers_all_of_it(segmenter, monkeypatch):
    slid = logits(sliding(segmenter, monkeypatch), batch(200, 330))
    assert slid.shape == (7, 200, 330)
    assert slid.isfinite().all()


def test_augmentation_by_one_scale_without_flip_is_plain_inference(cfg, segmenter):
    augmented = MODELS.build(dict(**cfg.tta_model, module=segmenter)).eval()
    data = batch(96, 128)
    plain = segmenter.test_step(data)[0].pred_sem_seg.data
    several = {key: [value] for key, value in batch(96, 128).items()}
    with torch.no_grad():
        found = augmented.test_step(several)[0].pred_sem_seg.data
    assert torch.equal(found, plain)


@pytest.mark.parametrize('name', [f'upernet_fasternet_{a}' for a in ('t0', 't1', 't2', 's', 'm', 'l')])
def test_upernets_are_the_published_recipe_of_their_size(root, name):
    cfg = Config.fromfile(root / f'configs/{name}.py')
    model = build_model(cfg)
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == 160_000
    assert cfg.model.backbone.init_cfg.checkpoint == f'fasternet_{cfg.model.backbone.arch}_in1k'
    assert model.decode_head.num_classes == model.auxiliary_head.num_classes == 150
    assert list(model.decode_head.in_channels) == model.backbone.channels
    assert model.auxiliary_head.in_channels == model.backbone.channels[2]
    assert cfg.crop_size == cfg.model.data_preprocessor.size == (512, 512)


@pytest.mark.parametrize('name', [f'fpn_fasternet_{a}' for a in ('t0', 't1', 't2', 's')])
def test_semantic_fpns_are_poolformers_recipe(root, name):
    cfg = Config.fromfile(root / f'configs/{name}.py')
    model = build_model(cfg)
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 32
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == 40_000
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=2e-4, weight_decay=1e-4)
    assert model.decode_head.num_classes == 150


def test_sync_bn_waits_for_processes_on_gpus(segmenter):
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in segmenter.modules())
