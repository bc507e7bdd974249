"""The comparison of a server with a Predictor, where something is wrong."""

from contextlib import nullcontext

import pytest
from stand_in_predictor import StandIn, color_png

from fasternet_mm.benchmark import serving_load
from fasternet_mm.errors import UserError
from fasternet_mm.inference.predictor import named_error


class Padless(StandIn):
    """Images of an odd width are refused by the network, as by one whose config should pad them."""

    def stream(self, images, broken=None):
        error = RuntimeError('Sizes of tensors must match')
        if broken is None:
            raise error
        broken.append(named_error(error, 'image 1'))
        return iter([])


def test_an_image_that_the_model_cannot_take_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setattr(serving_load, 'Predictor', Padless)
    monkeypatch.setattr(serving_load, '_server', lambda model, batch_size: nullcontext('127.0.0.1:1'))
    with pytest.raises(UserError, match=r'^image 1 failed \(RuntimeError: Sizes of tensors must match\)$'):
        serving_load.compare_serving(['model'], [color_png(1, 2, 3)], clients=1, rounds=1, batch_size=1)
