import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.modules.batchnorm import _BatchNorm

from fasternet_mm.benchmark.training_steps import peak_bytes
from fasternet_mm.models import FasterNet, FasterNetBlock, FasterNetStage, PartialConv, backbone
from fasternet_mm.models.backbone import ARCHITECTURES

VARIANTS = list(ARCHITECTURES)
TINY = dict(embed_dim=16, depths=(1, 1, 2, 1))


def tiny(**kwargs):
    net = FasterNet(TINY, **kwargs)
    net.init_weights()
    return net


def randomize_norms(net):
    """Statistics and scales as after some training, so that a wrong norm shows."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean)
    return net


def reference(fixtures, kind, act):
    """A net with the authors' weights, and what their implementation answers."""
    folder = fixtures / 'reference_fasternet'
    expected = {name: torch.from_numpy(value) for name, value in np.load(folder / f'expected_{act}.npz').items()}
    content = torch.load(folder / f'{kind}_{act}.pth', weights_only=True)
    weights = {name.removeprefix('backbone.'): value for name, value in content.get('state_dict', content).items()}
    net = FasterNet({**TINY, 'act': dict(relu='ReLU', gelu='GELU')[act]}).eval()
    return net, weights, expected


@pytest.mark.parametrize('act', ['relu', 'gelu'])
def test_maps_equal_the_authors_detector(fixtures, act):
    net, weights, expected = reference(fixtures, 'detector', act)
    del weights['rpn_head.rpn_cls.weight']
    net.load_state_dict(weights)
    for number, found in zip((1, 2, 3, 4), net(expected['input']), strict=True):
        torch.testing.assert_close(found, expected[f'detector_map{number}'], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('act', ['relu', 'gelu'])
def test_stages_equal_the_authors_classifier(fixtures, act):
    net, weights, expected = reference(fixtures, 'classifier', act)
    result = net.load_state_dict(weights, strict=False)
    assert {name.split('.')[0] for name in result.missing_keys} == {'norm0', 'norm2', 'norm4', 'norm6'}
    assert set(result.unexpected_keys) == {'avgpool_pre_head.1.weight', 'head.weight', 'head.bias'}
    for position in (0, 2, 4, 6):
        net.add_module(f'norm{position}', torch.nn.Identity())
    for number, found in zip((1, 2, 3, 4), net(expected['input']), strict=True):
        torch.testing.assert_close(found, expected[f'classifier_stage{number}'], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('arch', VARIANTS)
def test_parameters_are_timms_and_the_output_norms(arch):
    net = FasterNet(arch)
    peer = timm.create_model(f'fasternet_{arch}', features_only=True)
    norms = sum(2 * channels for channels in net.channels)
    assert sum(p.numel() for p in net.parameters()) - norms == sum(p.numel() for p in peer.parameters())


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (63, 130), (64, 96)])
def test_maps_have_strides_4_to_32_for_any_size(size):
    for index, found in zip((0, 1, 2, 3), tiny().eval()(torch.randn(1, 3, *size)), strict=True):
        expected = size
        for stride in (4, 2, 2, 2)[: index + 1]:
            expected = tuple(length // stride for length in expected)
        assert found.shape == (1, 16 * 2**index, *expected)


@pytest.mark.parametrize('out_indices', [(0,), (3,), (1, 3), (0, 1, 2), (0, 1, 2, 3)])
def test_any_subset_of_maps_equals_the_same_maps_of_the_whole(out_indices):
    whole = randomize_norms(tiny()).eval()
    part = FasterNet(TINY, out_indices=out_indices).eval()
    part.load_state_dict({k: v for k, v in whole.state_dict().items() if k in part.state_dict()})
    x = torch.randn(2, 3, 64, 64)
    all_maps = whole(x)
    for index, found in zip(out_indices, part(x), strict=True):
        torch.testing.assert_close(found, all_maps[index])


def test_in_channels_other_than_three():
    assert tiny(in_channels=5).eval()(torch.randn(1, 5, 32, 32))[0].shape[1] == 16


@pytest.mark.parametrize(
    ('kwargs', 'named'),
    [
        (dict(arch='xl'), r"'xl'.*t0, t1, t2, s, m, l"),
        (dict(arch=dict(embed_dim=16)), 'depths'),
        (dict(arch=dict(**TINY, widths=3)), 'widths'),
        (dict(arch=dict(embed_dim=16, depths=(1, 0))), r'\(1, 0\)'),
        (dict(arch=dict(**TINY, act='Swash')), 'Swash'),
        (dict(arch=dict(**TINY, n_div=17)), '17'),
        (dict(out_indices=(0, 4)), r'\(0, 4\).*\(0, 1, 2, 3\)'),
        (dict(out_indices=()), r'\(\)'),
        (dict(out_indices=(2, 1)), 'ascending'),
        (dict(out_indices=(1, 1)), 'ascending'),
        (dict(out_indices=(-1,)), '-1'),
        (dict(drop_path_rate=1.0), r'1\.0'),
        (dict(frozen_stages=5), '5.*1 to 4'),
        (dict(norm_cfg=dict(type='Nothing')), 'Nothing'),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_accepted(kwargs, named):
    with pytest.raises(ValueError, match=named):
        FasterNet(**{'arch': TINY, **kwargs})


@pytest.mark.parametrize('size', [(31, 64), (64, 31)])
def test_an_image_below_32_pixels_is_refused(size):
    with pytest.raises(ValueError, match='at least 32x32'):
        tiny()(torch.randn(1, 3, *size))


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 4])
def test_frozen_stages_neither_learn_nor_move_their_statistics(frozen_stages):
    net = tiny(frozen_stages=frozen_stages, drop_path_rate=0.1)
    net.eval()
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    sum(found.mean() for found in net(torch.randn(2, 3, 64, 64))).backward()
    frozen = ['patch_embed'] if frozen_stages >= 0 else []
    frozen += [f'stages.{position}' for position in range(2 * frozen_stages - 1)]
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad != name.startswith(tuple(frozen)), name
    for name, value in net.state_dict().items():
        if 'running_mean' in name:
            assert torch.equal(value, before[name]) == name.startswith(tuple(frozen)), name


def test_norm_eval_keeps_statistics_through_train_and_eval():
    net = tiny(norm_eval=True)
    net.eval()
    net.train()
    before = net.patch_embed.norm.running_mean.clone()
    net(torch.randn(2, 3, 64, 64))
    assert torch.equal(net.patch_embed.norm.running_mean, before)
    assert net.patch_embed.norm.weight.requires_grad
    assert net.stages[0].training


class CountingNorm(torch.nn.BatchNorm2d):
    """Insists in training on counting batches, as SyncBN does, which refuses CPUs."""

    def forward(self, x):
        assert self.num_batches_tracked is not None
        return super().forward(x)


@pytest.mark.parametrize('norm', ['BN', CountingNorm])
def test_checkpointing_changes_no_gradient_and_no_statistic(norm):
    plain = tiny(drop_path_rate=0.3, norm_cfg=dict(type=norm)).train()
    checkpointed = FasterNet(TINY, drop_path_rate=0.3, norm_cfg=dict(type=norm), with_cp=True).train()
    checkpointed.load_state_dict(plain.state_dict())
    x = torch.randn(4, 3, 64, 64)
    for net in (plain, checkpointed):
        torch.manual_seed(1)
        sum(found.square().mean() for found in net(x)).backward()
    for mine, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    for (name, mine), other in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        torch.testing.assert_close(mine, other, msg=name)


def test_checkpointing_stores_fewer_activations():
    def stored(net):
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.nelement()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(torch.randn(2, 3, 64, 64))
        return total

    assert stored(tiny(with_cp=True).train()) < 0.7 * stored(tiny().train())


@pytest.fixture(params=['recomputing', 'storing'])
def without_modules(request, monkeypatch):
    """Blocks that compute without calling their modules, whatever the size of their maps."""
    monkeypatch.setattr(backbone, 'RECOMPUTED_BYTES', dict(recomputing=0, storing=2**40)[request.param])
    return request.param


def gradients_and_statistics(net, images, dtype=None):
    net.zero_grad()
    torch.manual_seed(1)
    with torch.autocast('cpu', dtype, enabled=dtype is not None):
        maps = net(images)
    sum(x.to(torch.promote_types(x.dtype, torch.float32)).square().mean() for x in maps).backward()
    return [value.clone() for value in (*[p.grad for p in net.parameters() if p.grad is not None], *net.buffers())]


NEEDS_PYTORCH_2_4 = pytest.mark.skipif(torch.__version__ < '2.4', reason='no float16 on the CPU before')


@pytest.mark.parametrize('act', ['ReLU', 'GELU'])
@pytest.mark.parametrize(
    ('dtype', 'settings'),
    [
        *((dtype, {}) for dtype in (None, torch.float64, torch.bfloat16)),
        pytest.param(torch.float16, {}, marks=NEEDS_PYTORCH_2_4),
        (None, dict(norm_eval=True)),
        (None, dict(frozen_stages=1)),
    ],
    ids=str,
)
def test_a_block_without_its_modules_has_their_gradients_and_statistics(
    monkeypatch, without_modules, dtype, act, settings
):
    net = randomize_norms(tiny(layer_scale_init_value=0.5, drop_path_rate=0.3, act_cfg=dict(type=act), **settings))
    images = torch.randn(4, 3, 64, 64)
    if dtype == torch.float64:
        net, images, dtype = net.double(), images.double(), None
    before = {name: value.clone() for name, value in net.train().state_dict().items()}
    results = gradients_and_statistics(net, images, dtype)
    net.load_state_dict(before)
    monkeypatch.setattr(backbone, '_plain_modules', lambda block: None)
    for mine, expected in zip(results, gradients_and_statistics(net, images, dtype), strict=True):
        assert torch.equal(mine, expected)


@pytest.mark.parametrize(('act', 'share'), [('ReLU', 0.95), ('GELU', 0.85)])
def test_recomputing_takes_less_memory(monkeypatch, act, share):
    net = tiny(act_cfg=dict(type=act)).train()
    images = torch.randn(4, 3, 128, 128)

    def peak():
        return peak_bytes(lambda: gradients_and_statistics(net, images))

    monkeypatch.setattr(backbone, 'RECOMPUTED_BYTES', 0)
    recomputing = peak()
    monkeypatch.setattr(backbone, '_plain_modules', lambda block: None)
    assert recomputing < share * peak()


def test_gradients_of_gradients(without_modules):
    block = FasterNetBlock(4, act_cfg=dict(type='GELU')).double().train()
    assert gradgradcheck(block, torch.randn(2, 4, 3, 3, dtype=torch.double, requires_grad=True))


def test_the_loss_may_be_a_sum_whose_gradient_has_no_memory_of_its_own(without_modules, monkeypatch):
    block = FasterNetBlock(8).train()
    x = torch.randn(2, 8, 4, 3, requires_grad=True)
    (mine,) = torch.autograd.grad(block(x).sum(), x)
    monkeypatch.setattr(backbone, '_plain_modules', lambda block: None)
    (expected,) = torch.autograd.grad(block(x).sum(), x)
    torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize('name', ['spatial_mixing', 'spatial_mixing.partial_conv3', 'mlp', 'mlp.1', 'mlp.3'])
@pytest.mark.parametrize('kind', ['forward', 'forward_pre', 'full_backward', 'full_backward_pre'])
def test_whoever_watches_a_module_of_a_block_sees_it_run(without_modules, name, kind):
    block = FasterNetBlock(8, act_cfg=dict(type='GELU')).train()
    seen = []
    getattr(block.get_submodule(name), f'register_{kind}_hook')(lambda module, *values: seen.append(module))
    block(torch.randn(2, 8, 4, 3)).mean().backward()
    assert seen == [block.get_submodule(name)]


class Doubled(torch.nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ('place', 'module'),
    [
        (0, Doubled(8, 16, 1, bias=False)),
        (0, torch.nn.Conv2d(8, 16, 1)),
        (1, torch.nn.GroupNorm(4, 16)),
        (1, torch.nn.BatchNorm2d(16, momentum=None)),
        (1, torch.nn.BatchNorm2d(16, affine=False)),
        (1, torch.nn.BatchNorm2d(16, track_running_stats=False)),
        (2, torch.nn.GELU(approximate='tanh')),
        (2, torch.nn.Softplus()),
        (3, Doubled(16, 8, 1, bias=False)),
    ],
    ids=str,
)
def test_a_block_with_another_module_computes_what_that_module_does(without_modules, place, module):
    block = FasterNetBlock(8).train()
    block.mlp[place] = module
    x = torch.randn(2, 8, 4, 3)
    statistics = [value.clone() for value in block.buffers()]
    mine = block(x)
    for value, before in zip(block.buffers(), statistics, strict=True):
        value.copy_(before)
    torch.testing.assert_close(mine, x + block.mlp(block.spatial_mixing(x)))


def test_a_block_may_have_more_modules(without_modules):
    block = FasterNetBlock(8).train()
    block.mlp.append(torch.nn.Sigmoid())
    x = torch.randn(2, 8, 4, 3)
    torch.testing.assert_close(block(x), x + block.mlp(block.spatial_mixing(x)))


def test_a_single_value_per_channel_is_refused_in_training(without_modules):
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        FasterNetBlock(8).train()(torch.randn(1, 8, 1, 1))


class Noise(torch.nn.Module):
    def forward(self, x):
        return x * torch.rand_like(x)


def test_checkpointing_repeats_the_chance_in_an_activation():
    block = FasterNetBlock(8, act_cfg=dict(type=Noise), with_cp=True).train()
    x = torch.randn(2, 8, 4, 3)
    gradients = []
    for block.with_cp in (True, False):
        torch.manual_seed(1)
        gradients.append(torch.autograd.grad(block(x).square().mean(), block.mlp[0].weight)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('training', [True, False])
def test_partial_conv_leaves_its_input_and_the_other_channels_alone(training):
    conv = PartialConv(8).train(training)
    x = torch.randn(2, 8, 9, 7)
    kept = x.clone()
    with torch.set_grad_enabled(training):
        y = conv(x)
    assert torch.equal(x, kept)
    assert torch.equal(y[:, 2:], x[:, 2:])
    torch.testing.assert_close(y[:, :2], torch.nn.functional.conv2d(x[:, :2], conv.partial_conv3.weight, padding=1))
    y.detach().zero_()
    assert torch.equal(x, kept)


def test_partial_conv_gradients():
    conv = PartialConv(8).double()
    assert gradcheck(conv, torch.randn(2, 8, 4, 3, dtype=torch.double, requires_grad=True))


@pytest.mark.parametrize(
    'kwargs', [{}, dict(layer_scale_init_value=0.3), dict(act_cfg=dict(type='GELU')), dict(with_cp=True)]
)
def test_block_gradients(kwargs):
    block = FasterNetBlock(8, **{'act_cfg': dict(type='GELU'), **kwargs}).double().train()
    assert gradcheck(block, torch.randn(2, 8, 4, 3, dtype=torch.double, requires_grad=True))


def test_stage_is_its_blocks_in_a_row():
    stage = FasterNetStage(8, depth=2, drop_path=[0.0, 0.1]).eval()
    x = torch.randn(1, 8, 6, 6)
    torch.testing.assert_close(stage(x), stage.blocks[1](stage.blocks[0](x)))
    with pytest.raises(ValueError, match='2 drop_path rates for 3 blocks'):
        FasterNetStage(8, depth=3, drop_path=[0.0, 0.1])


def test_drop_path_drops_samples_in_training_only_and_keeps_the_mean():
    block = FasterNetBlock(8, drop_path=0.25)
    x = torch.randn(4000, 8, 1, 1)
    branch = block.eval()(x) - x
    assert branch.abs().max() > 0
    block.mlp[1].eval()
    block.drop_path.train()
    scale = ((block(x) - x) / branch).flatten(1).median(dim=1).values
    assert {round(value, 2) for value in scale.abs().tolist()} == {0.0, 1.33}
    assert scale.mean().item() == pytest.approx(1, abs=0.05)


def test_drop_path_grows_linearly_over_the_blocks():
    net = FasterNet(TINY, drop_path_rate=0.4)
    rates = [getattr(m.drop_path, 'drop_prob', 0.0) for m in net.modules() if isinstance(m, FasterNetBlock)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_layer_scale_multiplies_the_branch():
    plain, scaled = FasterNetBlock(8).eval(), FasterNetBlock(8, layer_scale_init_value=0.5).eval()
    scaled.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(1, 8, 5, 5)
    torch.testing.assert_close(scaled(x) - x, 0.5 * (plain(x) - x))


def test_channels_last_goes_through():
    net = randomize_norms(tiny()).eval()
    x = torch.randn(1, 3, 64, 64)
    expected = net(x)
    found = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    for mine, other in zip(found, expected, strict=True):
        assert mine.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_bfloat16_autocast_is_close_and_trains():
    net = tiny().train()
    x = torch.randn(2, 3, 64, 64)
    expected = net(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = net(x)
        sum(m.float().square().mean() for m in found).backward()
    for mine, other in zip(found, expected, strict=True):
        assert (mine - other).abs().mean() < 0.05 * other.abs().mean()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize('with_cp', [False, True])
def test_compiled_training_step_equals_eager(with_cp):
    eager = tiny(with_cp=with_cp).train()
    twin = FasterNet(TINY, with_cp=with_cp).train()
    twin.load_state_dict(eager.state_dict())
    # Inductor needs a C++ compiler; what can go wrong in our code shows in capture and autograd already.
    compiled = torch.compile(twin, backend='aot_eager', fullgraph=True)
    x = torch.randn(2, 3, 64, 64)
    for net in (eager, compiled):
        sum(found.square().mean() for found in net(x)).backward()
    for mine, other in zip(eager.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5)
    for mine, other in zip(eager.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(mine, other)


def test_export_takes_other_sizes():
    net = randomize_norms(tiny()).eval()
    free = {0: torch.export.Dim('batch'), 2: torch.export.Dim('height', min=64), 3: torch.export.Dim('width', min=64)}
    exported = torch.export.export(net, (torch.randn(2, 3, 96, 128),), dynamic_shapes={'x': free}).module()
    x = torch.randn(1, 3, 70, 101)
    for mine, other in zip(exported(x), net(x), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize('norm', ['BN', 'SyncBN', 'GN'])
def test_norm_cfg_chooses_the_norm(norm):
    extra = dict(num_groups=4) if norm == 'GN' else {}
    net = FasterNet(TINY, norm_cfg=dict(type=norm, requires_grad=False, **extra))
    kind = dict(BN=torch.nn.BatchNorm2d, SyncBN=torch.nn.SyncBatchNorm, GN=torch.nn.GroupNorm)[norm]
    for module in (net.patch_embed.norm, net.stages[1].norm, net.stages[0].blocks[0].mlp[1], net.norm6):
        assert type(module) is kind
        assert not module.weight.requires_grad


@pytest.mark.parametrize('package', ['mmengine', 'mmdet', 'mmseg'])
def test_a_config_builds_it_without_custom_imports(package):
    code = f"""
{'' if package == 'mmengine' else 'import fasternet_mm'}
from {package}.registry import MODELS
print(type(MODELS.build(dict(type='fasternet_mm.FasterNet', arch='t0'))))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("<class 'fasternet_mm.models.backbone.FasterNet'>")


def test_the_file_needs_pytorch_and_mmengine_alone(root, tmp_path):
    (tmp_path / 'lifted.py').write_text((root / 'fasternet_mm/models/backbone.py').read_text())
    code = "import sys, lifted; lifted.FasterNet('t0'); print({'mmcv', 'mmdet', 'torchvision'} & set(sys.modules))"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == 'set()'
