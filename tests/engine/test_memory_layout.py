import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import nn

from fasternet_mm.engine import memory_layout
from fasternet_mm.engine.memory_layout import MemoryLayoutHook, faster_layout
from fasternet_mm.models import FasterNet

TINY = dict(embed_dim=16, depths=(1, 1, 2, 1))


def layout(x):
    """Channels are neighbors in memory, or pixels of a row are."""
    return 'channels_last' if x.stride(1) == 1 else 'contiguous'


def hooked(backbone, hook, **cfg):
    model = nn.Module()
    model.backbone = backbone.train()
    runner = SimpleNamespace(model=model, cfg=Config(cfg))
    hook.before_train(runner)
    return runner


def test_maps_are_channels_last_in_training_on_the_cpu_until_it_ends():
    hook, backbone, images = MemoryLayoutHook(), FasterNet(TINY), torch.randn(2, 3, 64, 96)
    runner = hooked(backbone, hook)
    assert {layout(x) for x in backbone(images)} == {'channels_last'}
    assert {layout(x) for x in backbone.eval()(images)} == {'contiguous'}
    hook.after_train(runner)
    assert {layout(x) for x in backbone.train()(images)} == {'contiguous'}


def test_the_layout_may_be_told():
    backbone = FasterNet(TINY)
    hooked(backbone, MemoryLayoutHook('contiguous'))
    assert {layout(x) for x in backbone(torch.randn(2, 3, 64, 96))} == {'contiguous'}


def test_a_compiled_backbone_and_other_backbones_stay_as_they_are():
    backbone = FasterNet(TINY)
    hooked(backbone, MemoryLayoutHook(), compile=True)
    assert {layout(x) for x in backbone(torch.randn(2, 3, 64, 96))} == {'contiguous'}
    hooked(nn.Conv2d(3, 3, 1), MemoryLayoutHook())


@pytest.mark.parametrize('fast', ['channels_last', 'contiguous'])
def test_the_faster_layout_is_chosen_by_steps_on_a_copy(monkeypatch, fast):
    backbone, images = FasterNet(TINY, drop_path_rate=0.5).train(), torch.randn(2, 3, 64, 96)
    state = copy.deepcopy(backbone.state_dict())
    steps, step = [], memory_layout.step_seconds

    def timed(trial, x):
        step(trial, x)
        steps.append(layout(x))
        return 1.0 if layout(x) == fast else 2.0

    monkeypatch.setattr(memory_layout, 'step_seconds', timed)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert faster_layout(backbone, images) == fast
    assert torch.equal(torch.rand(1), expected)
    assert steps.count('contiguous') == steps.count('channels_last') > 2
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.parametrize(('owner', 'name'), [(memory_layout, 'step_seconds'), (FasterNet, '__deepcopy__')])
def test_without_memory_for_a_comparison_it_is_channels_last(monkeypatch, logged_warnings, owner, name):
    def without_memory(*_):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(owner, name, without_memory, raising=False)
    assert faster_layout(FasterNet(TINY).train(), torch.randn(2, 3, 64, 96)) == 'channels_last'
    assert 'cannot be compared' in logged_warnings()[0]
