"""RoI features against MMDetection's extractor."""

from functools import partial

import pytest
import torch
from mmdet.models import roi_heads

from fasternet_mm.benchmark.dispatched_operators import dispatched_operators
from fasternet_mm.models.two_stage.roi_extractor import SingleRoIExtractor

STRIDES = (4, 8, 16, 32)


def extractors(levels=4, **layer):
    settings = dict(
        roi_layer=dict(dict(type='RoIAlign', output_size=7, sampling_ratio=0), **layer),
        out_channels=6,
        featmap_strides=STRIDES[:levels],
    )
    return SingleRoIExtractor(**settings), roi_heads.SingleRoIExtractor(**settings)


def maps(levels=4, dtype=torch.float32, height=256, width=320):
    return [
        torch.randn(2, 6, height // stride, width // stride).to(dtype).requires_grad_() for stride in STRIDES[:levels]
    ]


def rois(count, extent=320):
    """RoIs of all levels, some over the edges, one without area and one reversed."""
    center, size = torch.rand(count, 2) * extent, extent ** torch.rand(count, 2) * 1.5
    boxes = torch.cat((center - size / 2, center + size / 2), 1)
    boxes[:1, 2:] = boxes[:1, :2]
    boxes[1:2, 2] = boxes[1:2, 0] - 5
    return torch.cat((torch.randint(2, (count, 1)).float(), boxes), 1)


def features_and_gradients(extractor, x, boxes, *args):
    features = extractor(x, boxes, *args)
    weights = torch.linspace(0.5, 1, max(1, features.numel()))[: features.numel()].view_as(features)
    return features, torch.autograd.grad((features.float() * weights).sum(), x)


@pytest.mark.parametrize('levels', [1, 3, 4])
@pytest.mark.parametrize('count', [0, 2, 40])
def test_features_and_gradients_are_mmdetections(levels, count):
    torch.manual_seed(0)
    for scale in (None, 1.3):
        ours, mmdets = extractors(levels)
        x, boxes = maps(levels), rois(count)
        if levels == 1 and not count:
            assert ours(x, boxes).shape == mmdets(x, boxes).shape == (0, 6, 7, 7)
            continue
        features, gradients = features_and_gradients(ours, x, boxes, scale)
        expected, expected_gradients = features_and_gradients(mmdets, x, boxes, scale)
        assert torch.equal(features, expected)
        assert all(map(torch.equal, gradients, expected_gradients))


def test_a_level_without_rois_has_a_gradient():
    """Without one, training in several processes would wait for it forever."""
    x = maps()
    small = torch.tensor([[0.0, 10, 10, 30, 40]])
    _, gradients = features_and_gradients(extractors()[0], x, small)
    assert [bool(gradient.any()) for gradient in gradients] == [True, False, False, False]


@pytest.mark.parametrize('aligned', [True, False])
def test_a_roi_that_is_no_number_holds_nothing(aligned):
    boxes = torch.tensor([[0, torch.nan, 1, 50, 50], [1, 10, 10, 90, 90]])
    features = extractors(aligned=aligned)[0](maps(), boxes)
    assert not features[0].any()
    assert features[1].any()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_coordinates_stay_in_float32_in_reduced_precision(dtype):
    torch.manual_seed(0)
    ours, mmdets = extractors()
    x = maps(dtype=dtype, height=800, width=1216)
    boxes = rois(40, extent=1200)
    features, gradients = features_and_gradients(ours, x, boxes)
    assert features.dtype == dtype
    assert {gradient.dtype for gradient in gradients} == {dtype}
    full = [feature.detach().float().requires_grad_() for feature in x]
    expected, expected_gradients = features_and_gradients(mmdets, full, boxes)
    assert torch.equal(features, expected.to(dtype))
    for gradient, expected_gradient in zip(gradients, expected_gradients):
        torch.testing.assert_close(gradient.float(), expected_gradient, rtol=0.01, atol=0.01)
    rounded = mmdets(x, boxes)
    assert (rounded.float() - expected).abs().max() > 0.1  # what MMDetection's own makes of them


@pytest.mark.parametrize(
    'layer', [dict(aligned=False), dict(sampling_ratio=2, output_size=(3, 5)), dict(use_torchvision=True)]
)
def test_settings_of_the_layer_are_followed(layer):
    torch.manual_seed(0)
    ours, mmdets = extractors(**layer)
    x, boxes = maps(), rois(40)
    torch.testing.assert_close(ours(x, boxes), mmdets(x, boxes), rtol=0, atol=1e-5)


def test_a_layer_of_another_kind_works_as_in_mmdetection():
    settings = dict(roi_layer=dict(type='RoIPool', output_size=7), out_channels=6, featmap_strides=STRIDES)
    x, boxes = maps(), rois(40)
    assert torch.equal(SingleRoIExtractor(**settings)(x, boxes), roi_heads.SingleRoIExtractor(**settings)(x, boxes))


def test_it_dispatches_fewer_operators():
    x, boxes = maps(height=128, width=128), rois(40, extent=128)
    ours, mmdets = (
        dispatched_operators(partial(features_and_gradients, extractor, x, boxes)) for extractor in extractors()
    )
    assert ours < mmdets
