"""Optimized models against those that they were made from, and against timm's."""

import copy
import io
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import RetinaSepBNHead
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from mmseg.structures import SegDataSample
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fasternet_mm import FasterNet, FasterNetClassifier
from fasternet_mm.acceleration import optimization, packing
from fasternet_mm.acceleration.folding import fold_batch_norms
from fasternet_mm.acceleration.optimization import OptimizeHook, optimize
from fasternet_mm.acceleration.packing import PackedBlock, PackedConv2d, PackedLinear
from fasternet_mm.acceleration.precision import supported_dtypes
from fasternet_mm.engine.runner import build_model
from fasternet_mm.errors import UserError
from fasternet_mm.inference import Predictor
from fasternet_mm.models.backbone import ARCHITECTURES, InvalidArgument
from fasternet_mm.ops import roi_align
from fasternet_mm.weights.loading import fit_weights

TINY = dict(embed_dim=16, depths=(1, 1, 2, 1))


def as_after_training(model):
    """Statistics and scales that show a wrong fold."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            if module.track_running_stats:
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.normal_(module.running_mean)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
    return model.eval()


def tiny(**options):
    net = FasterNet(**{'arch': TINY, **options})
    net.init_weights()
    return as_after_training(net)


@torch.no_grad()
def answers(model, *inputs):
    outputs = model(*inputs)
    return outputs if isinstance(outputs, (tuple, list)) else (outputs,)


def assert_same(outputs, expected, tolerance=1e-4):
    for mine, other in zip(outputs, expected, strict=True):
        assert mine.dtype == other.dtype
        assert mine.shape == other.shape
        assert (mine - other).abs().max() <= tolerance * other.abs().max()


def kinds(model, kind):
    return [name for name, module in model.named_modules() if isinstance(module, kind)]


@pytest.mark.parametrize('arch', list(ARCHITECTURES))
def test_every_variant_answers_as_before_and_as_timm(arch):
    peer = as_after_training(timm.create_model(f'fasternet_{arch}', num_classes=7))
    image = torch.randn(1, 3, 96, 64)
    features = answers(lambda x: peer.forward_intermediates(x, intermediates_only=True), image)
    for net, expected in (
        (FasterNet(arch), features),
        (FasterNetClassifier(arch, num_classes=7), answers(peer, image)),
    ):
        fit_weights(net, peer.state_dict(), 'timm').load()
        net.eval()
        if isinstance(net, FasterNet):  # timm's features come without output norms, ours with fresh ones
            expected = [getattr(net, f'norm{2 * i}')(stage).detach() for i, stage in enumerate(expected)]
        optimized = optimize(net)
        outputs = answers(optimized, image)
        assert_same(outputs, answers(net, image))
        assert_same(outputs, expected)
        assert len(kinds(optimized, PackedBlock)) == sum(ARCHITECTURES[arch]['depths'])


@pytest.mark.parametrize(
    'options',
    [
        dict(arch={**TINY, 'act': 'GELU'}),
        dict(arch={**TINY, 'n_div': 3, 'mlp_ratio': 3}),
        dict(act_cfg=dict(type='SiLU')),
        dict(act_cfg=dict(type='LeakyReLU')),
        dict(act_cfg=dict(type='GELU', approximate='tanh')),
        dict(layer_scale_init_value=0.3),
        dict(drop_path_rate=0.3, with_cp=True),
        dict(frozen_stages=2),
        dict(norm_eval=True),
        dict(out_indices=(1, 2)),
        dict(in_channels=1),
        dict(norm_cfg=dict(type='SyncBN')),
        dict(norm_cfg=dict(type='BN', affine=False)),
        dict(norm_cfg=dict(type='BN', requires_grad=False, eps=1e-2)),
        dict(norm_cfg=dict(type='GN', num_groups=4)),
        dict(norm_cfg=dict(type='BN', track_running_stats=False)),
    ],
    ids=str,
)
def test_whatever_the_backbones_options(options):
    net = tiny(**options)
    net.train()
    image = torch.randn(2, options.get('in_channels', 3), 64, 96)
    optimized = optimize(net)
    assert net.training
    expected = answers(net.eval(), image)
    assert_same(answers(optimized, image), expected)
    norm = options.get('norm_cfg', {})
    if norm.get('type') != 'GN' and norm.get('track_running_stats', True):
        assert kinds(optimized, _BatchNorm) == [f'norm{2 * i}' for i in net.out_indices]
    with torch.backends.mkldnn.flags(enabled=False):
        assert_same(answers(optimized, image), expected)


@pytest.mark.parametrize('batch', [1, 3])
def test_blocks_in_strips_are_whole_blocks(batch, monkeypatch):
    net, image = tiny(), torch.randn(batch, 3, 96, 160)
    expected = answers(net, image)
    optimized = optimize(net)
    sizes = []
    packed = PackedConv2d._packed
    monkeypatch.setattr(PackedConv2d, '_packed', lambda self, size: sizes.append(size) or packed(self, size))
    monkeypatch.setattr(packing, 'STRIP_BYTES', 10_000)
    assert_same(answers(optimized, image), expected)
    assert max(size[3] for size in sizes if size[2] == 1) <= 10_000 // 4 // 32


@pytest.mark.parametrize('act', ['ReLU', 'GELU', 'SiLU', 'LeakyReLU'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('fused', [True, False])
def test_what_blocks_compute_on_a_gpu_is_the_same(act, dtype, fused, monkeypatch):
    monkeypatch.setattr(packing, 'fused_product_works', lambda device: fused)
    net = tiny(act_cfg=dict(type=act), layer_scale_init_value=0.3)
    blocks = [block for stage in optimize(net).stages[::2] for block in stage.blocks]
    plain = [block for stage in net.stages[::2] for block in stage.blocks]
    if act == 'LeakyReLU':  # which is not fused
        assert not any(isinstance(block, PackedBlock) for block in blocks)
        return
    for block, expected in zip(blocks, plain, strict=True):
        x = torch.randn(2, expected.spatial_mixing.partial_conv3.in_channels * 4, 6, 5)
        x = x.to(dtype, memory_format=torch.channels_last)
        before = x.clone()
        with torch.no_grad():
            y = block.to(dtype)._on_gpu(x)
            correct = expected.double()(before.double())
        assert y.data_ptr() == x.data_ptr()
        torch.testing.assert_close(
            y.double(),
            correct,
            **(dict(rtol=0.05, atol=0.05) if dtype == torch.bfloat16 else dict(rtol=1e-5, atol=1e-5)),
        )


def test_the_fused_kernels_run_in_inference_mode_from_the_first_call_on(logged_warnings):
    packing.kernels_work.cache_clear()
    net, image = tiny(), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        found = answers(optimize(net), image)
    assert not logged_warnings()
    for mine, expected in zip(found, answers(net, image), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)


def test_the_fused_product_of_matrices_is_tried_and_its_lack_is_said(logged_warnings, monkeypatch):
    packing.fused_product_works.cache_clear()
    assert packing.fused_product_works('cpu')
    packing.fused_product_works.cache_clear()
    monkeypatch.setattr(torch, '_addmm_activation', lambda bias, a, b: a @ b + bias)
    assert not packing.fused_product_works('cpu')
    packing.fused_product_works.cache_clear()
    (warning,) = logged_warnings()
    assert warning.startswith("PackedBlock runs on PyTorch's own kernels, which are slower")


def test_input_and_first_answer_stay_as_they_are_in_later_calls():
    optimized = optimize(tiny())
    image = torch.randn(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    before = image.clone()
    first = answers(optimized, image)
    copies = [value.clone() for value in first]
    answers(optimized, torch.randn(1, 3, 64, 64))
    again = answers(optimized, image)
    assert torch.equal(image, before)
    for value, copied, later in zip(first, copies, again):
        assert torch.equal(value, copied)
        assert torch.equal(value, later)


def test_the_model_itself_stays_as_it_is_and_goes_on_learning():
    net = tiny(drop_path_rate=0.1).train()
    before = copy.deepcopy(net)
    optimized = optimize(net)
    image = torch.randn(2, 3, 64, 64)
    outputs = answers(optimized, image)
    assert str(net) == str(before)
    assert all(module.training for module in net.modules())
    for (name, mine), other in zip(net.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    sum(x.square().mean() for x in net(image)).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    optimizer.step()
    assert_same(answers(optimized, image), outputs, tolerance=0)


@pytest.mark.parametrize('leaf', ['input', 'parameters'])
@pytest.mark.parametrize('build', [tiny, lambda: FasterNetClassifier(TINY, num_classes=3, feature_dim=8)])
def test_gradients_are_refused(build, leaf):
    optimized = optimize(build())
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
    outputs = optimized(torch.randn(1, 3, 32, 32, requires_grad=leaf == 'input'))
    last = outputs[-1] if isinstance(outputs, tuple) else outputs
    with pytest.raises(RuntimeError, match=r'no gradients through a model that fasternet_mm.optimize'):
        last.sum().backward()
    assert not any(x.requires_grad for x in answers(optimized, torch.randn(1, 3, 32, 32)))


def test_losses_of_an_optimized_detector_are_refused_their_gradients(detector):
    optimized = optimize(detector)
    losses = optimized(**optimized.data_preprocessor(detection_data(64, 64), training=True), mode='loss')
    with pytest.raises(RuntimeError, match='no gradients'):
        optimized.parse_losses(losses)[0].backward()


class Skips(nn.Module):
    """The norm's name follows the convolution's, but something else takes the convolution's result as well."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.conv(x)
        return self.bn(x) + x


