import pytest
from mmengine.model import BaseModule
from mmengine.model.weight_init import KaimingInit, NormalInit
from torch import nn

from fasternet_mm import FasterNet
from fasternet_mm.engine.initialization import initializers, leave_out_pretrained
from fasternet_mm.errors import UserError
from fasternet_mm.weights.pretrained import StrictPretrainedInit, strict_loading

pytestmark = pytest.mark.usefixtures('_as_in_our_runner')


@pytest.fixture
def _as_in_our_runner():
    with strict_loading():
        yield


class Neck(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(3, 3, 1)


class Model(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__()
        self.neck = Neck(init_cfg)


PRETRAINED = dict(type='Pretrained', checkpoint='net.pth')
KAIMING = dict(type='Kaiming', layer='Conv2d', nonlinearity='relu')


def test_what_mmengine_would_build_is_built_for_the_module_that_asks():
    model = Model([KAIMING, PRETRAINED])
    (first, kaiming), (second, pretrained) = initializers(model)
    assert first is second is model.neck
    assert isinstance(kaiming, KaimingInit)
    assert kaiming.nonlinearity == 'relu'
    assert isinstance(pretrained, StrictPretrainedInit)
    assert pretrained.checkpoint == 'net.pth'


@pytest.mark.parametrize(
    ('init_cfg', 'message'),
    [
        (dict(PRETRAINED, wrong_key=1), "Pretrained has no 'wrong_key'; it takes allow_mismatch, checkpoint, .*, stem"),
        (dict(type='Pretrained', chekpoint='x'), "Pretrained has no 'chekpoint'; did you mean 'checkpoint'?"),
        (dict(type='Pretrained'), "Pretrained cannot be made: .* missing .* 'checkpoint'"),
        (dict(KAIMING, mood='fan_in'), "Kaiming has no 'mood'; did you mean 'mode'?"),
        (dict(KAIMING, layer=3), 'Kaiming cannot be made: layer must be a str or a list of str'),
        (dict(type='Kaming'), "type='Kaming' is unknown; it may be Constant, Xavier, .*Kaiming"),
        (dict(layer='Conv2d'), 'type=None is unknown'),
        ([dict(KAIMING), dict(type='Normal', stdd=0.1)], "Normal has no 'stdd'; did you mean 'std'?"),
        ('net.pth', "is 'net.pth': give a dict"),
        (dict(KAIMING, override=dict(name='conv', type='Normal', men=0)), "Normal has no 'men'; did you mean 'mean'?"),
    ],
)
def test_an_init_cfg_that_its_kind_does_not_know_is_a_sentence(init_cfg, message):
    with pytest.raises(UserError, match=rf'^model\.neck\.init_cfg(\.override)?:? {message}'):
        list(initializers(Model(init_cfg)))


def test_an_override_of_a_name_alone_takes_the_arguments_around_it():
    ((_, initializer),) = initializers(Model(dict(type='Normal', std=0.5, override=dict(name='conv'))))
    assert isinstance(initializer, NormalInit)


def test_a_network_may_read_its_init_cfg_by_itself():
    class Own(Neck):
        def init_weights(self):
            pass

    assert list(initializers(Own(dict(checkpoint='net.pth')))) == []


def test_the_backbone_reads_no_init_cfg_by_itself():
    model = Model()
    model.neck = FasterNet('t0', init_cfg=dict(checkpoint='net.pth'))
    with pytest.raises(UserError, match='type=None is unknown'):
        list(initializers(model))


def test_only_pretrained_weights_are_left_out():
    model = Model([KAIMING, PRETRAINED])
    leave_out_pretrained(model)
    assert model.neck.init_cfg == [KAIMING]
    model = Model(PRETRAINED)
    leave_out_pretrained(model)
    assert model.neck.init_cfg is None
    model = Model(KAIMING)
    leave_out_pretrained(model)
    assert model.neck.init_cfg == KAIMING
