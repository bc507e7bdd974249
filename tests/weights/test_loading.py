import logging

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from fasternet_mm import FasterNet, FasterNetClassifier, load_weights
from fasternet_mm.errors import UserError

TINY = dict(embed_dim=16, depths=(1, 1, 1, 1))


class Detector(nn.Module):
    """As MMDetection's, in small: layers that depend on the number of classes, one of them with a background."""

    def __init__(self, num_classes=5, **backbone):
        super().__init__()
        self.backbone = FasterNet(**{'arch': TINY, **backbone})
        self.neck = nn.Conv2d(16, 8, 1)
        self.bbox_head = nn.Module()
        self.bbox_head.num_classes = num_classes
        self.bbox_head.fc_cls = nn.Linear(8, num_classes + 1)
        self.bbox_head.fc_reg = nn.Linear(8, 4 * num_classes)
        self.bbox_head.mask = nn.Conv2d(8, num_classes, 1)


def randomized(net):
    for value in net.state_dict().values():
        value.copy_(torch.rand(value.shape) * 9)
    return net


@pytest.fixture
def save(tmp_path):
    def save(state, name='net.pth'):
        torch.save(state, tmp_path / name)
        return str(tmp_path / name)

    return save


@pytest.fixture
def log(monkeypatch):
    """What MMEngine's log says, as (level, text)."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append((record.levelname, record.getMessage()))
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def assert_same(net, state):
    own = net.state_dict()
    assert own.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(own[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


def assert_refused(net, source, message, **options):
    """With this message, and with the model as it was."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(UserError, match=message):
        load_weights(net, source, **options)
    assert_same(net, before)


def test_a_whole_detector_comes_back_as_saved(save, log):
    saved, loaded = randomized(Detector()), Detector()
    load_weights(loaded, save(dict(meta={}, state_dict=saved.state_dict())))
    assert_same(loaded, saved.state_dict())
    assert len(log) == 1
    assert "net.pth (detector or segmenter, in 'state_dict', a FasterNet with embed_dim 16" in log[0][1]
    assert '84 tensors loaded, 0 initialized, 0 left out' in log[0][1]


def test_the_line_about_a_classifier_counts_what_was_initialized_and_left_out(save, log):
    load_weights(FasterNet('t0'), save(FasterNetClassifier('t0').state_dict()))
    assert log[0][1].endswith(
        '(classifier, FasterNet-T0): 128 tensors loaded, 20 initialized (norm0, norm2, norm4, norm6), '
        '3 left out (avgpool_pre_head.1, head)'
    )


@pytest.mark.parametrize('out_indices', [(0, 1), (1, 3), (2,)])
def test_a_backbone_with_fewer_outputs_leaves_out_what_only_the_others_need(save, out_indices):
    saved, loaded = randomized(FasterNet(TINY)), FasterNet(TINY, out_indices=out_indices)
    fit = load_weights(loaded, save(saved.state_dict()))
    assert_same(loaded, {name: saved.state_dict()[name] for name in loaded.state_dict()})
    assert fit.initialized == []
    assert set(fit.left_out) == saved.state_dict().keys() - loaded.state_dict().keys()


@pytest.mark.parametrize('make', [lambda: FasterNet(TINY), Detector], ids=['backbone', 'detector'])
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s, name: s.pop(name), r'1 missing \((backbone.)?norm6.running_var\)'),
        (lambda s, name: s.update({name + '2': s[name]}), r'1 unknown \((backbone.)?norm6.running_var2\)'),
        (
            lambda s, name: s.update({name: s[name][1:]}),
            r'1 of another shape or type \(.*: \(127,\) instead of \(128,\)',
        ),
        (lambda s, name: s.update({name: s[name].long()}), r'1 of another shape or type'),
        (lambda s, name: s.update({name: s[name].to(torch.complex64)}), r'1 of another shape or type'),
    ],
    ids=['missing', 'unknown', 'shape', 'integer', 'complex'],
)
def test_a_single_wrong_tensor_is_named_and_nothing_is_loaded(save, make, change, message):
    net = make()
    state = dict(randomized(make()).state_dict())
    change(state, 'backbone.norm6.running_var' if isinstance(net, Detector) else 'norm6.running_var')
    assert_refused(net, save(state), message)


