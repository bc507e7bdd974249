"""Trainings of a weight, through this package's runner, whose evaluations give figures that are written here."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.registry import METRICS
from torch import nn

from fasternet_mm.engine.early_stopping import EarlyStoppingHook
from fasternet_mm.engine.runner import EvaluationRunner, StrictRunner

KEY = 'coco/bbox_mAP'
FIGURES = [0.1, 0.5, 0.4, 0.3, 0.45, 0.2, 0.2, 0.2]
"""With a patience of 3, training ends after the fifth evaluation: those after the second are not above its 0.5."""

LOADER = dict(
    dataset=[dict(inputs=torch.ones(3, 8, 8))], sampler=dict(type='DefaultSampler', shuffle=False), batch_size=1
)


class Weight(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([10.0]))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.weight.sum()) if mode == 'loss' else [self.weight]


@pytest.fixture(scope='module', autouse=True)
def _written_figures():
    @METRICS.register_module(name='WrittenFigures', force=True)
    class WrittenFigures(BaseMetric):
        def __init__(self, figures):
            super().__init__()
            self.figures = list(figures)

        def process(self, data_batch, data_samples):
            self.results.append(None)

        def compute_metrics(self, results):
            return {KEY: self.figures.pop(0)}

    yield
    del METRICS.module_dict['WrittenFigures']


def train(folder, last, figures, resume=False, by_epoch=True, patience=3):
    """Train to epoch (or step) ``last``, with an evaluation after each."""
    length = dict(max_epochs=last) if by_epoch else dict(max_iters=last)
    saving = dict(interval=1, by_epoch=by_epoch, save_best=KEY, rule='greater', max_keep_ckpts=1)
    runner = StrictRunner(
        Weight(),
        str(folder),
        train_dataloader=dict(LOADER, sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler')),
        val_dataloader=LOADER,
        val_evaluator=dict(type='WrittenFigures', figures=figures),
        val_cfg=dict(),
        train_cfg=dict(by_epoch=by_epoch, val_interval=1, **length),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        default_hooks=dict(checkpoint=dict(type='fasternet_mm.CheckpointHook', **saving)),
        custom_hooks=[
            dict(type='fasternet_mm.EarlyStoppingHook', monitor=KEY, rule='greater', min_delta=1e-6, patience=patience),
            dict(type='fasternet_mm.PlainCheckpointHook'),
        ],
        log_processor=dict(by_epoch=by_epoch),
        experiment_name=f'{folder} {last} {resume} {patience}',
        resume=resume,
        cfg=Config(dict(resume=resume)),
    )
    runner.train()
    return runner


@pytest.fixture
def runner(request):
    return SimpleNamespace(
        train_loop=SimpleNamespace(stop_training=False),
        message_hub=MessageHub(request.node.name),
        logger=MMLogger.get_current_instance(),
    )


def evaluations_until_the_end(hook, runner, figures):
    for number, figure in enumerate(figures, start=1):
        hook.after_val_epoch(runner, {KEY: figure})
        if runner.train_loop.stop_training:
            return number
    return None


def hook(patience, rule='greater', **options):
    return EarlyStoppingHook(KEY, rule=rule, min_delta=1e-6, patience=patience, **options)


@pytest.mark.parametrize(
    ('figures', 'end'),
    [
        ([0.1, 0.2, 0.3, 0.4], None),
        ([0.1, 0.3, 0.2, 0.25, 0.31], 4),  # two in a row are not above 0.3
        ([0.1, 0.3, 0.2, 0.31, 0.2, 0.3], 6),
        ([0.3, 0.3, 0.3], 3),  # the same is not better
        ([0.0, 0.0, 0.0, 0.1, 0.0, 0.0], 6),  # nothing is found yet
        ([0.3, -1, float('nan'), -1, 0.4, 0.2, float('nan'), 0.1], 8),  # what is no figure does not count
    ],
)
def test_training_ends_after_evaluations_in_a_row_without_a_better_figure(figures, end, runner):
    assert evaluations_until_the_end(hook(2), runner, figures) == end


def test_a_validation_without_the_figure_neither_counts_nor_ends_the_training(runner):
    stopping = hook(1)
    stopping.after_val_epoch(runner, {})
    stopping.after_val_epoch(runner, None)
    assert not runner.train_loop.stop_training


@pytest.mark.parametrize(
    ('stopping', 'figures', 'reason'),
    [
        (hook(2), [0.5, 0.5, 0.4], f'{KEY} was not better than 0.500 in the last 2 evaluations'),
        (hook(1), [0.5, 0.4], f'{KEY} was not better than 0.500 in the last evaluation, and the patience is for 1.'),
        (hook(2, 'less'), [0.4, 0.5, 0.4], f'{KEY} was not better than 0.400 in the last 2 evaluations'),
        (hook(2, stopping_threshold=0.7), [0.5, 0.8], 'Stopping threshold reached'),
    ],
)
def test_the_log_says_why_training_ends(stopping, figures, reason, runner):
    said = []
    runner.logger = SimpleNamespace(info=said.append)
    assert evaluations_until_the_end(stopping, runner, figures) == len(figures)
    assert len(said) == 1
    assert said[0].startswith(f'The training ends here: {reason}')


@pytest.mark.parametrize(('by_epoch', 'unit'), [(True, 'epoch'), (False, 'iter')])
def test_the_last_and_the_best_checkpoint_are_there_at_the_end(by_epoch, unit, tmp_path):
    runner = train(tmp_path, len(FIGURES), FIGURES, by_epoch=by_epoch)
    assert getattr(runner, unit) == 5
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == [
        f'best_coco_bbox_mAP_{unit}_2.pth',
        f'{unit}_5.pth',
    ]
    assert torch.load(tmp_path / f'{unit}_5.pth', weights_only=True)['state_dict']['weight'].item() == 10 - 5


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('interrupted_after', [1, 2, 3, 4])
def test_an_interrupted_training_ends_where_the_whole_one_does(interrupted_after, by_epoch, tmp_path):
    train(tmp_path, interrupted_after, FIGURES, by_epoch=by_epoch)
    runner = train(tmp_path, len(FIGURES), FIGURES[interrupted_after:], resume=True, by_epoch=by_epoch)
    assert (runner.epoch if by_epoch else runner.iter) == 5


def test_a_training_that_had_ended_goes_on_only_with_more_patience(tmp_path):
    train(tmp_path, len(FIGURES), FIGURES)
    assert train(tmp_path, len(FIGURES), [], resume=True).epoch == 5
    assert train(tmp_path, len(FIGURES), FIGURES[5:], resume=True, patience=5).epoch == 7  # 0.5 stays the best


def test_a_test_of_a_config_with_it_needs_no_training(tmp_path):
    stop = dict(type='fasternet_mm.EarlyStoppingHook', monitor=KEY, rule='greater')
    runner = EvaluationRunner(
        Weight(),
        str(tmp_path),
        test_dataloader=LOADER,
        test_evaluator=dict(type='WrittenFigures', figures=[0.5]),
        test_cfg=dict(),
        custom_hooks=[stop],
        experiment_name=str(tmp_path),
        cfg=Config(dict()),
    )
    assert runner.test() == {KEY: 0.5}
