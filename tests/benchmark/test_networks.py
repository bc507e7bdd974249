import sys
from contextlib import nullcontext
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

import pytest
import torch
from small_models import SMALL
from torchvision.models import get_model_weights

from fasternet_mm import FasterNetClassifier, extras
from fasternet_mm.benchmark import network_engines as engines
from fasternet_mm.benchmark.network_candidates import network_candidates, pair
from fasternet_mm.benchmark.networks import (
    OURS,
    PEERS,
    NetworkTask,
    check_networks,
    count,
    new_network,
    published_accuracy,
    published_size,
)
from fasternet_mm.errors import UserError


def test_each_network_runs_with_each_engine_after_its_baseline():
    pairs = pair(['fasternet_s', 'timm/fasternet_s:slicing', 'torchvision/swin_t'], ['optimized', 'onnxruntime'])
    assert pairs == [
        ('timm/fasternet_s', 'eager'),
        ('torchvision/swin_t', 'eager'),
        ('torchvision/swin_t', 'onnxruntime'),
        ('fasternet_s', 'optimized'),
        ('fasternet_s', 'onnxruntime'),
        ('timm/fasternet_s:slicing', 'onnxruntime'),
    ]


def test_all_can_be_compared_with_one():
    pairs = pair(['fasternet_s', 'timm/fasternet_t0'], ['eager'], baseline='torchvision/resnet50')
    assert pairs[0] == ('torchvision/resnet50', 'eager')
    (candidate,) = network_candidates(
        [('torchvision/resnet18', 'eager')], size=(32, 64), baseline='torchvision/resnet50'
    )
    assert candidate.baseline == ('torchvision/resnet50', 'eager')
    assert (candidate.facts['height'], candidate.facts['width']) == (32, 64)


@pytest.mark.parametrize('name', ['fasternet_t0', 'timm/fasternet_t0', 'torchvision/convnext_tiny'])
def test_a_size_that_a_network_does_not_take_is_named(name):
    with pytest.raises(UserError, match=rf'{name} does not take images of 3x4 \(H x W\)'):
        network_candidates([(name, 'eager')], size=(3, 4))


def test_optimized_is_for_fasternet_alone():
    with pytest.raises(UserError, match='optimized are for fasternet_t0 to fasternet_l alone'):
        pair(['torchvision/resnet50'], ['optimized'])


@pytest.mark.parametrize(
    ('name', 'form', 'message'),
    [
        ('fasternet_z', 'classifier', "did you mean 'fasternet_"),
        ('timm/fasternet_s:slice', 'classifier', 'timm/fasternet_s:slice is unknown'),
        ('timm/resnet50:slicing', 'classifier', 'is unknown'),
        ('torchvision/resnet_50', 'classifier', "did you mean 'torchvision/resnet50'"),
        (
            'huggingface/resnet50',
            'classifier',
            'use fasternet_s, timm/NAME, timm/fasternet_s:slicing or torchvision/NAME',
        ),
        ('torchvision/resnet50', 'backbone', "compare with timm's"),
    ],
)
def test_a_network_that_cannot_be_built_is_named(name, form, message):
    with pytest.raises(UserError, match=message):
        check_networks([name], form)


