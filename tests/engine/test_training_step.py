import pytest
import torch
from mmengine.config import Config

from fasternet_mm.engine.config import load_config
from fasternet_mm.engine.runner import build_model
from fasternet_mm.engine.training_step import check_training_step
from fasternet_mm.errors import UserError

MMSEG = 'mmseg::_base_/'
POOLING = ['configs/shapes/upernet_fasternet_t0_shapes.py', 'pspnet_r50-d8', 'deeplabv3_r50-d8', 'apcnet_r50-d8']
OTHERS = ['configs/fpn_fasternet_t0.py', 'fpn_r50', 'segformer_mit-b0', 'fcn_r50-d8']


@pytest.fixture(autouse=True)
def _in_the_project(root, monkeypatch):
    monkeypatch.chdir(root)


def config(name, tmp_path, options=()):
    if not name.endswith('.py'):
        (tmp_path / 'config.py').write_text(
            f"_base_ = ['{MMSEG}models/{name}.py', '{MMSEG}datasets/ade20k.py']\ndefault_scope = 'mmseg'\n"
            'model = dict(backbone=dict(init_cfg=None), pretrained=None)\n'
        )
        name = tmp_path / 'config.py'
    return load_config(str(name), options)


def check(cfg):
    check_training_step(cfg, build_model(cfg))


@pytest.mark.parametrize('name', POOLING)
def test_one_image_is_too_few_for_heads_that_pool_to_one_pixel(name, tmp_path):
    cfg = config(name, tmp_path, ['train_dataloader.batch_size=1'])
    with pytest.raises(UserError, match=r'a training step has 1 image of .* from which decode_head\..* a batch norm'):
        check(cfg)
    cfg.train_dataloader.batch_size = 2
    check(cfg)


@pytest.mark.parametrize('name', OTHERS)
def test_one_image_is_enough_for_heads_that_do_not(name, tmp_path):
    check(config(name, tmp_path, ['train_dataloader.batch_size=1']))


@pytest.mark.parametrize(
    ('gpu', 'norm', 'fails'), [(False, 'SyncBN', True), (True, 'SyncBN', False), (True, 'BN', True)]
)
def test_processes_share_their_images_by_sync_bn_on_gpus_alone(gpu, norm, fails, tmp_path, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    cfg = config(POOLING[0], tmp_path, ['train_dataloader.batch_size=1'])
    cfg.launcher = 'pytorch'
    cfg = Config.fromstring(cfg.pretty_text.replace('SyncBN', norm), '.py')
    if fails:
        with pytest.raises(UserError, match='a training step of a process has 1 image'):
            check(cfg)
    else:
        check(cfg)


@pytest.mark.parametrize(('images', 'drop_last', 'fails'), [(5, False, True), (5, True, False), (6, False, False)])
def test_the_last_step_of_an_epoch_counts_where_it_is_smaller(images, drop_last, fails, tmp_path):
    options = ['train_dataloader.batch_size=2', f'train_dataloader.dataset.indices={images}']
    cfg = config(POOLING[0], tmp_path, [*options, f'train_dataloader.drop_last={drop_last}'])
    cfg.train_dataloader.sampler.type = 'DefaultSampler'
    if fails:
        with pytest.raises(UserError, match=r'the last training step .*\(5 images in steps of 2\).*drop_last=True'):
            check(cfg)
    else:
        check(cfg)


def test_crops_that_the_network_cannot_take_are_named(tmp_path):
    cfg = config(POOLING[0], tmp_path, ['model.data_preprocessor.size=(16,64)'])
    with pytest.raises(
        UserError, match=r'trains on crops of 16x64 \(H x W\), and FasterNet takes 32x32 or more: set crop_size'
    ):
        check(cfg)