class Shares(nn.Module):
    """One convolution at two levels, with norms of their own, and once more bare."""

    def __init__(self):
        super().__init__()
        self.levels = nn.ModuleList(ConvModule(3, 3, 3, padding=1, norm_cfg=dict(type='BN')) for _ in range(2))
        self.levels[1].conv = self.levels[0].conv
        self.tail = nn.Sequential(self.levels[0].conv, nn.ReLU())
        self.bare = self.levels[0].conv

    def forward(self, x):
        return [level(x) for level in self.levels] + [self.bare(x), self.tail(x)]


class Hooked(nn.Module):
    """Halved by a hook between convolution and norm."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
        self.body[0].register_forward_hook(lambda module, inputs, output: output / 2)

    def forward(self, x):
        return self.body(x)


class NormActivation(nn.BatchNorm2d):
    """As timm's ``BatchNormAct2d``: a batch norm by type that is more than one."""

    def forward(self, x):
        return super().forward(x).relu()


def conv_module(**options):
    return ConvModule(3, 3, 3, norm_cfg=dict(type='BN'), **options)


OTHERS = {
    'skip': Skips,
    'shared': Shares,
    'hook': Hooked,
    'derived norm': lambda: nn.Sequential(nn.Conv2d(3, 3, 1), NormActivation(3)),
    'norm before convolution': lambda: conv_module(order=('norm', 'conv', 'act')),
    'activation before norm': lambda: conv_module(order=('conv', 'act', 'norm')),
    'usual order': conv_module,
    'bias': lambda: conv_module(bias=True),
    'spectral norm': lambda: conv_module(with_spectral_norm=True),
    'reflected padding': lambda: conv_module(padding=1, padding_mode='reflect'),
    "PyTorch's reflected padding": lambda: nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode='reflect')),
    'padding by name': lambda: nn.Sequential(nn.Conv2d(3, 3, 3, padding='same'), nn.BatchNorm2d(3)),
    'groups': lambda: conv_module(groups=3, act_cfg=dict(type='LeakyReLU')),
    'dilation': lambda: conv_module(dilation=2, stride=2, act_cfg=dict(type='GELU')),
    'convolution, activation, norm': lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)),
    'transposed': lambda: nn.Sequential(nn.ConvTranspose2d(3, 3, 2), nn.BatchNorm2d(3)),
    'fully connected': lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(3 * 9 * 8, 5), nn.ReLU()),
    'a list that looks like a sequence': lambda: Listed(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)),
}


