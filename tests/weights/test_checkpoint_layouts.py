"""The same weights through every layout: golden values are the authors' outputs and timm's."""

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from fasternet_mm import FasterNet, FasterNetClassifier, load_weights
from fasternet_mm.errors import UserError
from fasternet_mm.models.backbone import ARCHITECTURES
from fasternet_mm.weights.checkpoint_layouts import arch_name, recognize

TINY = dict(embed_dim=16, depths=(1, 1, 2, 1))
ACTS = dict(relu='ReLU', gelu='GELU')
WRAPPERS = [None, 'state_dict', 'model', 'state_dict_ema']
PREFIXES = ['', 'module.', 'model.', 'backbone.', '_orig_mod.', 'module.model.', '_orig_mod.module.']


@pytest.fixture(params=ACTS)
def act(request):
    return request.param


@pytest.fixture
def expected(fixtures, act):
    values = np.load(fixtures / 'reference_fasternet' / f'expected_{act}.npz')
    return {name: torch.from_numpy(value) for name, value in values.items()}


def authors(fixtures, kind, act):
    content = torch.load(fixtures / 'reference_fasternet' / f'{kind}_{act}.pth', weights_only=True)
    return content.get('state_dict', content)


def saved(path, state, wrapper=None, prefix=''):
    state = {prefix + name: value for name, value in state.items()}
    torch.save({wrapper: state, 'epoch': 3} if wrapper else state, path)
    return str(path)


