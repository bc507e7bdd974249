"""The backbone's training step on the GPU, in each way that it is computed, against the CPU's in float32."""

import copy

import pytest
import torch

from fasternet_mm import FasterNet
from fasternet_mm.engine.memory_layout import LAYOUTS, faster_layout
from fasternet_mm.models import backbone
from fasternet_mm.models.backbone import FasterNetBlock

ARCHS = {
    'GELU': dict(embed_dim=40, depths=(1, 1, 2, 1), act='GELU'),
    'ReLU': dict(embed_dim=64, depths=(1, 1, 2, 1), act='ReLU'),
}

OPTIONS = {
    'as published': {},
    'norms in evaluation mode': dict(norm_eval=True),
    'a frozen stage': dict(frozen_stages=1),
    'layer scale': dict(layer_scale_init_value=0.3),
    'with_cp': dict(with_cp=True),
    'SyncBN': dict(norm_cfg=dict(type='SyncBN')),
}

WAYS = 'recomputing', 'storing', 'modules'
"""`RecomputingBranch`, the same arithmetic with autograd's own backward pass, and the modules of the blocks."""

PRECISIONS = {
    'float32': (None, 1e-3),
    'float16': (torch.float16, 0.1),
    'bfloat16': (torch.bfloat16, 0.4),
}
"""The autocast dtype, and the largest error of a gradient, as a part of its norm."""

SLOW_ON_CPU = pytest.param('float16', marks=pytest.mark.cuda)


@pytest.fixture
def compute(monkeypatch):
    """A function that lets a net's blocks compute in one of the `WAYS`."""

    def choose(net, way):
        monkeypatch.setattr(backbone, 'RECOMPUTED_BYTES', 0 if way == 'recomputing' else 2**60)
        if way == 'modules':
            for module in net.modules():
                if isinstance(module, FasterNetBlock):
                    module.mlp.register_forward_hook(lambda *_: None)  # somebody watches
        return net

    return choose


def new_net(arch, options=None):
    torch.manual_seed(0)
    net = FasterNet(arch, **options or {})
    for name, parameter in net.named_parameters():
        if parameter.dim() == 4:
            torch.nn.init.kaiming_normal_(parameter)  # so that branches count beside shortcuts
        elif 'norm' in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return net.train()


def step(net, images, dtype=None):
    """The maps and gradients of a linear loss, whose value norms cannot keep the same; the net's statistics move."""
    net.zero_grad()
    images = images.detach().requires_grad_()
    with torch.autocast(images.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        maps = net(images)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator).to(x.device) for x in maps]
    sum((x.float() * weight).sum() for x, weight in zip(maps, weights)).div(16).backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters() if parameter.requires_grad}
    return dict(images=images.grad, **gradients)


def assert_near(gradients, expected, tolerance):
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32, name
        difference = gradient.cpu() - expected[name].cpu()
        assert difference.norm() <= tolerance * expected[name].norm().cpu(), name


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('precision', ['float32', SLOW_ON_CPU, 'bfloat16'])
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('arch', ARCHS.values(), ids=ARCHS)
def test_gradients_and_statistics_are_the_cpus(arch, way, precision, layout, device, compute):
    dtype, tolerance = PRECISIONS[precision]
    images = torch.randn(2, 3, 128, 160)
    of_cpu = new_net(arch)
    net = compute(copy.deepcopy(of_cpu).to(device), way)
    gradients = step(net, images.to(device, memory_format=LAYOUTS[layout]), dtype)
    compute(of_cpu, 'storing')
    assert_near(gradients, step(of_cpu, images), tolerance)
    for (name, buffer), expected in zip(net.named_buffers(), of_cpu.buffers(), strict=True):
        torch.testing.assert_close(buffer.cpu(), expected, rtol=0.1 * tolerance, atol=0.1 * tolerance, msg=name)


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_recomputing_gives_the_gradients_of_the_modules(options, precision, device, compute):
    if device == 'cpu' and 'norm_cfg' in options:
        pytest.skip('SyncBN needs a GPU')
    images = torch.randn(2, 3, 64, 96).to(device)
    net = new_net(ARCHS['GELU'], options).to(device)
    watched = compute(copy.deepcopy(net), 'modules')
    expected = step(watched, images, PRECISIONS[precision][0])
    gradients = step(compute(net, 'recomputing'), images, PRECISIONS[precision][0])
    assert_near(gradients, expected, 1e-3 if precision == 'float32' else 0.2)
    for (name, buffer), other in zip(net.named_buffers(), watched.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, msg=name)


@pytest.mark.cuda
@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
@pytest.mark.parametrize('arch', ARCHS.values(), ids=ARCHS)
def test_recomputing_takes_less_memory(arch, precision, device, compute):
    images = torch.randn(4, 3, 256, 256, device=device)
    net = new_net(arch).to(device)
    held = {}
    for way in ('storing', 'recomputing'):
        compute(net, way)
        step(net, images, PRECISIONS[precision][0])
        before = torch.cuda.memory_allocated()
        with torch.autocast(device, torch.bfloat16, enabled=precision != 'float32'):
            maps = net(images)
        held[way] = torch.cuda.memory_allocated() - before
        del maps
    assert held['recomputing'] < 0.85 * held['storing']


def test_the_faster_layout_is_measured_and_nothing_else_changes(device):
    net = new_net(ARCHS['GELU'], dict(drop_path_rate=0.5)).to(device)
    images = torch.randn(2, 3, 64, 96, device=device)
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(0)
    expected = torch.rand(1, device=device)
    torch.manual_seed(0)
    assert faster_layout(net, images) in LAYOUTS
    assert torch.equal(torch.rand(1, device=device), expected)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in net.parameters())