class Listed(nn.Sequential):
    def forward(self, x):
        return torch.cat([module(x) for module in self])


@pytest.mark.parametrize('name', OTHERS)
def test_norms_are_folded_only_where_that_is_exact(name):
    net = nn.Sequential(as_after_training(OTHERS[name]())).eval()
    image = torch.randn(2, 3, 9, 8)
    expected = answers(net, image)
    assert_same(answers(optimize(net), image), expected, tolerance=1e-5)
    fold_batch_norms(net)
    assert len(kinds(net, _BatchNorm)) == (0 if name in FOLDED else len(kinds(OTHERS[name](), _BatchNorm)))


FOLDED = {'shared', 'usual order', 'bias', 'reflected padding', 'padding by name', 'groups', 'dilation'}


def test_convolutions_shared_between_levels_with_norms_of_their_own():
    head = RetinaSepBNHead(4, num_ins=3, in_channels=8, feat_channels=8, stacked_convs=2, norm_cfg=dict(type='BN'))
    as_after_training(head)
    maps = [torch.randn(1, 8, size, size) for size in (16, 8, 4)]
    optimized = optimize(head)
    assert not kinds(optimized, _BatchNorm)
    for outputs, expected in zip(answers(optimized, maps), answers(head, maps), strict=True):
        assert_same(outputs, expected)


