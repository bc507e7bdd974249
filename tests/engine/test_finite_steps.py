"""Steps whose losses or gradients are not finite."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import nn

from fasternet_mm.engine.finite_steps import NotFinite, refuse_not_finite
from fasternet_mm.engine.runner import StrictRunner, build_runner
from fasternet_mm.errors import RunError, UserError

GOOD, BAD = 1.0, float('nan')


class Linear(BaseModel):
    """Its loss is the mean of what it is given, times a weight; a norm learns the statistics of that."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.norm = nn.BatchNorm1d(1)
        self.sizes, self.drawn = [], []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = torch.stack(inputs)
        self.sizes.append(len(x))
        self.drawn.append(torch.rand(1).item())
        self.norm(x)
        return dict(loss_mean=(x * self.weight).mean(), accuracy=x.new_tensor(0.5))


def train(folder, images, monkeypatch, wrapper=None, saved_every=100, model=None, batch=2, loop=None, **settings):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    dataset = [
        dict(inputs=torch.full((1,), value), data_samples=SimpleNamespace(img_path=f'{number}.jpg', to=None))
        for number, value in enumerate(images)
    ]
    model = model or Linear()
    runner = StrictRunner(
        model,
        str(folder),
        train_dataloader=dict(dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=batch),
        train_cfg={'type': 'fasternet_mm.EpochLoop', 'max_epochs': 1, **(loop or {})},
        optim_wrapper={'optimizer': dict(type='SGD', lr=0.1), **(wrapper or {})},
        default_hooks=dict(checkpoint=dict(type='fasternet_mm.CheckpointHook', interval=saved_every, by_epoch=False)),
        custom_hooks=[dict(type='fasternet_mm.PlainCheckpointHook'), dict(type='fasternet_mm.ProgressHook')],
        randomness=dict(seed=0),
        experiment_name=folder.name,
        cfg=Config(settings),
    )
    runner.train()
    return model


def test_a_training_stops_before_its_weights_take_a_loss_that_is_not_finite(tmp_path, monkeypatch):
    with pytest.raises(RunError) as error:
        train(tmp_path, [GOOD] * 4 + [GOOD, BAD], monkeypatch, saved_every=2)
    message = str(error.value)
    assert 'training stopped at step 3, which the weights have not taken' in message
    assert '(loss nan, loss_mean nan, accuracy 0.5); its images: 4.jpg, 5.jpg; lower the learning rate' in message
    assert f'go on from {tmp_path}/iter_2.pth with --resume, or add --on-nan skip' in message
    saved = torch.load(tmp_path / 'iter_2.pth', weights_only=True)['state_dict']
    assert saved['weight'].item() == pytest.approx(0.8)


def test_without_a_checkpoint_the_training_is_begun_again(tmp_path, monkeypatch):
    with pytest.raises(RunError, match=r'and train again, or add --on-nan skip'):
        train(tmp_path, [BAD, GOOD], monkeypatch)


def test_the_losses_of_a_step_in_parts_are_told_from_the_same_parts_and_random_numbers(tmp_path, monkeypatch):
    model = Linear()
    with pytest.raises(RunError, match=r'\(loss nan, loss_mean nan, accuracy 0.5\)'):
        train(tmp_path, [GOOD] * 3 + [BAD], monkeypatch, model=model, batch=4, loop=dict(images_at_once=2))
    assert model.sizes == [2, 2, 2, 2]
    assert model.drawn[2:] == model.drawn[:2]


@pytest.mark.parametrize('clip', [dict(), dict(clip_grad=dict(max_norm=10.0))])
def test_a_step_that_is_skipped_leaves_weights_and_norms_as_they_were(clip, tmp_path, monkeypatch):
    model = train(tmp_path, [GOOD, GOOD, GOOD, BAD, GOOD, GOOD], monkeypatch, wrapper=clip, on_nan='skip')
    assert model.weight.item() == pytest.approx(0.8)  # two steps of 0.1
    assert model.norm.running_mean.item() == pytest.approx(1 - 0.9**2)  # of ones, from 0, at a momentum of 0.1
    assert model.norm.num_batches_tracked == 2


def test_more_than_ten_steps_and_a_hundredth_are_not_skipped(tmp_path, monkeypatch):
    with pytest.raises(RunError, match=r'stopped at step 15 after 11 of 15 steps were skipped, .* and train again$'):
        train(tmp_path, [GOOD] * 8 + [BAD] * 30, monkeypatch, on_nan='skip')


@pytest.mark.parametrize('option', ['on_nan', 'on_bad_sample'])
def test_a_loop_of_the_configs_own_cannot_skip(option, root, tmp_path):
    cfg = Config.fromfile(root / 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py')
    cfg.work_dir, cfg.train_cfg, cfg[option] = str(tmp_path), dict(type='OwnLoop'), 'skip'
    with pytest.raises(UserError, match=f"^{option}='skip' is for the training loops of MMEngine, .* has OwnLoop"):
        build_runner(cfg, ())


def test_a_gradient_that_is_not_finite_under_a_finite_loss_is_seen():
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    refuse_not_finite(optimizer)
    parameter.sqrt().sum().backward()  # finite itself; its slope at 0 is infinite
    with pytest.raises(NotFinite):
        optimizer.step()
    assert torch.equal(parameter, torch.zeros(2))


@pytest.mark.skipif(not hasattr(torch.amp, 'GradScaler'), reason='this PyTorch scales losses on GPUs alone')
@pytest.mark.parametrize('fused', [False, True])
def test_a_step_that_the_loss_scaler_of_float16_leaves_out_is_no_error(fused):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=fused)
    refuse_not_finite(optimizer)
    scaler = torch.amp.GradScaler('cpu', init_scale=4.0)
    scaler.scale(parameter.sum() * float('inf')).backward()
    scaler.step(optimizer)
    scaler.update()
    assert (parameter.item(), scaler.get_scale()) == (0, 2.0)
