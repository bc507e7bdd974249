import copy

import pytest
from mmengine.config import Config

from fasternet_mm.engine.config import load_config, merge_options, write_config
from fasternet_mm.errors import UserError

VARIANTS = ('t0', 't1', 't2', 's', 'm', 'l')


def config(root, name):
    return str(root / 'configs' / f'mask_rcnn_fasternet_{name}.py')


@pytest.mark.parametrize('kind', ['mask_rcnn', 'faster_rcnn'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_configs_fit_their_variant(root, variant, kind):
    from fasternet_mm.engine.runner import build_model

    cfg = load_config(config(root, variant).replace('mask_rcnn', kind))
    model = build_model(cfg)
    assert cfg.model.backbone.arch == variant
    assert cfg.model.neck.in_channels == model.backbone.channels
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16


@pytest.mark.parametrize(('variant', 'lr', 'drop_path'), [('s', 2e-4, 0.15), ('m', 1e-4, 0.2), ('l', 1e-4, 0.3)])
def test_published_configs_have_the_authors_recipe(root, variant, lr, drop_path):
    cfg = load_config(config(root, variant))
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=lr, weight_decay=1e-4)
    assert 'clip_grad' not in cfg.optim_wrapper
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.param_scheduler[-1].milestones == [8, 11]
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]


@pytest.mark.parametrize('kind', ['rtmdet', 'rtmdet_ins'])
@pytest.mark.parametrize('variant', ['t0', 't1', 't2', 's'])
def test_rtmdets_fit_their_variant_and_have_the_recipe_of_rtmdet_tiny(root, variant, kind):
    from fasternet_mm.engine.runner import build_model

    cfg = load_config(config(root, variant).replace('mask_rcnn', kind))
    model = build_model(cfg)
    assert cfg.model.backbone.arch == variant
    assert cfg.model.neck.in_channels == model.backbone.channels[1:]
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 256
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=0.004, weight_decay=0.05)
    assert cfg.train_cfg.max_epochs == 300
    assert {hook.type for hook in cfg.custom_hooks} == {'EMAHook', 'PipelineSwitchHook'}


@pytest.mark.parametrize('kind', ['rtmdet', 'rtmdet_ins'])
def test_rtmdets_give_the_backbone_rgb_as_its_imagenet_weights_expect(root, kind):
    preprocessor = load_config(config(root, 't0').replace('mask_rcnn', kind)).model.data_preprocessor
    assert preprocessor.bgr_to_rgb
    assert preprocessor.mean == [123.675, 116.28, 103.53]
    assert preprocessor.std == [58.395, 57.12, 57.375]


@pytest.mark.parametrize(
    ('option', 'read'),
    [
        ('model.backbone.arch=t1', lambda cfg: cfg.model.backbone.arch == 't1'),
        ('model.backbone.with_cp=True', lambda cfg: cfg.model.backbone.with_cp is True),
        ('model.roi_head.bbox_head.num_classes=3', lambda cfg: cfg.model.roi_head.bbox_head.num_classes == 3),
        ('train_dataloader.pin_memory=True', lambda cfg: cfg.train_dataloader.pin_memory),
        ('train_dataloader.dataset.indices=10', lambda cfg: cfg.train_dataloader.dataset.indices == 10),
        ('default_hooks.checkpoint.max_keep_ckpts=2', lambda cfg: cfg.default_hooks.checkpoint.max_keep_ckpts == 2),
        ('param_scheduler.1.milestones=[1,2]', lambda cfg: cfg.param_scheduler[1].milestones == [1, 2]),
        ('optim_wrapper.accumulative_counts=4', lambda cfg: cfg.optim_wrapper.accumulative_counts == 4),
        (
            'optim_wrapper.paramwise_cfg.norm_decay_mult=0.',
            lambda cfg: cfg.optim_wrapper.paramwise_cfg.norm_decay_mult == 0,
        ),
        ('optim_wrapper.optimizer.betas=(0.9,0.99)', lambda cfg: cfg.optim_wrapper.optimizer.betas == (0.9, 0.99)),
        ('randomness.seed=3', lambda cfg: cfg.randomness.seed == 3),
        ('load_options.stem=average', lambda cfg: cfg.load_options.stem == 'average'),
        ('model.backbone.init_cfg.stem=repeat', lambda cfg: cfg.model.backbone.init_cfg.stem == 'repeat'),
        ('model.backbone.init_cfg=None', lambda cfg: cfg.model.backbone.init_cfg is None),
        ('load_from=x.pth', lambda cfg: cfg.load_from == 'x.pth'),
    ],
)
def test_options_may_set_what_something_reads(root, option, read):
    assert read(load_config(config(root, 's'), [option]))


