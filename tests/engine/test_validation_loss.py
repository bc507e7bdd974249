import json
import multiprocessing
import os
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from small_models import SMALL, image
from torch import nn

from fasternet_mm.engine.runner import StrictRunner
from fasternet_mm.engine.validation_loss import ValidationLossHook

SECONDS = 60


class Weight(BaseModel):
    """The loss of an image is its mean, times a weight of 10 in the beginning."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([10.0]))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        images = torch.stack(list(inputs))
        return dict(loss=self.weight.sum() * images.mean()) if mode == 'loss' else [self.weight]


class Head(nn.Module):
    def loss(self, features):
        return features.mean() + (0 if self.training else 1000)


class Net(BaseModel):
    """What is another in training: a norm, dropout, and, as in FCOS, a head whose loss is one in training alone."""

    def __init__(self):
        super().__init__()
        self.norm, self.dropout, self.head = nn.BatchNorm2d(3), nn.Dropout(0.5), Head()
        self.norm.running_mean += 1
        self.norm.running_var += 3  # 4 in all

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss_cls=[self.head.loss(self.dropout(self.norm(torch.stack(inputs))))], acc=torch.rand(()))


def images(*values):
    return [torch.full((3, 8, 8), float(value)) for value in values]


def runner_of(model, batches, hub):
    return SimpleNamespace(model=model, message_hub=hub, build_dataloader=lambda settings: batches)


def validation_loss(model, batches, name='test'):
    hub = MessageHub(name)
    ValidationLossHook(dict()).before_val_epoch(runner_of(model, batches, hub))
    return hub.get_scalar('val/validation_loss').current()


def test_the_loss_is_the_mean_over_images_with_norms_of_evaluation_and_no_dropout():
    model = Net().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [dict(inputs=images(1, 2)), dict(inputs=images(6))]
    expected = ((1 - 1) / 2 + (2 - 1) / 2 + (6 - 1) / 2) / 3  # norms: minus mean, by the root of the variance
    assert validation_loss(model, batches) == pytest.approx(expected, rel=1e-5)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.norm.weight.grad is None


def test_training_draws_the_same_random_numbers_with_and_without_it():
    state = torch.get_rng_state()
    validation_loss(Net(), [dict(inputs=images(1))])
    assert torch.equal(torch.get_rng_state(), state)


def fcos(**preprocessor):
    torch.manual_seed(0)
    init_default_scope('mmdet')
    MessageHub.get_current_instance().update_info('iter', 0)
    model = MODELS.build(
        dict(
            type='FCOS',
            data_preprocessor=dict(type='DetDataPreprocessor', mean=[0] * 3, std=[255] * 3, **preprocessor),
            backbone=dict(type='fasternet_mm.FasterNet', arch=SMALL, out_indices=(2, 3)),
            neck=dict(type='FPN', in_channels=[64, 128], out_channels=16, num_outs=2),
            bbox_head=dict(
                type='FCOSHead',
                num_classes=2,
                in_channels=16,
                feat_channels=32,
                stacked_convs=1,
                strides=[16, 32],
                regress_ranges=((-1, 64), (64, 1e8)),
                norm_on_bbox=True,
            ),
        )
    )
    model.init_weights()
    return model


def annotated(count):
    sample = DetDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8, 40, 48]]), labels=torch.tensor([0]))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return [dict(inputs=[image(64, 64, seed)], data_samples=[sample.clone()]) for seed in range(count)]


def test_the_loss_of_a_head_that_predicts_in_other_units_than_it_learns_in_is_that_of_training():
    model = fcos().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        losses = [
            sum(model(**model.data_preprocessor(batch, True), mode='loss').values()).item() for batch in annotated(2)
        ]
    assert validation_loss(model.train(), annotated(2)) == pytest.approx(sum(losses) / 2, rel=1e-4)


def test_batches_are_not_varied_as_in_training():
    resize = dict(type='BatchSyncRandomResize', random_size_range=(96, 256), size_divisor=32, interval=1)
    varied = fcos(batch_augments=[resize])
    augments = varied.data_preprocessor.batch_augments
    assert validation_loss(varied, annotated(3)) == pytest.approx(validation_loss(fcos(), annotated(3)), rel=1e-4)
    assert varied.data_preprocessor.batch_augments is augments


def loader(values, batch_size=1):
    dataset = [dict(inputs=inputs) for inputs in images(*values)]
    return dict(dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=batch_size)


def test_each_evaluation_logs_the_loss_of_the_averaged_weights_that_it_evaluates(tmp_path):
    """An average takes a quarter of the newest weight; each step, whose images are 1, takes 1 off the weight."""
    runner = StrictRunner(
        Weight(),
        str(tmp_path),
        train_dataloader=loader([1, 1]),
        val_dataloader=loader([1]),
        val_evaluator=dict(type='mmengine.DumpResults', out_file_path=str(tmp_path / 'results.pkl')),
        val_cfg=dict(),
        train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        custom_hooks=[
            dict(type='EMAHook', momentum=0.25, priority=49),
            dict(type='fasternet_mm.ValidationLossHook', dataloader=loader([2, 3, 7], batch_size=2)),
            dict(type='fasternet_mm.PlainCheckpointHook'),
        ],
        experiment_name=str(tmp_path),
        cfg=Config(dict()),
    )
    runner.train()
    average, expected = None, []
    for epoch in range(3):
        for weight in (9 - 2 * epoch, 8 - 2 * epoch):
            average = weight if average is None else 0.75 * average + 0.25 * weight
        expected.append(average * (2 + 3 + 7) / 3)
    (file,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line['validation_loss'] for line in lines if 'validation_loss' in line] == pytest.approx(expected)
    assert runner.model.weight.item() == 4  # training goes on with its own


def begin(rank, folder):
    os.environ['LOCAL_RANK'] = str(rank)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2)
    batches = [[dict(inputs=images(1, 2))], [dict(inputs=images(6))]][rank]
    (folder / str(rank)).write_text(str(validation_loss(Weight(), batches, str(rank))))


def test_processes_share_the_mean_over_the_images_of_all(tmp_path):
    processes = multiprocessing.get_context('fork')
    started = [processes.Process(target=begin, args=(rank, tmp_path)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(SECONDS)
    assert [process.exitcode for process in started] == [0, 0]
    for rank in range(2):
        assert float((tmp_path / str(rank)).read_text()) == pytest.approx(10 * (1 + 2 + 6) / 3)
