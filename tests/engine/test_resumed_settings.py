"""What a training that goes on keeps of its settings, and what it tells of others."""

import copy
import re

import pytest
import torch
from mmengine.config import Config

from fasternet_mm.engine.optimizer import keep_implementation
from fasternet_mm.engine.resumed_settings import keep_settings, refuse_other_steps
from fasternet_mm.errors import UserError

BEFORE = dict(
    model=dict(type='FasterRCNN', neck=dict(out_channels=64)),
    optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.002)),
    param_scheduler=[dict(type='LinearLR', end=50), dict(type='CosineAnnealingLR', T_max=4)],
    train_cfg=dict(type='fasternet_mm.EpochLoop', max_epochs=4),
    train_dataloader=dict(batch_size=4, num_workers=2, dataset=dict(pipeline=[dict(type='RandomFlip', prob=0.5)])),
)


@pytest.fixture
def go_on(tmp_path, capsys):
    """Go on with changed settings; return the config and what was told."""

    def go_on(changes=None, seed=7, processes=1):
        text = Config(copy.deepcopy(BEFORE)).pretty_text
        path = tmp_path / 'epoch_2.pth'
        torch.save(dict(state_dict={}, meta=dict(cfg=text, seed=seed, processes=processes)), path)
        cfg = Config(dict(copy.deepcopy(BEFORE), resume=True, load_from=str(path)))
        cfg.merge_from_dict(changes or {})
        refuse_other_steps(cfg)
        keep_settings(cfg)
        return cfg, capsys.readouterr().out

    return go_on


def test_nothing_is_told_where_nothing_differs(go_on):
    cfg, told = go_on()
    assert (cfg.randomness.seed, told) == (7, '')


def test_settings_that_differ_are_named(go_on):
    changes = {
        'model.neck.out_channels': 32,
        'param_scheduler.1.T_max': 8,
        'train_cfg.val_interval': 2,
        'train_dataloader.dataset.pipeline.0.prob': 0.2,
        'train_dataloader.num_workers': 4,
    }
    _, told = go_on(changes)
    assert told == (
        'Other settings than before: model.neck.out_channels 64 -> 32, param_scheduler.1.T_max 4 -> 8, '
        'train_cfg.val_interval missing -> 2, train_dataloader.dataset.pipeline.0.prob 0.5 -> 0.2. '
        "The optimizer's settings, the learning rate and its schedule go on as they were; what else is new counts from "
        'here on.\n'
    )


def test_another_optimizer_is_refused(go_on):
    with pytest.raises(UserError, match=r'with the optimizer AdamW, and the config has SGD, .* --start .*epoch_2.pth$'):
        go_on({'optim_wrapper.optimizer.type': 'SGD'})
    go_on({'optim_wrapper.optimizer.type': 'torch.AdamW'})


@pytest.mark.parametrize(
    ('schedule', 'named'),
    [
        ([dict(type='LinearLR', end=50), dict(type='PolyLR', end=4)], 'LinearLR, PolyLR'),
        ([dict(type='LinearLR', end=50)], 'LinearLR'),
        (None, 'none'),
    ],
)
def test_another_schedule_is_refused(schedule, named, go_on):
    with pytest.raises(UserError, match=f'the schedule LinearLR, CosineAnnealingLR, and the config has {named}, which'):
        go_on({'param_scheduler': schedule})


def test_a_setting_of_the_optimizer_goes_on_as_the_checkpoint_has_it():
    """As is told: PyTorch takes it from there."""
    before, now = (torch.optim.AdamW([torch.zeros(2)], weight_decay=decay) for decay in (0.1, 0.9))
    now.load_state_dict(before.state_dict())
    assert now.param_groups[0]['weight_decay'] == 0.1


def test_other_groups_of_parameters_are_refused():
    tensors = [torch.zeros(2), torch.zeros(3)]
    before = torch.optim.AdamW(tensors)
    now = torch.optim.AdamW([dict(params=[tensor]) for tensor in tensors])
    keep_implementation(now)
    with pytest.raises(UserError, match=r'for 2 tensors in 1 group, and .* for 2 tensors in 2 groups: keep'):
        now.load_state_dict(before.state_dict())


def test_another_number_of_processes_shares_the_same_step(go_on, monkeypatch):
    monkeypatch.setattr('fasternet_mm.engine.resumed_settings.get_world_size', lambda: 2)
    cfg, told = go_on(processes=1)
    assert cfg.train_dataloader.batch_size == 2
    assert told == 'A step keeps its 4 images: 2 in each of 2 processes, after 4 in 1.\n'
    monkeypatch.setattr('fasternet_mm.engine.resumed_settings.get_world_size', lambda: 3)
    with pytest.raises(UserError, match=r'steps of 8 images in 2 processes, which 3 cannot share: .* divides 8'):
        go_on(processes=2)


def test_another_batch_that_the_config_says_is_told(go_on):
    cfg, told = go_on({'train_dataloader.batch_size': 6})
    assert cfg.train_dataloader.batch_size == 6
    assert told == 'A step had 4 images, and has 6 from here on, as the config says; the schedule stays.\n'


def test_a_config_with_an_expression_is_not_compared_and_not_executed(go_on, tmp_path, monkeypatch):
    monkeypatch.setattr(Config, 'pretty_text', property(lambda _: f'open({str(tmp_path / "made")!r}, "w")'))
    cfg, told = go_on({'optim_wrapper.optimizer.type': 'SGD'})
    assert cfg.randomness.seed == 7
    assert re.fullmatch(r'Whether settings differ .* not known: the config in .*epoch_2.pth .*\n', told)
    assert not (tmp_path / 'made').exists()