def assert_equals_authors(net, outputs, expected, names):
    for found, name in zip(outputs, names, strict=True):
        scale = expected[name].abs().max()
        torch.testing.assert_close(found / scale, expected[name] / scale, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize('prefix', PREFIXES)
def test_logits_through_every_wrapper_and_prefix_are_the_authors(fixtures, tmp_path, act, expected, wrapper, prefix):
    source = saved(tmp_path / 'net.pth', authors(fixtures, 'classifier', act), wrapper, prefix)
    net = FasterNetClassifier({**TINY, 'act': ACTS[act]}, num_classes=10, feature_dim=64).eval()
    load_weights(net, source)
    assert_equals_authors(net, [net(expected['input'])], expected, ['logits'])


@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize('prefix', [prefix for prefix in PREFIXES if 'backbone' not in prefix])
def test_maps_through_every_wrapper_and_prefix_are_the_authors(fixtures, tmp_path, act, expected, wrapper, prefix):
    source = saved(tmp_path / 'net.pth', authors(fixtures, 'detector', act), wrapper, prefix)
    net = FasterNet({**TINY, 'act': ACTS[act]}).eval()
    fit = load_weights(net, source)
    assert_equals_authors(net, net(expected['input']), expected, [f'detector_map{i}' for i in range(1, 5)])
    assert fit.initialized == []
    assert fit.left_out == ['rpn_head.rpn_cls.weight']


def test_a_classifiers_backbone_gives_the_authors_stages(fixtures, act, expected):
    net = FasterNet({**TINY, 'act': ACTS[act]}).eval()
    fit = load_weights(net, str(fixtures / 'reference_fasternet' / f'classifier_{act}.pth'))
    assert {name.split('.')[0] for name in fit.initialized} == {'norm0', 'norm2', 'norm4', 'norm6'}
    assert fit.left_out == ['avgpool_pre_head.1.weight', 'head.weight', 'head.bias']
    # A new output norm divides by sqrt(1 + 1e-5).
    outputs = [found * (1 + 1e-5) ** 0.5 for found in net(expected['input'])]
    assert_equals_authors(net, outputs, expected, [f'classifier_stage{i}' for i in range(1, 5)])


def test_a_backbone_compiled_inside_a_detector_is_found(fixtures, tmp_path, expected, act):
    state = authors(fixtures, 'detector', act)
    state = {name.replace('backbone.', 'backbone._orig_mod.'): value for name, value in state.items()}
    net = FasterNet({**TINY, 'act': ACTS[act]}).eval()
    load_weights(net, saved(tmp_path / 'net.pth', state))
    assert_equals_authors(net, net(expected['input']), expected, [f'detector_map{i}' for i in range(1, 5)])


def peer(arch):
    """timm's network with random weights and statistics, as after some training."""
    net = timm.create_model(f'fasternet_{arch}', num_classes=7).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net


@pytest.mark.parametrize(('arch', 'suffix'), list(zip(ARCHITECTURES, ['.pth', '.bin', '.safetensors'] * 2)))
def test_timms_features_and_logits_are_ours(tmp_path, arch, suffix):
    other, source = peer(arch), str(tmp_path / f'net{suffix}')
    (save_file if suffix == '.safetensors' else torch.save)(other.state_dict(), source)
    image = torch.randn(1, 3, 64, 96)
    net, classifier = FasterNet(arch).eval(), FasterNetClassifier(arch, num_classes=7).eval()
    assert "timm's FasterNet" in load_weights(net, source).layout
    load_weights(classifier, source)
    with torch.no_grad():
        features = other.forward_intermediates(image, intermediates_only=True)
        for found, wanted in zip(net(image), features, strict=True):
            torch.testing.assert_close(found / wanted.abs().max(), wanted / wanted.abs().max(), rtol=0, atol=1e-4)
        logits = other(image)
        torch.testing.assert_close(
            classifier(image) / logits.abs().max(), logits / logits.abs().max(), rtol=0, atol=1e-4
        )


def test_timms_features_only_network_loads(tmp_path):
    other = timm.create_model('fasternet_t0', features_only=True).eval()
    torch.save(other.state_dict(), tmp_path / 'net.pth')
    net, image = FasterNet('t0').eval(), torch.randn(1, 3, 64, 64)
    load_weights(net, str(tmp_path / 'net.pth'))
    with torch.no_grad():
        for found, wanted in zip(net(image), other(image), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_averaged_weights_come_before_the_others_as_in_timm():
    plain, averaged = (dict(weight=torch.full((1,), value)) for value in (1.0, 2.0))
    found = recognize(dict(state_dict=plain, state_dict_ema=averaged), 'net.pth')
    assert found.tensors['weight'] == 2
    assert "in 'state_dict_ema'" in found.layout


@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_the_variant_is_told_by_the_shapes(arch):
    with torch.device('meta'):
        state = FasterNetClassifier(arch).state_dict()
    found = recognize({name: torch.zeros(value.shape) for name, value in state.items()}, 'net.pth')
    assert arch_name(found.arch) == f'FasterNet-{arch.upper()}'
    assert found.arch['in_channels'] == 3


@pytest.mark.parametrize(
    ('meta', 'layout'), [(dict(mmengine_version='0.10'), 'MMEngine'), (dict(mmdet_version='2.25'), 'MMDetection 2')]
)
def test_the_generation_of_a_detectors_checkpoint_is_told(fixtures, meta, layout):
    state = authors(fixtures, 'detector', 'relu')
    assert recognize(dict(meta=meta, state_dict=state), 'net.pth').layout.startswith(
        f'detector or segmenter of {layout}'
    )


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (dict(epoch=3), r"holds no tensors, not even under state_dict_ema, .*: it has 'epoch'"),
        ({}, r'holds no tensors.*it has nothing'),
        (dict(weight=torch.zeros(1), name='x'), r"mixes tensors with other entries: 'name'$"),
        (
            {'a\x1b[2J': torch.zeros(1), 'weight': torch.zeros(1)},
            r"mixes tensors with other entries: 'a\\x1b\[2J'",
        ),
        ({3: torch.zeros(1), 'weight': torch.zeros(1)}, r'mixes tensors with other entries: 3'),
        (dict(weight=torch.zeros(1).expand(10**12)), r'weight of shape \(1000000000000,\) is not stored in full'),
        (dict(weight=torch.zeros(3, device='meta')), r'weight of shape \(3,\) is not stored in full'),
        (dict(weight=torch.zeros(3).to_sparse()), r'weight of shape \(3,\) is not stored in full'),
        ({'a._orig_mod.b': torch.zeros(1), 'a.b': torch.zeros(1)}, r'names some tensors twice'),
    ],
)
def test_what_is_not_a_mapping_of_stored_tensors_is_refused(content, message):
    with pytest.raises(UserError, match=f'checkpoint net.pth:? {message}'):
        recognize(content, 'net.pth')


def test_a_prefix_that_nothing_has_is_named(fixtures):
    with pytest.raises(UserError, match=r"no tensors whose names start with 'teacher.'"):
        recognize(authors(fixtures, 'detector', 'relu'), 'net.pth', prefix='teacher')