@pytest.mark.parametrize('size', [(32, 32), (33, 70)])
def test_weights_are_packed_anew_for_another_size_and_other_weights(size):
    net = tiny()
    optimized = optimize(net)
    answers(optimized, torch.randn(1, 3, 64, 64))
    image = torch.randn(1, 3, *size)
    assert_same(answers(optimized, image), answers(net, image))
    other = tiny(init_cfg=dict(type='Normal', layer='Conv2d', std=0.1))
    optimized.load_state_dict(optimize(other).state_dict())
    assert_same(answers(optimized, image), answers(other, image))


def test_fully_connected_layers_take_any_number_of_rows():
    net = nn.Sequential(nn.Linear(300, 20))
    packed = optimize(net)
    assert isinstance(packed[0], PackedLinear)
    for shape in ((50, 300), (1, 300), (0, 300), (2, 5, 300)):
        rows = torch.randn(shape)
        torch.testing.assert_close(packed(rows), net(rows), rtol=1e-5, atol=1e-5)


def test_an_optimized_model_can_be_copied_and_saved():
    optimized, image = optimize(tiny()), torch.randn(1, 3, 64, 64)
    expected = answers(optimized, image)
    assert_same(answers(copy.deepcopy(optimized), image), expected, tolerance=0)
    file = io.BytesIO()
    torch.save(optimized, file)
    file.seek(0)
    assert_same(answers(torch.load(file, weights_only=False), image), expected, tolerance=0)
    assert_same(answers(optimize(optimized), image), expected, tolerance=0)


@pytest.fixture(scope='module')
def cfg(detector_cfg):
    """The small detector's, with the usual threshold of scores."""
    cfg = copy.deepcopy(detector_cfg)
    cfg.model.test_cfg.rcnn.score_thr = 0.05
    return cfg


@pytest.fixture(scope='module')
def detector(cfg):
    """With statistics of its own maps, so that it finds something."""
    torch.manual_seed(0)
    model = as_after_training(build_model(cfg))
    for part in (model.backbone, model.neck):
        for norm in part.modules():
            if isinstance(norm, _BatchNorm):
                norm.reset_running_stats()
                norm.momentum = None
        part.train()
    with torch.no_grad():
        model.extract_feat(torch.randn(2, 3, 128, 160))
    nn.init.normal_(model.roi_head.bbox_head.fc_cls.weight, std=0.3)
    return model.eval()


