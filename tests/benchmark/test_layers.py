import pytest
import torch

from fasternet_mm.benchmark.layers import DEPTH, PartialConvInPlace, layer_candidates
from fasternet_mm.errors import UserError


def test_operators_cost_what_the_paper_says_of_them():
    conv, gconv, dwconv, pconv, in_place = (candidate.macs for candidate in layer_candidates([(64, 8)], batch=2))
    assert conv == 2 * DEPTH * 64 * 64 * 9 * 8 * 8
    assert (conv / gconv, conv / dwconv) == (16, 64)
    assert conv / pconv == conv / in_place == 16


def test_pconv_in_place_computes_pconv():
    conv = PartialConvInPlace(16).requires_grad_(False)
    x = torch.randn(2, 16, 5, 6)
    expected = super(PartialConvInPlace, conv).forward(x)
    convolved = conv(x)
    torch.testing.assert_close(convolved, expected)
    assert convolved is x


@pytest.mark.parametrize('channels_last', [False, True])
def test_maps_stay_as_they_are_however_often_they_go_round(channels_last):
    for candidate in layer_candidates([(32, 4)], channels_last=channels_last):
        run = candidate.prepare()
        torch.testing.assert_close(run().clone(), run())
        assert run().is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize('shape', [(40, 7), (0, 7), (16, 0)])
def test_a_width_that_does_not_divide_is_named(shape):
    with pytest.raises(UserError, match=f'shape {shape[0]}x{shape[1]}: give CHANNELSxSIDE'):
        layer_candidates([shape])
