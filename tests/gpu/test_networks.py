"""Networks and models on the GPU, as they are and made fast, against the CPU."""

import copy
import functools
from functools import partial

import pytest
import torch
from small_models import SMALL, image, sample
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import box_iou

from fasternet_mm import FasterNet, FasterNetClassifier, load_weights, optimize
from fasternet_mm.models.backbone import ARCHITECTURES

ENGINES = {
    'eager': (lambda net: net, 1e-3),
    'optimized': (optimize, 1e-3),
    'float16': (partial(optimize, dtype=torch.float16), 0.02),
    'bfloat16': (partial(optimize, dtype=torch.bfloat16), 0.1),
    'compiled in float16': (partial(optimize, dtype=torch.float16, compile=True), 0.02),
}
"""Each with the largest error, as a part of the maps' norm."""

COMPILED = 'compiled in float16'

AT_ONCE = [
    pytest.param(name, marks=[pytest.mark.cuda] if 'float16' in name else []) for name in ENGINES if name != COMPILED
]
"""Engines that need no minutes to begin."""


@functools.cache
def variant(arch):
    return trained_net(arch)


def trained_net(arch):
    """Statistics and scales of norms as after some training, so that a wrong fold shows."""
    torch.manual_seed(0)
    net = FasterNet(arch)
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
    return net.eval()


@torch.no_grad()
def assert_answers(engine, net, images, tolerance, device):
    """At the first, second and third batch of a size; and an answer stays what it was when others come."""
    earlier = []
    for batch in images:
        expected = net(batch)
        for _ in range(3):
            maps = engine(batch.to(device))
            earlier.append((maps, [x.clone() for x in maps]))
            for x, of_cpu in zip(maps, expected, strict=True):
                assert (x.device.type, x.dtype, x.shape) == (device, of_cpu.dtype, of_cpu.shape)
                assert (x.cpu() - of_cpu).norm() <= tolerance * of_cpu.norm()
    for maps, copies in earlier:
        assert all(map(torch.equal, maps, copies))


@pytest.mark.parametrize('engine', AT_ONCE)
@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_variants_answer_as_on_the_cpu(arch, engine, device):
    net = variant(arch)
    make, tolerance = ENGINES[engine]
    images = [torch.randn(2, 3, 64, 96), torch.randn(1, 3, 96, 64), torch.randn(2, 3, 64, 96)]
    assert_answers(make(copy.deepcopy(net).to(device)), net, images, tolerance, device)


@pytest.mark.cuda
@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_compiled_variants_answer_as_on_the_cpu(arch, device):
    """With fewer blocks: the compiler takes its time for each, and they are alike."""
    net = trained_net({**ARCHITECTURES[arch], 'depths': (1, 1, 1, 1)})
    make, tolerance = ENGINES[COMPILED]
    images = [torch.randn(2, 3, 64, 96), torch.randn(2, 3, 64, 96)]
    assert_answers(make(copy.deepcopy(net).to(device)), net, images, tolerance, device)


@pytest.mark.parametrize('engine', AT_ONCE)
def test_a_classifier_answers_as_on_the_cpu(engine, device):
    net = FasterNetClassifier(SMALL, num_classes=5)
    make, tolerance = ENGINES[engine]
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        expected = net.eval()(images)
        logits = make(copy.deepcopy(net).to(device))(images.to(device))
    assert (logits.cpu() - expected).norm() <= tolerance * expected.norm()


def detections(model, images):
    samples = [sample(*x.shape[1:]) for x in images]
    with torch.no_grad():
        return [result.pred_instances.cpu() for result in model.test_step(dict(inputs=images, data_samples=samples))]


def share_seen(objects, others):
    """The share of the objects of a clear score that others have too, of the same class and in nearly the same box."""
    clear = objects[objects.scores > 0.6]
    same = (box_iou(clear.bboxes, others.bboxes) > 0.8) & (clear.labels[:, None] == others.labels)
    return same.any(dim=1).float().mean()


@pytest.mark.parametrize('engine', AT_ONCE)
def test_a_detector_sees_what_it_sees_on_the_cpu(engine, detector, device):
    detector = copy.deepcopy(detector)
    detector.roi_head.test_cfg.score_thr = 0.5
    images = [image(160, 160, seed) for seed in (0, 1)]
    expected = detections(detector, images)
    model = ENGINES[engine][0](detector.to(device))
    for _ in range(3):
        for objects, of_cpu in zip(detections(model, images), expected, strict=True):
            # Of two boxes with nearly the same score, either may be suppressed.
            assert share_seen(objects, of_cpu) >= 0.8
            assert share_seen(of_cpu, objects) >= 0.8
            assert objects.masks.shape == (len(objects), 160, 160)


@pytest.mark.parametrize('engine', AT_ONCE)
def test_a_segmenter_labels_pixels_as_on_the_cpu(engine, segmenter, device):
    images = [image(160, 160, seed) for seed in (8, 9)]
    samples = [sample(160, 160) for _ in images]

    def labels(model):
        with torch.no_grad():
            results = model.test_step(dict(inputs=images, data_samples=copy.deepcopy(samples)))
        return torch.stack([result.pred_sem_seg.data.cpu() for result in results])

    model = ENGINES[engine][0](copy.deepcopy(segmenter).to(device))
    assert (labels(model) == labels(segmenter)).float().mean() > 0.95


def test_weights_load_into_a_model_on_the_device(tmp_path, device):
    saved = FasterNetClassifier(SMALL).state_dict()
    torch.save({name: value.to(device) for name, value in saved.items()}, tmp_path / 'net.pth')
    net = FasterNet(SMALL).to(device)
    load_weights(net, str(tmp_path / 'net.pth'))
    assert net.patch_embed.proj.weight.device.type == device
    assert torch.equal(net.patch_embed.proj.weight.cpu(), saved['patch_embed.proj.weight'])


def test_a_network_on_the_device_is_exported(device):
    net = trained_net(SMALL).to(device)
    images = torch.randn(2, 3, 64, 96, device=device)
    exported = torch.export.export(net, (images,)).module()
    for x, expected in zip(exported(images), net(images), strict=True):
        assert x.device.type == device
        torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)
