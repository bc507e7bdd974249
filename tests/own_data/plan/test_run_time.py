"""The time of a training, from measured steps that leave no trace in it."""

import copy
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from own_layouts import made, write_coco
from own_plans import planned
from small_models import SMALL

from fasternet_mm.engine.config import LiteralConfig
from fasternet_mm.engine.runner import build_runner
from fasternet_mm.own_data.plan import run_time, trial_steps
from fasternet_mm.own_data.plan.run_time import RunTime, advice, measure_run_time, show_progress

CPU, GPU = torch.device('cpu'), torch.device('cuda')
LEAN = [
    'model.backbone.init_cfg=None',
    'model.bbox_head.feat_channels=32',
    'model.bbox_head.in_channels=32',
    'model.neck.out_channels=32',
    'train_dataloader.batch_size=4',
    *(
        f'{split}_dataloader.{key}'
        for split in ('train', 'val')
        for key in ('num_workers=0', 'persistent_workers=False')
    ),
]


@pytest.fixture
def plan(root, monkeypatch, tmp_path):
    monkeypatch.chdir(root)
    write_coco(tmp_path / 'data', made(train=8, val=2))
    config = 'configs/rtmdet_fasternet_t0.py'
    cfg, _ = planned(config, tmp_path / 'data', tmp_path / 'out', LEAN, size=(32, 32), epochs=1)
    cfg.model.backbone.arch, cfg.model.neck.in_channels = SMALL, [32, 64, 128]
    monkeypatch.setattr(LiteralConfig, 'pretty_text', '')  # which takes longer than all else
    return cfg


def trained(cfg, work_dir):
    cfg = copy.deepcopy(cfg)
    cfg.work_dir, cfg.randomness = str(work_dir), dict(seed=3)
    runner = build_runner(cfg, ('train', 'val'))
    runner.train()
    return runner.model.state_dict()


@pytest.mark.slow
def test_a_training_is_the_same_with_and_without_the_measurement(plan, tmp_path):
    before = copy.deepcopy(plan)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    first = trained(plan, tmp_path / 'first')
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    measured = measure_run_time(plan, CPU)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert measured.step > 0
    assert measured.evaluation > 0
    assert (measured.steps, measured.evaluations) == (2, 1)
    assert plan.to_dict() == before.to_dict()
    second = trained(plan, tmp_path / 'second')
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture
def known(monkeypatch):
    """Ten images to train on, five to evaluate; a step of 1 s, an image that is read in 0.1 s, and a clock of 3 s."""
    lengths = dict(train=10, val=5)
    monkeypatch.setattr(run_time, 'build_dataset', lambda settings, scope: range(lengths[settings.split]))
    monkeypatch.setattr(run_time, 'train_step_seconds', lambda *_: (1.0, 0.1))
    monkeypatch.setattr(run_time, 'evaluation_seconds', lambda *_: (3.0, 0.1))
    monkeypatch.setattr(run_time, 'cpus_per_process', lambda: 2)


def config(loop, workers=0, batch=2):
    loaders = {
        f'{split}_dataloader': dict(batch_size=batch, num_workers=workers, dataset=dict(split=split))
        for split in ('train', 'val')
    }
    return Config(dict(train_cfg=loop, default_scope='mmdet', **loaders))


@pytest.mark.usefixtures('known')
@pytest.mark.parametrize(
    ('loop', 'settings', 'expected'),
    [
        (dict(max_epochs=7, val_interval=3), {}, (1.2, 35, 9.6, 3)),
        (dict(max_epochs=7, val_interval=3), dict(done=15), (1.2, 20, 9.6, 2)),
        (dict(max_epochs=7, val_interval=3), dict(processes=5), (1.2, 7, 3.2, 3)),
        (dict(max_iters=70, val_interval=20), dict(done=20), (1.2, 50, 9.6, 3)),
        (dict(max_epochs=1, val_interval=1, images_at_once=1), {}, (2.2, 5, 9.6, 1)),
        (dict(max_epochs=1, val_interval=1), dict(workers=2), (1.1, 5, 9.3, 1)),
        (dict(max_epochs=1, val_interval=1), dict(workers=2, device=GPU), (1.0, 5, 9.0, 1)),
        (dict(max_epochs=1, val_interval=1), dict(workers=1, batch=20, device=GPU), (2.0, 1, 3.0, 1)),
    ],
)
def test_steps_and_evaluations_that_are_left_are_counted_with_the_reading_of_images(loop, settings, expected):
    cfg = config(loop, settings.pop('workers', 0), settings.pop('batch', 2))
    time = measure_run_time(cfg, settings.pop('device', CPU), **settings)
    assert (time.step, time.steps, time.evaluation, time.evaluations) == pytest.approx(expected)


@pytest.mark.parametrize(
    ('time', 'text'),
    [
        (
            RunTime(0.35, 1857, 7, 10),
            'about 12 minutes (0.35 s a step on this machine, measured; 10 evaluations of 7 s)',
        ),
        (RunTime(0.2, 2, 0, 1), 'about 1 second (0.2 s a step on this machine, measured; 1 evaluation of 0 s)'),
        (RunTime(0.1, 400, 0, 1), 'about 40 seconds (0.1 s a step on this machine, measured; 1 evaluation of 0 s)'),
        (
            RunTime(7.7, 1222, 104, 12),
            'about 3 hours (7.7 s a step on this machine, measured; 12 evaluations of 104 s)',
        ),
        (RunTime(10, 3600, 0, 1), 'about 10 hours (10 s a step on this machine, measured; 1 evaluation of 0 s)'),
    ],
)
def test_the_time_is_said_as_people_say_it(time, text):
    assert str(time) == text


def test_advice_is_for_more_than_an_hour_on_a_cpu():
    assert advice(3500, CPU, 'leave out --accurate') == advice(9999, GPU) == ''
    assert advice(3700, CPU) == 'that is long: give a smaller --size, give fewer --epochs, or train on a GPU'
    assert advice(3700, CPU, 'leave out --accurate').startswith('that is long: leave out --accurate, give a smaller')


@pytest.mark.parametrize(('step', 'interval'), [(0.02, 500), (0.35, 28), (7, 1), (30, 1)])
def test_the_log_tells_of_progress_every_ten_seconds(step, interval):
    cfg = Config(dict(default_hooks=dict(logger=dict(interval=50))))
    show_progress(cfg, step)
    assert cfg.default_hooks.logger.interval == interval


@pytest.mark.parametrize(
    ('seconds', 'tried', 'taken'),
    [([2, 2, 1, 2, 9, 1], 5, 2), ([5, 3, 1, 2, 9], 4, 1.5), ([8, 7, 1], 2, 7), ([30, 25], 2, 25), ([4, 4, 3, 1], 3, 3)],
)
def test_few_steps_are_tried_where_one_takes_long(seconds, tried, taken, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    left = iter(seconds)
    monkeypatch.setattr(trial_steps.time, 'perf_counter', lambda: clock.now)

    def step():
        clock.now += next(left)

    assert trial_steps._seconds(step, CPU) == taken
    assert len(seconds) - len([*left]) == tried