@pytest.mark.parametrize(
    ('option', 'named'),
    [
        ('load_options.new_head=True', "load_options has no 'new_head'; did you mean 'new_heads'"),
        ('model.backbone.init_cfg.stam=repeat', "model.backbone.init_cfg has no 'stam'; did you mean 'stem'"),
        ('model.bakbone.arch=t0', "model has no 'bakbone'; did you mean 'backbone'"),
        ('model.backbone.depth=50', "model.backbone has no 'depth'.*arch"),
        ('train_dataloader.batchsize=3', "did you mean 'batch_size'"),
        ('train_dataloader.dataset.datroot=x', "did you mean 'data_root'"),
        ('param_scheduler.7.end=3', 'param_scheduler is a list, use a number from 0 to 1'),
        ('optim_wrapper.optimizer.learning_rate=1', "no 'learning_rate'"),
        ('trian_cfg.max_epochs=1', "did you mean 'train_cfg'"),
        ('model.backbone.arch.embed_dim=3', "no 'embed_dim'"),
        ('arch', 'write key=value'),
    ],
)
def test_an_option_that_nothing_reads_is_refused_with_the_nearest(root, option, named):
    with pytest.raises(UserError, match=named):
        load_config(config(root, 's'), [option])


def test_a_broken_config_is_named(tmp_path):
    (tmp_path / 'broken.py').write_text('model = dict(')
    with pytest.raises(UserError, match=r'broken.py cannot be read: SyntaxError'):
        load_config(str(tmp_path / 'broken.py'))


HOSTILE = [
    '{{$HOME:}}',
    '{{ $HOME : x }}',
    "{{'$HOME:x'}}",
    '{{ fileDirname }}/{{fileBasename}}',
    '{{_base_.model}}',
    '{{{{{',
    '\\{{$HOME:}}\\',
    '{\\x7b',
    '$HOME %s {0} %(a)s',
    "it's \"quoted\" '''",
    'two\nlines\r\n',
    'a, b=c.d #e',
    ' spaces ',
    '猫 кошка 😀 \u2028',
    '\x00\x1b[2J',
    '\udcff',
]


def test_names_in_a_config_are_the_same_when_it_is_read_again(root, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', 'evaluated')
    cfg = load_config(config(root, 't0'))
    cfg.work_dir = str(tmp_path / '{{$HOME:}} {{fileDirname}}')
    cfg.train_dataloader.dataset.metainfo = dict(classes=tuple(HOSTILE), palette=[(0, 0, 0)] * len(HOSTILE))
    cfg.train_dataloader.dataset.ann_file = '/{{$HOME:}}/{{_base_.model}}.json'
    merge_options(cfg, ['train_dataloader.batch_size=3'])
    written = write_config(cfg)
    dumped = tmp_path / 'as MMEngine does it.py'
    copy.deepcopy(cfg).dump(dumped)
    for again in (load_config(str(written)), Config.fromfile(dumped), Config.fromstring(cfg.pretty_text, '.py')):
        assert again.train_dataloader == cfg.train_dataloader
        assert again.work_dir == cfg.work_dir
        assert again.train_dataloader.dataset.metainfo.classes == tuple(HOSTILE)


def test_names_in_the_config_of_a_checkpoint_are_the_same_too(root):
    from fasternet_mm.engine.recorded_config import values_of

    cfg = load_config(config(root, 't0'))
    cfg.train_dataloader.dataset.metainfo = dict(classes=tuple(HOSTILE))
    assert values_of(cfg.pretty_text)['train_dataloader']['dataset']['metainfo']['classes'] == tuple(HOSTILE)