def test_everything_that_is_wrong_is_counted(save):
    state = dict(Detector().state_dict())
    state['head.weight'] = state.pop('neck.weight')
    state['neck.bias'] = torch.zeros(3)
    assert_refused(Detector(), save(state), r'1 missing \(neck.weight\); 1 unknown \(head.weight\); 1 of another shape')


@pytest.mark.parametrize('make', [lambda a: FasterNet(a), lambda a: Detector(arch=a)], ids=['backbone', 'detector'])
def test_another_variant_is_told_by_name(save, make):
    source = save(make('t0').state_dict())
    assert_refused(make('t1'), source, r'is of FasterNet-T0, the model is FasterNet-T1: take the one that fits')


def test_a_checkpoint_without_a_fasternet_is_told(save):
    source = save(nn.Conv2d(3, 4, 1).state_dict())
    assert_refused(FasterNet(TINY), source, r'holds no FasterNet: its tensors are weight, bias')
    assert_refused(Detector(), source, r'holds no FasterNet: its tensors are weight, bias')


def test_a_classifier_for_a_whole_detector_is_told_where_it_belongs(save):
    source = save(FasterNetClassifier(TINY).state_dict())
    assert_refused(Detector(), source, r'is a classifier, and a whole detector .* train CONFIG --start CHECKPOINT')


def test_a_detector_for_a_classifier_misses_its_head(save):
    assert_refused(FasterNetClassifier(TINY), save(Detector().state_dict()), r'missing \(.*patch_embed')


def test_another_number_of_classes_is_explained(save):
    source = save(Detector(num_classes=80).state_dict())
    assert_refused(Detector(3), source, r'was trained on 80 classes, the model has 3 .*fc_cls.*--start')
    assert_refused(Detector(3), source, r'was trained on 80 classes', new_heads=False)


@pytest.mark.parametrize(('before', 'after'), [(80, 3), (3, 80), (1, 2), (7, 1)])
def test_new_heads_start_afresh_and_are_named(save, before, after):
    saved, loaded = randomized(Detector(before)), randomized(Detector(after))
    own = {name: value.clone() for name, value in loaded.state_dict().items()}
    fit = load_weights(loaded, save(saved.state_dict()), new_heads=True)
    kept = [name for name in own if name.startswith('bbox_head')]
    assert fit.initialized == kept
    assert_same(loaded, {name: own[name] if name in kept else saved.state_dict()[name] for name in own})
    assert f'initialized for {after} classes instead of {before}: bbox_head.fc_cls.weight' in str(fit)
    assert 'bbox_head.mask.bias' in str(fit)


def test_new_heads_excuse_nothing_else(save):
    state = dict(Detector(80).state_dict())
    state['neck.weight'] = torch.zeros(9, 16, 1, 1)
    assert_refused(Detector(3), save(state), r'7 of another shape or type', new_heads=True)
    state = dict(Detector(80).state_dict())
    state['bbox_head.fc_reg.bias'] = torch.zeros(4 * 79)
    assert_refused(Detector(3), save(state), r'6 of another shape or type', new_heads=True)


def test_a_classifier_fine_tunes_on_other_classes(save):
    source = save(FasterNetClassifier(TINY).state_dict())
    assert_refused(FasterNetClassifier(TINY, num_classes=3), source, r'was trained on 1000 classes, the model has 3')
    assert load_weights(FasterNetClassifier(TINY, num_classes=3), source, new_heads=True).initialized == [
        'head.weight',
        'head.bias',
    ]


def test_a_mismatch_that_is_allowed_is_listed(save):
    saved, loaded = randomized(Detector()), Detector()
    state = dict(saved.state_dict())
    state['extra.weight'] = state.pop('neck.weight')
    state['neck.bias'] = torch.zeros(3)
    fit = load_weights(loaded, save(state), allow_mismatch=True)
    for part in ('missing: neck.weight', 'unknown: extra.weight', 'unfit: neck.bias'):
        assert f'accepted though {part}' in str(fit)
    assert torch.equal(loaded.backbone.norm6.weight, saved.backbone.norm6.weight)


