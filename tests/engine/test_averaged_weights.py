"""EMA of weights as the recipe for one's own data sets it, through this package's runner."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import nn

from fasternet_mm.engine.runner import StrictRunner, _hooks

MOMENTUM = 0.25


class Weight(BaseModel):
    """The gradient of its weight is 1, so that each step of SGD takes the learning rate off."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([10.0]))
        self.register_buffer('steps', torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'loss':
            self.steps += 1
            return dict(loss=self.weight.sum())
        return self.weight


def train(folder, epochs, resume=False):
    runner = StrictRunner(
        Weight(),
        str(folder),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.ones(3, 8, 8))] * 2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=1,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        custom_hooks=[
            dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=MOMENTUM, update_buffers=True),
            dict(type='fasternet_mm.PlainCheckpointHook'),
        ],
        experiment_name=f'{folder.name} {epochs} {resume}',
        resume=resume,
        cfg=Config(dict(resume=resume)),
    )
    runner.train()
    return torch.load(folder / f'epoch_{epochs}.pth', weights_only=True)


def expected(steps):
    """By hand: the first step's weight, then each new one counts by a quarter."""
    average, weight = None, 10.0
    for _ in range(steps):
        weight -= 1.0
        average = weight if average is None else (1 - MOMENTUM) * average + MOMENTUM * weight
    return average, weight


def test_a_checkpoint_has_the_averages_as_its_weights_and_the_others_beside_them(tmp_path):
    checkpoint = train(tmp_path, 2)
    average, weight = expected(4)
    assert checkpoint['state_dict']['weight'].item() == pytest.approx(average)
    assert checkpoint['ema_state_dict']['module.weight'].item() == pytest.approx(weight)


def test_a_resumed_training_goes_on_with_weights_averages_and_epochs(tmp_path):
    (tmp_path / 'whole').mkdir()
    (tmp_path / 'parts').mkdir()
    whole = train(tmp_path / 'whole', 4)
    train(tmp_path / 'parts', 2)
    parts = train(tmp_path / 'parts', 4, resume=True)
    assert parts['meta']['epoch'] == whole['meta']['epoch'] == 4
    for name in ('state_dict', 'ema_state_dict'):
        torch.testing.assert_close(parts[name], whole[name])
    assert whole['state_dict']['weight'].item() == pytest.approx(expected(8)[0])


@pytest.mark.parametrize(('splits', 'averaged'), [(('train', 'val'), True), (('test',), False)])
def test_evaluations_average_no_weights_since_a_checkpoint_has_the_averages_already(splits, averaged):
    cfg = Config(dict(custom_hooks=[dict(type='EMAHook'), dict(type='fasternet_mm.OptimizeHook')]))
    kinds = [hook['type'] for hook in _hooks(cfg, splits)]
    assert ('EMAHook' in kinds) is averaged
    assert 'fasternet_mm.OptimizeHook' in kinds