def detection_data(height, width):
    torch.manual_seed(1)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    size = height, width
    sample = DetDataSample(
        metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0)),
        gt_instances=InstanceData(
            bboxes=torch.tensor([[8.0, 8, 40, 40]]),
            labels=torch.tensor([0]),
            masks=BitmapMasks(np.ones((1, *size), np.uint8), *size),
        ),
    )
    return dict(inputs=[image], data_samples=[sample])


@torch.no_grad()
def detections(model, height=128, width=160):
    return model.test_step(detection_data(height, width))[0].pred_instances


@pytest.fixture
def _captured_only(monkeypatch):
    """Making kernels takes a C++ compiler and time; what can go wrong in our code shows in capture."""
    compiler = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda *args: compiler(*args, backend='aot_eager', fullgraph=True))


def assert_same_detections(instances, expected):
    assert len(expected) >= 10
    assert torch.equal(instances.labels, expected.labels)
    torch.testing.assert_close(instances.bboxes, expected.bboxes, rtol=0, atol=1e-2)
    torch.testing.assert_close(instances.scores, expected.scores, rtol=0, atol=1e-4)
    assert (instances.masks != expected.masks).float().mean() < 1e-4


@pytest.mark.parametrize('large_map', [roi_align.LARGE_MAP, 1])
def test_mask_rcnn_finds_the_same(detector, large_map, monkeypatch):
    optimized = optimize(detector)
    assert {name.split('.')[0] for name in kinds(optimized, _BatchNorm)} == {'backbone'}
    monkeypatch.setattr(roi_align, 'LARGE_MAP', large_map)
    assert_same_detections(detections(optimized), detections(detector))


@pytest.mark.usefixtures('_captured_only')
def test_compiled_mask_rcnn_finds_the_same(detector):
    assert_same_detections(detections(optimize(detector, compile=True)), detections(detector))


@pytest.mark.usefixtures('_captured_only')
def test_compiled_maps_are_the_same_for_several_sizes():
    net = tiny()
    compiled = optimize(net, compile=True)
    assert not kinds(compiled, (PackedConv2d, PackedBlock))
    for size in (64, 96):
        image = torch.randn(1, 3, size, 64)
        assert_same(answers(compiled, image), answers(net, image))


def test_compilation_that_fails_is_told_in_a_sentence(monkeypatch):
    def fail(graph, inputs):
        raise FileNotFoundError('no compiler')

    compiler = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda *args: compiler(*args, backend=fail))
    with pytest.raises(UserError, match=r'^torch.compile failed for FasterNet \(.*no compiler.*\): it needs a C\+\+'):
        optimize(tiny(), compile=True)(torch.randn(1, 3, 32, 32))


@pytest.mark.usefixtures('_captured_only')
def test_a_compiled_model_can_be_copied():
    compiled, image = optimize(tiny(), compile=True), torch.randn(1, 3, 32, 32)
    assert_same(answers(copy.deepcopy(compiled), image), answers(compiled, image))


def test_upernet_labels_the_same(root):
    torch.manual_seed(0)
    model = build_model(Config.fromfile(root / 'configs/shapes/upernet_fasternet_t0_shapes.py'))
    as_after_training(model)
    optimized = optimize(model)
    assert {name.split('.')[0] for name in kinds(optimized, _BatchNorm)} == {'backbone'}
    sample = SegDataSample(metainfo=dict(ori_shape=(96, 128), img_shape=(96, 128)))
    data = dict(inputs=[torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)], data_samples=[sample])
    with torch.no_grad():
        logits, expected = (net.test_step(data)[0].seg_logits.data.clone() for net in (optimized, model))
    assert_same([logits], [expected])


needs_bfloat16 = pytest.mark.skipif(
    torch.bfloat16 not in supported_dtypes('cpu'), reason='this CPU does not compute in bfloat16'
)


