import sys

import pytest
from mmengine.config import Config

from fasternet_mm.engine.config import merge_options
from fasternet_mm.engine.loggers import LOGGERS, add_loggers, check_loggers, leave_out_loggers
from fasternet_mm.errors import UserError


def types(cfg):
    return [backend.type for backend in cfg.visualizer.vis_backends]


def test_trackers_are_added_once_after_what_the_config_has():
    cfg = Config(
        dict(visualizer=dict(type='X', vis_backends=[dict(type='LocalVisBackend'), dict(type='WandbVisBackend')]))
    )
    add_loggers(cfg, ['mlflow', 'wandb', 'mlflow'])
    assert types(cfg) == ['LocalVisBackend', 'WandbVisBackend', 'fasternet_mm.MLflowVisBackend']
    bare = Config()
    add_loggers(bare, LOGGERS)
    assert types(bare) == ['LocalVisBackend', *(f'fasternet_mm.{backend}' for backend in LOGGERS.values())]
    leave_out_loggers(bare)
    assert types(bare) == ['LocalVisBackend']


def test_a_config_without_trackers_stays_as_it_is():
    for cfg in (Config(), Config(dict(visualizer=dict(type='SegLocalVisualizer')))):
        before = cfg.pretty_text
        add_loggers(cfg, [])
        check_loggers(cfg)
        leave_out_loggers(cfg)
        assert cfg.pretty_text == before


def test_a_package_that_is_missing_is_named_with_its_extra_also_where_the_config_asks_for_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'clearml', None)
    cfg = Config(dict(visualizer=dict(vis_backends=[dict(type='ClearMLVisBackend')])))
    with pytest.raises(UserError, match=r"pip install 'fasternet-mm\[clearml\]'"):
        check_loggers(cfg)


@pytest.mark.parametrize(
    ('name', 'key', 'value'),
    [
        ('mlflow', 'exp_name', 'cells'),
        ('mlflow', 'tracking_uri', 'http://localhost:5000'),
        ('wandb', 'init_kwargs.project', 'cells'),
        ('clearml', 'init_kwargs.project_name', 'cells'),
    ],
)
def test_settings_of_a_tracker_are_changed_as_all_others(name, key, value):
    cfg = Config()
    add_loggers(cfg, [name])
    merge_options(cfg, [f'visualizer.vis_backends.1.{key}={value}'])
    settings = cfg.visualizer.vis_backends[1]
    for part in key.split('.'):
        settings = settings[part]
    assert settings == value
    with pytest.raises(UserError, match='has no'):
        merge_options(cfg, ['visualizer.vis_backends.1.no_setting=1'])


@pytest.mark.parametrize(
    ('name', 'settings', 'key'),
    [
        ('mlflow', dict(tracking_uri='https://ann:hunter2@mlflow.example'), 'tracking_uri'),
        ('wandb', dict(init_kwargs=dict(settings=dict(api_key='hunter2'))), 'init_kwargs.settings.api_key'),
        ('clearml', dict(init_kwargs=dict(secret='hunter2')), 'init_kwargs.secret'),
    ],
)
def test_a_secret_among_the_settings_is_refused_and_not_repeated(monkeypatch, name, settings, key):
    monkeypatch.setattr('fasternet_mm.engine.loggers.require', lambda *_: None)
    cfg = Config(dict(visualizer=dict(vis_backends=[dict(type=LOGGERS[name], **settings)])))
    with pytest.raises(UserError, match=f'^{key} of --logger {name} holds a secret, .*{name.upper()}') as refused:
        check_loggers(cfg)
    assert 'hunter2' not in str(refused.value)


def test_settings_that_are_no_secrets_pass(monkeypatch):
    monkeypatch.setattr('fasternet_mm.engine.loggers.require', lambda *_: None)
    settings = dict(
        tracking_uri='http://localhost:5000', exp_name='me@home', tags=dict(paper='https://example.com/a@b')
    )
    check_loggers(Config(dict(visualizer=dict(vis_backends=[dict(type='MLflowVisBackend', **settings)]))))
