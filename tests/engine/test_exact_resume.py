"""A training that was interrupted and goes on, against the same one without an interruption."""

import contextlib
import itertools
import pickle
import random
import sys

import mmdet.models  # noqa: F401 - registers ExpMomentumEMA
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, DefaultSampler, InfiniteSampler
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS
from torch import nn
from torch.utils.data import BatchSampler

from fasternet_mm.engine.data_order import BatchOrder, Draw, SeededDataset
from fasternet_mm.engine.resumed_settings import keep_settings
from fasternet_mm.engine.runner import StrictRunner
from fasternet_mm.errors import UserError

DATASET = dict(type='NoisyDataset', serialize_data=False)
LOG = dict(by_epoch=True)
NUMBERS = itertools.count()
IMAGES, BATCH = 10, 4  # three steps an epoch, of 4, 4 and 2 images
AVERAGES = dict(type='EMAHook', ema_type='mmdet.ExpMomentumEMA', momentum=0.1, gamma=5, update_buffers=True)


class Interrupted(Exception):
    pass


class Interruption(Hook):
    priority = 'LOWEST'

    def __init__(self, step):
        self.step = step

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.step:
            raise Interrupted


class InterruptedValidation(Interruption):
    def after_train_iter(self, *args, **kwargs):
        pass

    def after_val_iter(self, runner, *args, **kwargs):
        if runner.iter == self.step:
            raise Interrupted


@DATASETS.register_module()
class NoisyDataset(BaseDataset):
    """Images of a few numbers, which vary by all generators that transforms of MMDetection draw from."""

    def load_data_list(self):
        return [dict(number=number) for number in range(IMAGES)]

    def prepare_data(self, idx):
        noise = random.random() + np.random.rand() + torch.rand(1).item()
        return dict(inputs=torch.full((6,), idx + noise))


class Dropping(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.seen = []

    def forward(self, inputs, mode='tensor'):
        x = torch.stack(inputs)
        if mode == 'loss':
            self.seen.append(x[:, 0].tolist())
            return dict(loss=(self.layers(x) - x.sum(1, keepdim=True)).square().mean())
        return [None] * len(x)


class Validations(Hook):
    """Notes the steps after which validations ended."""

    def __init__(self, ended):
        self.ended = ended

    def after_val_epoch(self, runner, metrics=None):
        self.ended.append(runner.iter)


@METRICS.register_module()
class NoMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(figure=1.0)


def validation(batch):
    return dict(
        val_dataloader=dict(dataset=DATASET, sampler=dict(type='DefaultSampler'), batch_size=batch),
        val_evaluator=dict(type='NoMetric'),
        val_cfg=dict(),
    )


def train(folder, loop, *hooks, resume=False, seed=0, workers=0, by_epoch=False, save=3, val=None, val_interval=100):
    length = dict(max_epochs=3) if loop == 'EpochLoop' else dict(max_iters=9)
    sampler = 'DefaultSampler' if loop == 'EpochLoop' else 'InfiniteSampler'
    loader = dict(batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0, dataset=DATASET)
    model = Dropping()
    runner = StrictRunner(
        model,
        str(folder),
        train_dataloader=dict(loader, sampler=dict(type=sampler, shuffle=True)),
        train_cfg=dict(type=f'fasternet_mm.{loop}', val_interval=val_interval, **length),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4),
            dict(type='CosineAnnealingLR', by_epoch=False, T_max=9),
        ],
        default_hooks=dict(
            checkpoint=dict(type='fasternet_mm.CheckpointHook', interval=save, by_epoch=by_epoch),
            sampler_seed=None,  # the loop does it
        ),
        custom_hooks=[
            dict(
                type='EMAHook', ema_type='mmdet.ExpMomentumEMA', momentum=0.1, gamma=5, update_buffers=True, priority=49
            ),
            dict(type='fasternet_mm.PlainCheckpointHook'),
            dict(type='fasternet_mm.ProgressHook'),
            *hooks,
        ],
        log_processor=LOG,
        randomness=dict(seed=seed),
        resume=resume,
        cfg=Config(dict(resume=resume)),
        experiment_name=f'{folder.name} {next(NUMBERS)}',
        **(val or {}),
    )
    with contextlib.suppress(Interrupted):
        runner.train()
    return model.seen


