import pytest
import torch
from torch import nn

from fasternet_mm import FasterNet
from fasternet_mm.engine.config import load_config
from fasternet_mm.engine.runner import build_model
from fasternet_mm.models.complexity import complexity


@pytest.mark.parametrize(
    ('peer', 'parameters', 'macs'),
    [('swin_tiny', 60, 945), ('convnext_tiny', 60, 939)],
)
def test_upernets_of_others_count_as_their_papers_do(root, peer, parameters, macs):
    """Swin: arXiv 2103.14030; ConvNeXt: arXiv 2201.03545."""
    cfg = load_config(str(root / f'configs/peers/upernet_{peer}.py'))
    cfg.default_scope = 'mmseg'
    found = complexity(build_model(cfg), 512, 2048)
    assert found.parameters / 1e6 == pytest.approx(parameters, abs=0.5)
    assert found.macs / 1e9 == pytest.approx(macs, abs=1)


def test_a_convolution_counts_one_multiply_add_per_weight_and_pixel():
    found = complexity(nn.Conv2d(3, 8, 3, padding=1, bias=False), 10, 20)
    assert found == (3 * 8 * 9, 3 * 8 * 9 * 10 * 20)


@pytest.mark.parametrize(('arch', 'macs'), [('t0', 0.34), ('s', 4.55), ('l', 15.49)])
def test_backbones_count_as_the_paper_does_but_for_the_head(arch, macs):
    head = FasterNet(arch).channels[-1] * 1280 + 1280 * 1000
    found = complexity(FasterNet(arch), 224, 224)
    assert (found.macs + head) / 1e9 == pytest.approx(macs, rel=0.015)


def test_nothing_is_computed():
    model = FasterNet('t0')
    complexity(model, 64, 64)
    assert all(p.device == torch.device('meta') for p in model.parameters())
