import pytest
import torch
from held_memory import MIB, hold_and_double

from fasternet_mm.benchmark import training_steps
from fasternet_mm.benchmark.memory import peak_memory
from fasternet_mm.benchmark.training_steps import peak_bytes, training_candidates
from fasternet_mm.errors import UserError


def test_the_peak_counts_what_is_alive_at_a_time():
    assert peak_bytes(lambda: [torch.ones(1000) for _ in range(3)]) == 3 * 4000
    assert peak_bytes(lambda: [torch.ones(1000).sum() for _ in range(3)]) == pytest.approx(4000, abs=64)


def test_steps_are_those_of_both_backbones_and_checkpointing_keeps_less():
    steps = training_candidates('t0', ['checkpointed'], batch=2, size=(64, 32), layouts=['contiguous'])
    candidates = {step.key: step for step in steps}
    names = ['timm/fasternet_t0', 'fasternet_t0']
    modes = ['plain, contiguous', 'checkpointed, contiguous']
    assert list(candidates) == [(name, mode) for name in names for mode in modes]
    assert {step.baseline for step in candidates.values()} == {('timm/fasternet_t0', 'plain, contiguous')}
    for name in names:
        plain, checkpointed = (candidates[name, mode].facts for mode in modes)
        assert checkpointed['activations_bytes'] < plain['activations_bytes']
        assert (plain['height'], plain['width']) == (64, 32)


def test_both_backbones_train_in_the_memory_layout_that_is_named(monkeypatch):
    layouts = []

    def note(maps):
        assert len({x.is_contiguous(memory_format=torch.channels_last) for x in maps[:3]}) == 1
        layouts.append('channels_last' if maps[0].is_contiguous(memory_format=torch.channels_last) else 'contiguous')
        return loss(maps)

    loss = training_steps._loss
    monkeypatch.setattr(training_steps, '_loss', note)
    steps = training_candidates('t0', ['plain'], 2, (64, 64), layouts=['channels_last'])
    assert [step.key for step in steps] == [
        ('timm/fasternet_t0', 'plain, contiguous'),
        ('timm/fasternet_t0', 'plain, channels_last'),
        ('fasternet_t0', 'plain, channels_last'),
    ]
    layouts.clear()
    for step in steps:
        step.prepare()()
    assert layouts == [step.facts['layout'] for step in steps]


@pytest.mark.parametrize(('batch', 'size'), [(2, (16, 64)), (1, (32, 32))])  # 32: norms have one value for each channel
def test_images_that_are_too_small_to_train_on_are_named(batch, size):
    with pytest.raises(UserError, match=f'does not train with --size {size[0]} {size[1]} --batch {batch}, give'):
        training_candidates('t0', ['plain'], batch, size)


def test_memory_is_what_is_held_and_what_a_call_takes():
    assert peak_memory(hold_and_double, ('held_memory',)) == pytest.approx(512 * MIB, rel=0.15)


def test_mixed_precision_and_operators_of_a_step_are_told():
    for step in training_candidates('t0', ['plain'], 2, (64, 64), amp='bfloat16', layouts=['contiguous']):
        assert step.precision == 'bfloat16'
        assert step.facts['operators'] > 200
        step.prepare()()


def test_a_step_begins_without_gradients():
    net = torch.nn.Linear(2, 2)
    net.weight.grad = torch.ones(2, 2)
    training_steps._step(net, lambda: None)
    assert net.weight.grad is None


def test_a_precision_that_the_device_lacks_is_named():
    with pytest.raises(UserError, match='--amp float16: this cpu does not compute in it'):
        training_candidates('t0', ['plain'], 2, (64, 64), amp='float16')
