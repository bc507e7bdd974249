import copy
from contextlib import nullcontext

import pytest
import torch
from global_state import global_state
from malicious import Payload
from mmengine.model import BaseModule
from mmengine.registry import WEIGHT_INITIALIZERS, DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint
from torch import nn

from fasternet_mm import FasterNet, FasterNetClassifier
from fasternet_mm.errors import UserError
from fasternet_mm.weights.pretrained import strict_loading

TINY = dict(embed_dim=16, depths=(1, 1, 1, 1))


class Whole(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.backbone = FasterNet(TINY)
        self.neck = nn.Conv2d(16, 8, 1)


class Other(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(1, 1, 1)
        self.new = nn.Conv2d(1, 1, 1)


@pytest.fixture
def classifier(tmp_path):
    net = FasterNetClassifier(TINY)
    net.init_weights()
    torch.save(net.state_dict(), tmp_path / 'net.pth')
    return net, str(tmp_path / 'net.pth')


def test_init_cfg_loads_strictly(classifier):
    saved, source = classifier
    net = FasterNet(TINY, init_cfg=dict(type='Pretrained', checkpoint=source))
    net.init_weights()
    for name, value in saved.state_dict().items():
        if 'head' not in name:
            assert torch.equal(net.state_dict()[name], value), name


def test_init_cfg_stops_where_mmengine_would_go_on(classifier):
    net = FasterNet('t0', init_cfg=dict(type='Pretrained', checkpoint=classifier[1]))
    with pytest.raises(UserError, match=r'the model is FasterNet-T0'):
        net.init_weights()


def test_init_cfg_takes_the_options_of_loading(classifier):
    init_cfg = dict(type='Pretrained', checkpoint=classifier[1], stem='average')
    net = FasterNet(TINY, in_channels=1, init_cfg=init_cfg)
    net.init_weights()
    torch.testing.assert_close(net.patch_embed.proj.weight, classifier[0].patch_embed.proj.weight.sum(1, keepdim=True))


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg'])
def test_pretrained_weights_come_last_and_in_every_scope(classifier, scope):
    init_cfg = [
        dict(type='Pretrained', checkpoint=classifier[1], _scope_='mmdet'),
        dict(type='Constant', layer='Conv2d', val=0),
    ]
    asked = copy.deepcopy(init_cfg)
    net = FasterNetClassifier(TINY, init_cfg=init_cfg)
    with DefaultScope.overwrite_default_scope(scope):
        net.init_weights()
    assert torch.equal(net.head.weight, classifier[0].head.weight)
    assert init_cfg == asked


def test_init_cfg_of_a_whole_model_wants_a_whole_checkpoint(classifier):
    init_cfg = dict(type='Pretrained', checkpoint=classifier[1])
    message = r'a whole detector or segmenter is asked for'
    with pytest.raises(UserError, match=message), strict_loading():
        Whole(init_cfg).init_weights()
    with pytest.raises(UserError, match=message):
        Whole(dict(init_cfg, _scope_='fasternet_mm')).init_weights()
    Whole(init_cfg).init_weights()  # as MMEngine does


@pytest.mark.parametrize('strict', [False, True])
def test_other_networks_keep_mmengines_lenient_initialization(tmp_path, strict):
    torch.save({'conv.weight': torch.ones(1, 1, 1, 1), 'fc.weight': torch.ones(1)}, tmp_path / 'other.pth')
    net = Other(dict(type='Pretrained', checkpoint=str(tmp_path / 'other.pth')))
    with strict_loading() if strict else nullcontext():
        net.init_weights()
    assert net.conv.weight.item() == 1


@pytest.fixture
def _strict():
    with strict_loading():
        yield


def test_strict_loading_ends_with_its_context_and_keeps_what_others_register_meanwhile(monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    monkeypatch.setattr(WEIGHT_INITIALIZERS, '_module_dict', dict(WEIGHT_INITIALIZERS.module_dict))
    before = global_state()

    @strict_loading()
    def fail():
        assert global_state() != before
        CheckpointLoader.register_scheme('other://', print)
        WEIGHT_INITIALIZERS.register_module('Other', module=Other)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    before['initializers']['Other'], before['schemes']['other://'] = Other, print
    before['loader']['_schemes'] = CheckpointLoader._schemes
    assert global_state() == before


@pytest.mark.usefixtures('_strict')
@pytest.mark.parametrize(
    'source', ['evil.pth', 'torchvision://evil', 'mmcls://evil', 'open-mmlab://evil', 'pavi://evil', 's3://evil']
)
def test_mmengine_reads_nothing_but_through_us(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, extra=Payload()), 'evil.pth')
    with pytest.raises(UserError, match=r'^checkpoint .*evil'):
        _load_checkpoint(source)
    assert not (tmp_path / 'executed').exists()


@pytest.mark.usefixtures('_strict')
def test_mmengines_classifiers_keep_their_backbone_alone(monkeypatch):
    content = dict(state_dict={'backbone.conv.weight': torch.ones(1), 'head.fc.weight': torch.ones(1)})
    monkeypatch.setattr('fasternet_mm.weights.pretrained.read_checkpoint', lambda *args: content)
    assert list(_load_checkpoint('mmcls://resnet50')) == ['conv.weight']
