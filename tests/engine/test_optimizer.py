import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from fasternet_mm import FasterNet
from fasternet_mm.engine.optimizer import StageDecayConstructor
from fasternet_mm.models.backbone import InvalidArgument

TINY = dict(embed_dim=16, depths=(1, 1, 1, 1))


class Segmenter(nn.Module):
    def __init__(self, **backbone):
        super().__init__()
        self.backbone = FasterNet(TINY, **backbone)
        self.head = nn.Conv2d(16, 2, 1)


def settings(model, stage_decay, **wrapper):
    """Learning rate and weight decay of every parameter that is trained, by name."""
    cfg = dict(
        constructor='fasternet_mm.StageDecayConstructor',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
        paramwise_cfg=dict(stage_decay=stage_decay),
        **wrapper,
    )
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    found = {id(parameter): (group['lr'], group['weight_decay']) for group in groups for parameter in group['params']}
    return {name: found[id(value)] for name, value in model.named_parameters() if id(value) in found}


@pytest.mark.parametrize(
    ('name', 'lr', 'weight_decay'),
    [
        ('backbone.patch_embed.proj.weight', 0.5**5, 0.05),
        ('backbone.patch_embed.norm.weight', 0.5**5, 0),
        ('backbone.stages.0.blocks.0.mlp.0.weight', 0.5**4, 0.05),
        ('backbone.stages.1.reduction.weight', 0.5**3, 0.05),
        ('backbone.stages.2.blocks.0.spatial_mixing.partial_conv3.weight', 0.5**3, 0.05),
        ('backbone.stages.6.blocks.0.mlp.1.bias', 0.5, 0),
        ('backbone.stages.5.norm.weight', 0.5, 0),
        ('backbone.norm0.weight', 1, 0),
        ('head.weight', 1, 0.05),
        ('head.bias', 1, 0),
    ],
)
def test_learning_rates_fall_stage_by_stage_and_norms_and_biases_do_not_decay(name, lr, weight_decay):
    assert settings(Segmenter(), 0.5)[name] == (lr, weight_decay)


def test_every_parameter_is_trained_once():
    model = Segmenter()
    assert settings(model, 0.9).keys() == dict(model.named_parameters()).keys()


def test_frozen_parameters_stay_out():
    model = Segmenter(frozen_stages=0)
    trained = {name for name, _ in model.named_parameters() if not name.startswith('backbone.patch_embed')}
    assert settings(model, 1.0).keys() == trained


@pytest.mark.parametrize('paramwise_cfg', [dict(stage_decay=0), dict(stage_decay=1.1), dict(norm_decay_mult=0)])
def test_what_it_does_not_take_is_named(paramwise_cfg):
    with pytest.raises(InvalidArgument, match='it takes stage_decay alone'):
        StageDecayConstructor(dict(optimizer=dict(type='AdamW')), paramwise_cfg)