def test_a_checkpoint_of_which_nothing_fits_is_refused_even_so(save):
    assert_refused(Detector(), save(nn.Conv2d(3, 4, 1).state_dict()), r'holds no FasterNet', allow_mismatch=True)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_becomes_the_models(save, dtype):
    saved, loaded = randomized(FasterNet(TINY)), FasterNet(TINY)
    half = {name: value.to(dtype) for name, value in saved.state_dict().items()}
    fit = load_weights(loaded, save(half))
    assert f'tensors loaded (from {str(dtype).removeprefix("torch.")})' in str(fit)
    assert_same(loaded, {name: half[name].to(value.dtype) for name, value in saved.state_dict().items()})


def test_nan_is_loaded_with_a_warning_that_names_it(save, log):
    state = FasterNet(TINY).state_dict()
    state['norm2.weight'][3] = torch.nan
    state['norm4.bias'][0] = torch.inf
    net = FasterNet(TINY)
    load_weights(net, save(state))
    assert net.norm2.weight.isnan().sum() == 1
    level, text = log[-1]
    assert level == 'WARNING'
    assert 'NaN or infinite numbers in 2 tensors (norm2, norm4)' in text


def test_large_finite_weights_bring_no_warning(save, log):
    state = FasterNet(TINY).state_dict()
    state['norm2.weight'].fill_(3e38)
    load_weights(FasterNet(TINY), save(state))
    assert [level for level, _ in log] == ['INFO']


def test_another_number_of_channels_needs_to_be_said(save):
    source = save(FasterNet(TINY).state_dict())
    message = r"is for images of 3 channels, the model for 1: .* stem='repeat' or stem='average'"
    assert_refused(FasterNet(TINY, in_channels=1), source, message)
    assert_refused(FasterNet(TINY, in_channels=1), source, r"stem='sum' is unknown: use 'repeat'", stem='sum')


def test_an_averaged_stem_sees_a_gray_image_as_three_equal_channels_were_seen(save):
    color, gray = randomized(FasterNet(TINY)).eval(), FasterNet(TINY, in_channels=1).eval()
    load_weights(gray, save(color.state_dict()), stem='average')
    image = torch.rand(1, 1, 64, 64)
    for mine, other in zip(gray(image), color(image.expand(-1, 3, -1, -1)), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('make', [FasterNet, lambda *a, **k: Detector(**k)], ids=['backbone', 'detector'])
def test_a_repeated_stem_takes_the_filters_in_turn_and_keeps_the_responses_size(save, make):
    saved, loaded = randomized(make(TINY)), make(TINY, in_channels=6)
    load_weights(loaded, save(saved.state_dict()), stem='repeat')
    old, new = (getattr(net, 'backbone', net).patch_embed.proj.weight for net in (saved, loaded))
    torch.testing.assert_close(new, torch.cat((old, old), dim=1) / 2)


def test_a_stem_option_changes_nothing_where_channels_agree(save):
    saved, loaded = randomized(FasterNet(TINY)), FasterNet(TINY)
    load_weights(loaded, save(saved.state_dict()), stem='average')
    assert_same(loaded, saved.state_dict())


def test_a_part_of_a_bigger_checkpoint_is_taken_by_its_prefix(save):
    teacher, student, loaded = randomized(FasterNet(TINY)), FasterNet(TINY), FasterNet(TINY)
    state = {f'teacher.{name}': value for name, value in teacher.state_dict().items()}
    state |= {f'student.{name}': value for name, value in student.state_dict().items()}
    source = save(state)
    assert_refused(FasterNet(TINY), source, r'holds no FasterNet')
    load_weights(loaded, source, prefix='teacher')
    assert_same(loaded, teacher.state_dict())


def test_layers_that_are_left_out_keep_their_initial_values(save):
    saved = randomized(Detector())
    source = save(saved.state_dict())
    for beginnings in ('backbone.stages.', ['backbone.stages.']):
        loaded = Detector()
        before = {name: value.clone() for name, value in loaded.state_dict().items()}
        load_weights(loaded, source, leave_out=beginnings)
        expected = {
            name: before[name] if name.startswith('backbone.stages.') else value
            for name, value in saved.state_dict().items()
        }
        assert_same(loaded, expected)


def test_a_beginning_of_no_name_cannot_be_left_out(save):
    source = save(Detector().state_dict())
    message = r"leave_out='bakbone.' is the beginning of no tensor; they begin with .*backbone"
    assert_refused(Detector(), source, message, leave_out=['bakbone.'])
