import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fasternet_mm import FasterNet
from fasternet_mm.engine.optimizer import StageDecayConstructor, can_be_fused, in_few_operators
from fasternet_mm.engine.runner import StrictRunner
from fasternet_mm.models.backbone import InvalidArgument

TINY = dict(embed_dim=16, depths=(1, 1, 1, 1))


class Segmenter(nn.Module):
    def __init__(self, **backbone):
        super().__init__()
        self.backbone = FasterNet(TINY, **backbone)
        self.head = nn.Conv2d(16, 2, 1)


def settings(model, stage_decay, **wrapper):
    """Learning rate and weight decay of every parameter that is trained, by name."""
    cfg = dict(
        constructor='fasternet_mm.StageDecayConstructor',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
        paramwise_cfg=dict(stage_decay=stage_decay),
        **wrapper,
    )
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    found = {id(parameter): (group['lr'], group['weight_decay']) for group in groups for parameter in group['params']}
    return {name: found[id(value)] for name, value in model.named_parameters() if id(value) in found}


@pytest.mark.parametrize(
    ('name', 'lr', 'weight_decay'),
    [
        ('backbone.patch_embed.proj.weight', 0.5**5, 0.05),
        ('backbone.patch_embed.norm.weight', 0.5**5, 0),
        ('backbone.stages.0.blocks.0.mlp.0.weight', 0.5**4, 0.05),
        ('backbone.stages.1.reduction.weight', 0.5**3, 0.05),
        ('backbone.stages.2.blocks.0.spatial_mixing.partial_conv3.weight', 0.5**3, 0.05),
        ('backbone.stages.6.blocks.0.mlp.1.bias', 0.5, 0),
        ('backbone.stages.5.norm.weight', 0.5, 0),
        ('backbone.norm0.weight', 1, 0),
        ('head.weight', 1, 0.05),
        ('head.bias', 1, 0),
    ],
)
def test_learning_rates_fall_stage_by_stage_and_norms_and_biases_do_not_decay(name, lr, weight_decay):
    assert settings(Segmenter(), 0.5)[name] == (lr, weight_decay)


def test_every_parameter_is_trained_once():
    model = Segmenter()
    assert settings(model, 0.9).keys() == dict(model.named_parameters()).keys()


def test_frozen_parameters_stay_out():
    model = Segmenter(frozen_stages=0)
    trained = {name for name, _ in model.named_parameters() if not name.startswith('backbone.patch_embed')}
    assert settings(model, 1.0).keys() == trained


@pytest.mark.parametrize('paramwise_cfg', [dict(stage_decay=0), dict(stage_decay=1.1), dict(norm_decay_mult=0)])
def test_what_it_does_not_take_is_named(paramwise_cfg):
    with pytest.raises(InvalidArgument, match='it takes stage_decay alone'):
        StageDecayConstructor(dict(optimizer=dict(type='AdamW')), paramwise_cfg)


ADAMW = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
OPTIMIZERS = [
    ADAMW,
    dict(type='Adam', lr=1e-3),
    dict(type='SGD', lr=1e-3, momentum=0.9, weight_decay=1e-4),
    dict(type='AdamW', lr=1e-3, amsgrad=True),
]
CPU = torch.device('cpu')

needs_fused = pytest.mark.skipif(not can_be_fused(ADAMW, CPU), reason='this PyTorch has no fused optimizers on the CPU')


def wrapped(model, optimizer, **settings):
    """An optimizer wrapper as the runner builds it, which is all that it takes of a runner."""
    runner = StrictRunner.__new__(StrictRunner)
    runner.model, runner.cfg = model, Config()
    return runner.build_optim_wrapper(dict(optimizer=optimizer, **settings))