def state(folder):
    checkpoint = torch.load(folder / 'iter_9.pth', weights_only=True)
    return {part: checkpoint[part] for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')}


def flat(value, name=''):
    if not isinstance(value, (dict, list)):
        return {name: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {inner: number for key, part in parts for inner, number in flat(part, f'{name}.{key}').items()}


def assert_equal(actual, expected):
    actual, expected = flat(actual), flat(expected)
    assert actual.keys() == expected.keys()
    different = [
        name
        for name, value in expected.items()
        if not (torch.equal(value, actual[name]) if torch.is_tensor(value) else value == actual[name])
    ]
    assert not different


@pytest.fixture(scope='module', autouse=True)
def _no_search_for_compilers():
    """MMEngine's log of the environment takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.runner.runner.collect_env', dict)
        yield


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """What an uninterrupted training saw and became, made once for each loop."""
    made = {}

    def whole(loop):
        if loop not in made:
            folder = tmp_path_factory.mktemp(f'whole{loop}')
            made[loop] = train(folder, loop), state(folder)
        return made[loop]

    return whole


@pytest.mark.parametrize(
    ('loop', 'step', 'workers'),
    [('EpochLoop', 3, 0), ('EpochLoop', 5, 0), ('EpochLoop', 5, 2), ('IterLoop', 5, 0), ('IterLoop', 4, 2)],
)
def test_a_training_that_was_interrupted_becomes_what_it_would_have_become(loop, step, workers, whole, tmp_path):
    images, weights = whole(loop)
    before = train(tmp_path, loop, Interruption(step), workers=workers, save=step)
    after = train(tmp_path, loop, resume=True, workers=workers)
    assert before + after == images
    assert_equal(state(tmp_path), weights)


def test_a_training_that_saves_after_epochs_goes_on_with_the_next_one(whole, tmp_path):
    images, weights = whole('EpochLoop')
    before = train(tmp_path, 'EpochLoop', Interruption(5), by_epoch=True, save=1)
    after = train(tmp_path, 'EpochLoop', resume=True)
    assert before[:3] + after == images
    assert_equal(state(tmp_path), weights)


def test_each_epoch_has_all_images_each_varied_anew(whole):
    images, _ = whole('EpochLoop')
    epochs = [list(itertools.chain(*images[start : start + 3])) for start in (0, 3, 6)]
    assert [len(epoch) for epoch in epochs] == [IMAGES] * 3
    assert len({value for epoch in epochs for value in epoch}) == 3 * IMAGES


@pytest.mark.parametrize('loop', ['EpochLoop', 'IterLoop'])
def test_a_training_without_a_seed_goes_on_with_the_one_that_it_drew(loop, tmp_path):
    first = train(tmp_path, loop, Interruption(4), seed=None, save=2)
    cfg = Config(dict(load_from=str(tmp_path / 'iter_2.pth'), resume=True))
    keep_settings(cfg)
    again = train(tmp_path / 'again', loop, Interruption(4), seed=cfg.randomness.seed)
    assert again == first
    assert train(tmp_path / 'other', loop, Interruption(4), seed=None) != first


def test_another_seed_than_the_one_of_the_training_is_said_and_not_taken(tmp_path, capsys):
    train(tmp_path, 'EpochLoop', Interruption(2), seed=5, save=1)
    capsys.readouterr()
    cfg = Config(dict(load_from=str(tmp_path / 'iter_1.pth'), resume=True, randomness=dict(seed=6)))
    keep_settings(cfg)
    assert cfg.randomness.seed == 5
    assert capsys.readouterr().out == 'The seed stays 5, with which this training began; 6 would be for a new one.\n'


@pytest.mark.parametrize(('loop', 'interval'), [('EpochLoop', 1), ('IterLoop', 3)])
def test_a_validation_that_was_interrupted_is_done_and_no_other_one_again(loop, interval, tmp_path):
    ended = []
    settings = dict(val=validation(5), val_interval=interval)
    train(tmp_path, loop, Validations(ended), InterruptedValidation(6), **settings)
    assert ended == [3]
    train(tmp_path, loop, Validations(ended), resume=True, **settings)
    assert ended == [3, 6, 9]
    train(tmp_path, loop, Validations(ended), resume=True, **settings)
    assert ended == [3, 6, 9]


def test_images_of_another_number_begin_the_epoch_anew(tmp_path, monkeypatch):
    train(tmp_path, 'EpochLoop', Interruption(5), save=5)
    monkeypatch.setattr(NoisyDataset, 'load_data_list', lambda self: [dict(number=number) for number in range(6)])
    after = train(tmp_path, 'EpochLoop', resume=True)
    assert [len(images) for images in after] == [4, 2] * 2
    log = max(tmp_path.glob('*/*.log'), key=lambda path: path.stat().st_mtime).read_text()
    assert 'The data have 6 images, and had 10: the epoch begins anew' in log


def test_steps_of_other_images_begin_the_epoch_anew(tmp_path, monkeypatch):
    train(tmp_path, 'EpochLoop', Interruption(5), save=5)
    monkeypatch.setattr(sys.modules[__name__], 'BATCH', 8)
    after = train(tmp_path, 'EpochLoop', resume=True)
    assert [len(images) for images in after] == [8, 2] * 2
    log = max(tmp_path.glob('*/*.log'), key=lambda path: path.stat().st_mtime).read_text()
    assert 'An epoch has 2 steps, and had 3: the one that was interrupted begins anew' in log


@pytest.mark.parametrize('step', ['CachedMosaic', 'CachedMixUp'])
def test_that_mosaics_begin_without_images_is_told(step, tmp_path, monkeypatch):
    pipeline = [dict(type=f'mmdet.{step}', img_scale=(8, 8))]
    monkeypatch.setitem(DATASET, 'pipeline', pipeline)
    monkeypatch.setattr(NoisyDataset, '__getitem__', NoisyDataset.prepare_data)
    train(tmp_path, 'EpochLoop', Interruption(2), save=2)
    train(tmp_path, 'EpochLoop', resume=True)
    told = ['gathered anew' in path.read_text() for path in sorted(tmp_path.glob('*/*.log'))]
    assert sum(told) == 1


def test_what_is_remembered_of_the_steps_does_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr('fasternet_mm.engine.training_loops.HISTORY', 4)
    monkeypatch.setitem(LOG, 'window_size', 2)
    train(tmp_path, 'IterLoop')
    assert losses_in(tmp_path) == 4


@pytest.mark.parametrize(('window', 'steps'), [(6, 6), ('epoch', 5), ('global', 9), (None, 9)])
def test_as_many_steps_are_remembered_as_the_logs_means_are_over(window, steps, tmp_path, monkeypatch):
    """An epoch of validation has five steps here, and one of training three."""
    monkeypatch.setattr('fasternet_mm.engine.training_loops.HISTORY', 1)
    means = dict(data_src='loss', method_name='mean', window_size=window)
    last = dict(data_src='loss', method_name='current', log_name='last')
    monkeypatch.setitem(LOG, 'custom_cfg', [means, last])
    monkeypatch.setitem(LOG, 'window_size', 2)
    train(tmp_path, 'EpochLoop', val=validation(2))
    assert losses_in(tmp_path) == steps


def losses_in(folder):
    """How many losses the last checkpoint has."""
    histories = torch.load(folder / 'iter_9.pth', weights_only=True)['message_hub']['log_scalars']
    return len(histories['train/loss']['values'])


def test_annotations_that_were_changed_are_told(tmp_path, monkeypatch):
    file = tmp_path / 'annotations.json'
    monkeypatch.setitem(DATASET, 'ann_file', str(file))
    for number, (text, interruption) in enumerate([('old', 2), ('old', 4), ('new', 6)]):
        file.write_text(text)
        train(tmp_path, 'EpochLoop', Interruption(interruption), save=2, resume=number > 0)
    told = ['annotation files have changed' in path.read_text() for path in sorted(tmp_path.glob('*/*.log'))]
    assert sum(told) == 1


# The order of images


class OfTwoShapes(list):
    def get_data_info(self, number):
        return dict(width=1 + number % 2, height=1.5)


@pytest.mark.parametrize(
    ('sampler', 'batch_sampler'),
    [
        (InfiniteSampler, None),
        (DefaultSampler, None),
        (DefaultSampler, dict(type='mmdet.AspectRatioBatchSampler')),
        (DefaultSampler, dict(type='mmdet.AspectRatioBatchSampler', drop_last=True)),
    ],
)
def test_an_order_that_begins_in_the_middle_is_the_rest_of_the_whole_one(sampler, batch_sampler):
    dataset = OfTwoShapes(range(23))
    orders = [BatchOrder(sampler(dataset, seed=4), 4, batch_sampler=batch_sampler) for _ in range(2)]
    for order, behind in zip(orders, (0, 3)):
        order.begin(2, behind)
    whole, rest = (list(itertools.islice(order, count)) for order, count in zip(orders, (23, 20)))
    assert rest == whole[3:]
    assert len(rest) >= 2
    assert [draw.epoch for draw in rest[0]] == [draw.epoch for draw in whole[3]]


@pytest.mark.parametrize('batch_sampler', [None, dict(type='mmdet.AspectRatioBatchSampler')])
def test_an_order_without_a_whole_batch_is_refused_where_others_are_left_out(batch_sampler):
    sampler = DefaultSampler(OfTwoShapes(range(3)))
    assert len(BatchOrder(sampler, 4, batch_sampler=batch_sampler)) == 1
    with pytest.raises(UserError, match=r'give 3 images to a process, which are no whole batch of 4.*a smaller batch'):
        BatchOrder(sampler, 4, drop_last=True, batch_sampler=batch_sampler)


def test_an_order_is_that_of_mmengines_samplers():
    dataset = list(range(23))
    order = BatchOrder(InfiniteSampler(dataset, seed=4), 4)
    assert list(itertools.islice(order, 30)) == list(
        itertools.islice(BatchSampler(InfiniteSampler(dataset, seed=4), 4, False), 30)
    )


def test_an_endless_order_knows_in_which_pass_over_the_data_an_image_is():
    order = BatchOrder(InfiniteSampler(list(range(6)), seed=4), 4)
    order.begin(0, 2)
    assert [[draw.epoch for draw in batch] for batch in itertools.islice(order, 3)] == [[1] * 4, [2] * 4, [2, 2, 3, 3]]


def test_what_an_image_varies_by_depends_on_seed_epoch_and_number_alone():
    def read(seed, epoch, number):
        return SeededDataset(NoisyDataset(serialize_data=False), seed)[Draw(number, epoch)]['inputs'][0].item()

    assert read(0, 1, 2) == read(0, 1, 2)
    assert len({read(0, 1, 2) - 2, read(0, 2, 2) - 2, read(1, 1, 2) - 2, read(0, 1, 3) - 3}) == 4


def test_a_hook_exchanges_the_pipeline_of_the_data_set_itself():
    dataset = NoisyDataset(serialize_data=False)
    seeded = SeededDataset(dataset, 0)
    seeded.pipeline = 'another'
    assert seeded.dataset.pipeline == 'another'
    assert (len(seeded), seeded.metainfo, hasattr(seeded, 'nothing')) == (IMAGES, {}, False)


def test_a_draw_reaches_a_worker_whole():
    draw = pickle.loads(pickle.dumps(Draw(7, 3)))
    assert (draw, draw.epoch) == (7, 3)