@needs_bfloat16
def test_bfloat16_stays_inside_the_parts(detector, monkeypatch):
    optimized = optimize(detector, torch.bfloat16)
    assert {parameter.dtype for parameter in optimized.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in detector.parameters()} == {torch.float32}
    image = torch.randn(1, 3, 64, 96)
    for x, expected in zip(optimized.extract_feat(image), detector.extract_feat(image), strict=True):
        assert x.dtype == torch.float32
        assert (x - expected).abs().mean() < 0.02 * expected.abs().mean()
    rois = []
    extract = type(detector.roi_head.bbox_roi_extractor).forward
    monkeypatch.setattr(
        type(detector.roi_head.bbox_roi_extractor),
        'forward',
        lambda self, maps, boxes, *args: rois.append(boxes) or extract(self, maps, boxes, *args),
    )
    assert detections(optimized).bboxes.dtype == torch.float32
    assert rois
    assert all(not torch.equal(boxes, boxes.bfloat16().float()) for boxes in rois)


@pytest.mark.parametrize('dtype', [torch.float64, torch.int8, torch.float16])
def test_a_type_that_the_device_does_not_compute_in_is_named(dtype):
    name = str(dtype).removeprefix('torch.')
    with pytest.raises(InvalidArgument, match=rf'this cpu does not compute in {name}: use (bfloat16, or )?float32'):
        optimize(tiny(), dtype)


def test_bfloat16_is_refused_where_the_cpu_has_none(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    with pytest.raises(InvalidArgument, match=r'this cpu does not compute in bfloat16: use float32, which is'):
        OptimizeHook(bf16=True)


@pytest.mark.parametrize(('generation', 'has_bfloat16'), [(7, False), (9, True)])
def test_a_gpu_computes_in_float16_and_from_ampere_on_in_bfloat16(generation, has_bfloat16, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda: True)  # PyTorch converts where the GPU cannot
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: (generation, 5))
    assert supported_dtypes('cuda') == [torch.float32, torch.float16, *[torch.bfloat16] * has_bfloat16]


def test_the_hook_takes_the_names_of_types():
    assert OptimizeHook().dtype is None
    with pytest.raises(InvalidArgument, match=r"dtype='half': use 'float16', 'bfloat16', or None"):
        OptimizeHook(dtype='half')
    with pytest.raises(InvalidArgument, match=r'contradict each other'):
        OptimizeHook(bf16=True, dtype='float16')
    with pytest.raises(InvalidArgument, match=r'this cpu does not compute in float16'):
        OptimizeHook(dtype='float16')


class Operators:
    """`torch.ops.mkldnn` with one of its operators taken away, or given a wrong input."""

    def __init__(self, operators, name, missing):
        self.operators, self.name, self.missing = operators, name, missing

    def __getattr__(self, name):
        operator = getattr(self.operators, name)
        if name != self.name:
            return operator
        if self.missing:
            raise AttributeError(f'there is no {name}')

        def wrong(first, *others):
            return operator(1.5 * first, *others)

        wrong.binary = lambda total, *others: operator.binary(1.5 * total, *others)
        return wrong


@pytest.fixture
def _kernels_untried():
    packing.kernels_work.cache_clear()
    yield
    packing.kernels_work.cache_clear()


@pytest.mark.usefixtures('_kernels_untried')
@pytest.mark.parametrize('dtype', [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)], ids=str)
@pytest.mark.parametrize('missing', [True, False], ids=['missing', 'wrong'])
@pytest.mark.parametrize(
    ('operator', 'layer'),
    [
        ('_convolution_pointwise', 'PackedConv2d'),
        ('_convolution_pointwise_', 'PackedConv2d'),
        ('_reorder_convolution_weight', 'PackedConv2d'),
        ('_linear_pointwise', 'PackedLinear'),
        ('_reorder_linear_weight', 'PackedLinear'),
    ],
)
def test_without_a_private_operator_layers_run_on_public_ones_and_say_so_once(
    operator, layer, missing, dtype, logged_warnings, monkeypatch
):
    net = as_after_training(FasterNetClassifier(TINY, num_classes=7))
    optimized = optimize(net, dtype)
    image = torch.randn(2, 3, 32, 64)
    expected = answers(copy.deepcopy(net).to(dtype), image.to(dtype))
    monkeypatch.setattr(torch.ops, 'mkldnn', Operators(torch.ops.mkldnn, operator, missing))
    for _ in range(2):
        assert_same(answers(optimized, image), [logits.float() for logits in expected], packing.ROUNDING[dtype])
    reason = f'there is no {operator}' if missing else 'Tensor-likes are not close'
    (warning,) = logged_warnings()
    assert warning.startswith(f"{layer} in {dtype} runs on PyTorch's own kernels")
    assert reason in warning


