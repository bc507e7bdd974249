import pytest
import torch
from mmengine.config import Config
from torch import nn

from fasternet_mm.engine.mixed_precision import (
    CpuAmpOptimWrapper,
    compute_in_float32,
    is_mixed,
    mix_precision_on_cpu,
    precision_of,
)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(64, 8)


def test_a_cpu_computes_products_in_bfloat16_and_keeps_float32_weights(layer):
    wrapper = CpuAmpOptimWrapper(torch.optim.SGD(layer.parameters(), lr=1.0))
    x = torch.randn(4, 64)
    with wrapper.optim_context(layer):
        y = layer(x)
    expected = x.bfloat16() @ layer.weight.bfloat16().T + layer.bias.bfloat16()
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)
    before = layer.weight.detach().clone()
    wrapper.update_params(y.float().mean())
    assert layer.weight.dtype == torch.float32
    assert not torch.equal(layer.weight, before)
    assert layer(x).dtype == torch.float32  # outside of a step


def test_a_config_says_bfloat16_on_a_cpu_and_goes_back_to_float32():
    cfg = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')))
    mix_precision_on_cpu(cfg)
    assert cfg.optim_wrapper == dict(type='fasternet_mm.CpuAmpOptimWrapper')
    assert is_mixed(cfg)
    assert precision_of(cfg) == 'bfloat16'
    compute_in_float32(cfg)
    assert cfg.optim_wrapper == dict(type='OptimWrapper')
    assert precision_of(cfg) == 'float32'
