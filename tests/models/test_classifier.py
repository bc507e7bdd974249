import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

from fasternet_mm import FasterNet, FasterNetClassifier


@pytest.mark.parametrize('act', ['relu', 'gelu'])
def test_logits_equal_the_authors(fixtures, act):
    folder = fixtures / 'reference_fasternet'
    expected = np.load(folder / f'expected_{act}.npz')
    arch = dict(embed_dim=16, depths=(1, 1, 2, 1), act=dict(relu='ReLU', gelu='GELU')[act])
    net = FasterNetClassifier(arch, num_classes=10, feature_dim=64).eval()
    net.load_state_dict(torch.load(folder / f'classifier_{act}.pth', weights_only=True))
    found = net(torch.from_numpy(expected['input']))
    torch.testing.assert_close(found, torch.from_numpy(expected['logits']), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ('arch', 'millions'), [('t0', 3.9), ('t1', 7.6), ('t2', 15.0), ('s', 31.1), ('m', 53.5), ('l', 93.4)]
)
def test_parameters_are_the_papers(arch, millions):
    with torch.device('meta'):
        net = FasterNetClassifier(arch)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_it_is_built_from_a_config_with_the_backbones_options():
    net = MODELS.build(dict(type='fasternet_mm.FasterNetClassifier', arch='t0', num_classes=3, in_channels=1))
    assert net(torch.zeros(2, 1, 32, 64)).shape == (2, 3)


def test_its_backbone_is_fasternets():
    backbone, net = FasterNet('t0').state_dict(), FasterNetClassifier('t0').state_dict()
    assert {name for name in backbone if not name.startswith('norm')} == {n for n in net if 'head' not in n}


@pytest.mark.parametrize('wrong', [dict(num_classes=0), dict(feature_dim=0), dict(arch='t9')])
def test_an_impossible_argument_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FasterNetClassifier(**wrong)


def test_an_image_that_is_too_small_is_named():
    with pytest.raises(ValueError, match='20x40 pixels'):
        FasterNetClassifier('t0')(torch.zeros(1, 3, 20, 40))