def trained(model, wrapper, steps=20):
    """The weights after some steps, each on the same images."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        wrapper.update_params(sum(level.square().mean() for level in model(images)))
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.fixture
def backbone():
    return FasterNet(TINY, drop_path_rate=0.0).eval()  # where its statistics would be free, tiny gradients are chance


@needs_fused
@pytest.mark.parametrize('optimizer', OPTIMIZERS, ids=lambda optimizer: optimizer['type'])
def test_a_fused_step_is_the_plain_one(optimizer, backbone):
    other = copy.deepcopy(backbone)
    fused = wrapped(backbone, optimizer, clip_grad=dict(max_norm=1.0))
    plain = build_optim_wrapper(other, dict(optimizer=optimizer, clip_grad=dict(max_norm=1.0)))
    assert fused.optimizer.defaults['fused']
    assert not plain.optimizer.defaults['fused']
    assert fused.clip_grad_kwargs == dict(max_norm=1.0, foreach=True)
    torch.testing.assert_close(trained(backbone, fused), trained(other, plain), atol=1e-6, rtol=1e-6)


@needs_fused
def test_what_the_config_says_about_the_implementation_holds(backbone):
    for own in (dict(fused=False), dict(foreach=True), dict(foreach=False)):
        assert not wrapped(backbone, {**ADAMW, **own}).optimizer.defaults['fused']
    assert wrapped(backbone, ADAMW, clip_grad=dict(max_norm=1.0, foreach=False)).clip_grad_kwargs['foreach'] is False


def test_optimizers_without_a_fused_step_stay_as_they_are(backbone):
    settings = dict(optimizer=dict(type='RMSprop', lr=1e-3))
    assert in_few_operators(settings, backbone) == settings
    assert not can_be_fused(dict(type='AdamW', lr='not a number'), CPU)


@needs_fused
def test_learning_rates_by_stage_are_fused_too_and_the_config_is_left_as_it_is():
    settings = dict(constructor='fasternet_mm.StageDecayConstructor', paramwise_cfg=dict(stage_decay=0.5))
    optimizer = dict(ADAMW)
    groups = wrapped(Segmenter(), optimizer, **settings).optimizer.param_groups
    assert len(groups) > 2
    assert all(group['fused'] for group in groups)
    assert optimizer == ADAMW


@needs_fused
@pytest.mark.parametrize('layouts', [(False, True), (True, False)], ids=['to channels_last', 'from channels_last'])
@pytest.mark.parametrize('kinds', [(False, True), (True, False)], ids=['to fused', 'from fused'])
def test_a_checkpoint_of_another_implementation_or_memory_layout_goes_on_alike(kinds, layouts, backbone):
    """Moments in another layout than the weights' would be other weights' moments, without any error."""

    def laid_out(model, channels_last):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return copy.deepcopy(model).to(memory_format=layout)

    def optimized(model, fused):
        return wrapped(model, {**ADAMW, **({} if fused else dict(fused=False))})

    before = laid_out(backbone, layouts[0])
    wrapper = optimized(before, kinds[0])
    trained(before, wrapper, 3)
    after = laid_out(before, layouts[1])
    resumed = optimized(after, kinds[1])
    resumed.load_state_dict(copy.deepcopy(wrapper.state_dict()))
    assert resumed.optimizer.param_groups[0]['fused'] is kinds[1]
    torch.testing.assert_close(trained(after, resumed, 3), trained(before, wrapper, 3), atol=1e-5, rtol=1e-4)


class Counter(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


@needs_fused
def test_a_step_takes_a_handful_of_operators_however_many_tensors_there_are(backbone):
    assert len([*backbone.parameters()]) >= 40
    wrapper = wrapped(backbone, ADAMW, clip_grad=dict(max_norm=1.0))
    trained(backbone, wrapper, 1)
    sum(level.mean() for level in backbone(torch.ones(1, 3, 64, 64))).backward()
    with Counter() as counter:
        wrapper.step()
        wrapper.zero_grad()
    assert counter.count <= 25, 'clipping, the look for NaN, and the step'
