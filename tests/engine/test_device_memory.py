import pytest
import torch
from mmengine.config import Config

from fasternet_mm.engine import device_memory
from fasternet_mm.engine.device_memory import GIB, Card, card_at_hand, half_precision_of, out_of_memory
from fasternet_mm.engine.mixed_precision import (
    compute_in_float32,
    forget_unused_scaler,
    is_mixed,
    mix_precision,
    precision_of,
)


def on_a_gpu(monkeypatch, generation=7):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda: (3 * GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'Card 5000')
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda: True)  # PyTorch converts where the GPU cannot
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: (generation, 5))
    return card_at_hand()


@pytest.mark.parametrize(('generation', 'half'), [(7, 'float16'), (8, 'bfloat16')])
def test_bfloat16_is_chosen_where_the_gpu_computes_in_it_and_does_not_emulate_it(generation, half, monkeypatch):
    card = on_a_gpu(monkeypatch, generation)
    assert half_precision_of([card]) == half
    assert half_precision_of([card, Card('older', 0, 0, False)]) == 'float16'
    assert str(card) == 'Card 5000, 3.0 of 8.0 GiB free'


def test_without_a_gpu_there_is_no_card():
    assert card_at_hand() is None


@pytest.mark.parametrize(('half', 'scale'), [('float16', 'dynamic'), ('bfloat16', dict(enabled=False))])
def test_precision_goes_into_the_config_and_out_again(half, scale):
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))))
    before = cfg.to_dict()
    assert precision_of(cfg) == 'float32'
    mix_precision(cfg, half)
    assert is_mixed(cfg)
    assert precision_of(cfg) == half
    assert cfg.optim_wrapper.loss_scale == scale
    compute_in_float32(cfg)
    assert cfg.to_dict() == before


def test_out_of_memory_says_what_was_tried_on_what_and_what_to_lower(monkeypatch):
    on_a_gpu(monkeypatch)
    monkeypatch.setattr(device_memory.torch.cuda, 'memory_reserved', lambda: 4 * GIB)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='RandomResize', scale=(1333, 800))]
    loader = dict(dataset=dict(pipeline=pipeline))
    cfg = Config(dict(train_dataloader=loader, optim_wrapper=dict(type='OptimWrapper')))
    assert str(out_of_memory(cfg, 2)) == (
        "the GPU's memory (Card 5000: 8.0 GiB, 1.0 of them taken by other programs) does not hold a training step with "
        '2 images of 800x1333 (H x W) at once in float32: add --amp, give a smaller --batch or, with --data, a smaller '
        '--size, or add --cfg-options model.backbone.with_cp=True; add --resume where there is a checkpoint already'
    )
    mix_precision(cfg, 'bfloat16')
    assert '1 image of 800x1333 (H x W) at once in bfloat16: give a smaller --batch or' in str(out_of_memory(cfg, 1))


def test_a_run_in_bfloat16_goes_on_in_float16_whose_scaler_begins_anew():
    unused = torch.amp.GradScaler('cpu', enabled=False) if hasattr(torch.amp, 'GradScaler') else None
    state = unused.state_dict() if unused else {}
    checkpoint = dict(optimizer=dict(state={}, loss_scaler=state))
    forget_unused_scaler(checkpoint)
    assert checkpoint == dict(optimizer=dict(state={}))
    used = dict(optimizer=dict(loss_scaler=dict(scale=2.0)))
    forget_unused_scaler(used)
    assert used == dict(optimizer=dict(loss_scaler=dict(scale=2.0)))