@pytest.mark.parametrize(
    ('package', 'extra', 'check'),
    [
        ('timm', 'benchmark', lambda: check_networks(['timm/fasternet_s'], 'classifier')),
        ('onnxruntime', 'onnx', lambda: engines.check_engines(['onnxruntime'], 'cpu')),
        ('openvino', 'openvino', lambda: engines.check_engines(['openvino'], 'cpu')),
        ('nncf', 'int8', lambda: engines.check_engines(['openvino-int8'], 'cpu')),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(package, extra, check, monkeypatch):
    found = ModuleSpec('found', None, origin='found.py')
    monkeypatch.setattr(extras.importlib.util, 'find_spec', lambda name: None if name == package else found)
    monkeypatch.setattr(extras.importlib, 'import_module', lambda name: None)
    with pytest.raises(UserError, match=rf"needs the package {package}: pip install 'fasternet-mm\[{extra}\]'"):
        check()


def test_a_package_that_fails_where_it_is_imported_is_named(monkeypatch, tmp_path):
    (tmp_path / 'nncf.py').write_text("raise AttributeError('module torch has no attribute uint16')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'nncf', raising=False)
    with pytest.raises(UserError, match='package nncf, and importing that fails: module torch has no'):
        extras.require('nncf', '--int8')


@pytest.mark.parametrize(
    ('engine', 'message'),
    [('tensorrt', 'tensorrt is unknown: use eager'), ('eager-float16', 'does not run on this cpu: use eager')],
)
def test_an_engine_that_is_not_to_be_had_is_named(engine, message):
    with pytest.raises(UserError, match=message):
        engines.check_engines([engine], 'cpu')


def test_the_compiled_engine_needs_a_compiler(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(UserError, match='needs a C'):
        engines.check_engines(['compiled'], 'cpu')


@pytest.mark.parametrize('name', ['mobilenet_v2', 'swin_t'])
def test_peers_count_as_torchvision_says(name):
    meta = get_model_weights(name).DEFAULT.meta
    counted = count(NetworkTask(f'torchvision/{name}', batch=2))
    assert counted.parameters == meta['num_params']
    assert counted.macs / 2e9 == pytest.approx(meta['_ops'], abs=0.001)  # GMACs of two images


@pytest.mark.parametrize('name', [*OURS, *(name for name in PEERS if name.startswith('timm/'))])
def test_every_network_has_its_published_accuracy(name):
    check_networks([name], 'backbone' if name.startswith('timm/') else 'classifier')
    assert 60 < published_accuracy(name).top1 < 90
    assert published_accuracy(name).source.startswith('arXiv')


def test_accuracies_are_for_the_size_that_they_were_published_for():
    assert published_size('timm/mobilevit_s') == 256
    assert published_size('timm/fasternet_s:slicing') == published_size('torchvision/resnet50') == 224
    assert published_accuracy('timm/fasternet_s:slicing').top1 == 81.3
    assert published_accuracy('torchvision/resnet50') == (80.9, 'TorchVision, ResNet50_Weights.IMAGENET1K_V2')
    assert published_accuracy('timm/resnet18') is None


@pytest.mark.parametrize('form', ['classifier', 'backbone'])
def test_both_of_timms_modes_compute_the_same(form):
    image = torch.randn(1, 3, 64, 64)
    nets = [new_network(f'timm/fasternet_t0{mode}', form) for mode in ('', ':slicing')]
    modes = [
        next(module.forward.__name__ for name, module in net.named_modules() if name.endswith('spatial_mixing'))
        for net in nets
    ]
    assert modes == ['forward_split_cat', 'forward_slicing']
    torch.testing.assert_close(*(net(image) for net in nets))


@pytest.fixture
def network(monkeypatch):
    """What all engines get as the network of any task, instead of a larger one with a published name."""
    torch.manual_seed(0)
    classifier = FasterNetClassifier(SMALL, num_classes=100).eval().requires_grad_(False)
    monkeypatch.setattr(engines, 'shared_network', lambda *_: classifier)
    return classifier


@pytest.mark.parametrize('engine', ['eager', 'optimized', 'onnxruntime', 'openvino'])
def test_what_an_engine_computes_is_the_network(engine, network):
    for package in engines.ENGINES[engine].packages:
        pytest.importorskip(package)
    task = NetworkTask('fasternet_t0', height=64, width=96)
    logits = engines.prepare_network(engine, task)()
    expected = network(task.images())
    torch.testing.assert_close(torch.as_tensor(logits[0]).reshape(1, -1), expected, rtol=1e-3, atol=1e-5)


def test_int8_computes_nearly_the_network(network):
    for package in engines.ENGINES['openvino-int8'].packages:
        pytest.importorskip(package)
    task = NetworkTask('fasternet_t0', height=64, width=96)
    logits = torch.as_tensor(engines.prepare_network('openvino-int8', task)()[0]).flatten()
    expected = network(task.images()).flatten()
    assert 0.98 < torch.cosine_similarity(logits, expected, dim=0) < 0.99999


def test_cuda_graphs_are_for_networks_of_others_on_a_gpu():
    with pytest.raises(UserError, match='engine graphed does not run on this cpu'):
        engines.check_engines(['graphed'], 'cpu')
    assert engines.ENGINES['graphed'].suits('cuda')
    assert pair(['fasternet_s'], ['optimized', 'graphed']) == [
        ('timm/fasternet_s', 'eager'),
        ('fasternet_s', 'optimized'),
    ]
    assert pair(['timm/fasternet_s'], ['graphed'])[1:] == [('timm/fasternet_s', 'graphed')]
    with pytest.raises(UserError, match='graphed are for networks of others alone'):
        pair(['fasternet_s'], ['graphed'])


def test_a_graph_is_recorded_after_warming_up_and_gets_the_images(network, monkeypatch):
    calls, streams = [], MagicMock()
    network.register_forward_hook(lambda *_: calls.append('forward'))
    graph = MagicMock(replay=lambda: calls.append('replay'))
    monkeypatch.setattr(torch.cuda, 'Stream', streams)
    monkeypatch.setattr(torch.cuda, 'stream', lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, 'current_stream', streams)
    monkeypatch.setattr(torch.cuda, 'CUDAGraph', lambda: graph)
    monkeypatch.setattr(torch.cuda, 'graph', lambda graph: nullcontext(calls.append('record')))
    images = torch.randn(1, 3, 64, 96)
    expected = network(images)
    calls.clear()
    replay = engines._graphed(network, torch.float32, images)
    torch.testing.assert_close(replay(images), expected, rtol=1e-4, atol=1e-5)
    assert calls == ['forward'] * engines.GRAPH_WARM_UP_CALLS + ['record', 'forward', 'replay']