@pytest.mark.usefixtures('_kernels_untried')
def test_private_operators_are_tried_once_and_leave_chance_as_it_is(logged_warnings, monkeypatch):
    trials = []
    for layer in (PackedConv2d, PackedLinear):
        tried = layer.trials
        monkeypatch.setattr(layer, 'trials', lambda dtype, tried=tried: trials.append(dtype) or tried(dtype))
    optimized = [optimize(FasterNetClassifier(TINY, num_classes=7)) for _ in range(2)]
    image, chance = torch.randn(2, 3, 32, 64), torch.get_rng_state()
    for net in optimized:
        answers(net, image)
    assert trials == [torch.float32] * 2
    assert torch.equal(torch.get_rng_state(), chance)
    assert not logged_warnings()


def test_a_processor_that_cannot_be_asked_about_bfloat16_has_none(monkeypatch):
    operators = Operators(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', missing=True)
    monkeypatch.setattr(torch.ops, 'mkldnn', operators)
    assert supported_dtypes('cpu') == [torch.float32]


@pytest.mark.parametrize('wrapped', [False, True])
def test_a_test_runs_on_the_optimized_model_and_leaves_the_runner_its_own(wrapped):
    net, wrapper = tiny(), nn.Module()
    wrapper.module = net
    runner = SimpleNamespace(model=wrapper if wrapped else net)
    hook = OptimizeHook()
    hook.before_test_epoch(runner)
    assert kinds(runner.model.module if wrapped else runner.model, PackedBlock)
    hook.after_test_epoch(runner)
    assert (runner.model.module if wrapped else runner.model) is net


def test_a_test_of_averaged_weights_runs_on_them():
    runner = Runner.__new__(Runner)  # of which hooks alone are of interest
    runner.model, runner._hooks = tiny(), []
    runner.register_hook(OptimizeHook())
    averages = EMAHook()
    runner.register_hook(averages)
    averages.before_run(runner)
    averaged = averages.ema_model.module
    for parameter in averaged.parameters():
        parameter.data.mul_(1.1)
    image = torch.randn(1, 3, 64, 64)
    expected = answers(averaged, image)
    runner.call_hook('before_test_epoch')
    assert_same(answers(runner.model, image), expected)


def as_instances(prediction):
    columns = dict(bboxes='boxes', scores='scores', labels='labels', masks='masks')
    return InstanceData(**{name: torch.from_numpy(getattr(prediction, own)) for name, own in columns.items()})


def test_the_predictor_runs_an_optimized_model_unless_told_otherwise(detector, cfg, fixtures, tmp_path):
    torch.save(detector.state_dict(), tmp_path / 'net.pth')
    image = str(fixtures / '000000000785.jpg')
    plain = Predictor(cfg, str(tmp_path / 'net.pth'), optimize=False)
    optimized = Predictor(cfg, str(tmp_path / 'net.pth'))
    assert not kinds(plain.model, PackedBlock)
    assert kinds(optimized.model, PackedBlock)
    assert_same_detections(*(as_instances(predictor(image)) for predictor in (optimized, plain)))


def test_what_is_inside_a_part_is_no_part_of_its_own():
    class Wrapping(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny()

        def forward(self, x):
            return self.net(x)

    model = nn.Module()
    model.backbone = Wrapping()
    assert optimization._parts(model) == [model.backbone]
