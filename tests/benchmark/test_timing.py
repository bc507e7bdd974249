from statistics import median

import numpy as np
import pytest
import torch

from fasternet_mm.benchmark import clocks, peak, timing
from fasternet_mm.benchmark.timing import MIN_CALLS, Candidate, compare, ratios, result_row, take_turns
from fasternet_mm.errors import UserError


def candidate(name='net', **settings):
    return Candidate(name, 'eager', prepare=lambda: lambda: [name], **settings)


def test_every_round_visits_all_and_every_other_round_goes_backwards():
    calls = []
    times = take_turns({name: lambda name=name: calls.append(name) for name in 'abc'}, rounds=3, seconds=0)
    assert calls[:: 1 + MIN_CALLS] == list('abccbaabc')
    assert {name: [len(turn) for turn in turns] for name, turns in times.items()} == {n: [MIN_CALLS] * 3 for n in 'abc'}


def test_a_turn_goes_on_until_its_time_is_over():
    (turn,) = take_turns({'fast': lambda: None}, rounds=1, seconds=0.01)['fast']
    assert len(turn) > MIN_CALLS


def test_ratios_are_taken_within_each_round():
    slow_machine = [1.0, 10.0, 1.0]  # in the second round
    baseline = [[2 * slow, 2 * slow, 9] for slow in slow_machine]
    ours = [[1 * slow, 1 * slow, 9] for slow in (1.0, 10.0, 4.0)]
    assert ratios(baseline, ours) == [2, 2, 0.5]
    assert result_row(candidate(), ours, baseline)['ratio'] == dict(rounds=[2, 2, 0.5], median=2, low=1.25, high=2)


def test_a_row_has_percentiles_of_all_calls_and_speeds_of_the_middle_one_of_each_round():
    times = [[0.1, 0.2, 0.3], [0.2, 0.4, 0.9]]
    row = result_row(candidate(images=4, macs=10**9, facts=dict(color='red')), times, peak=[2e10, 1e10])
    every = [call for turn in times for call in turn]
    assert (row['p50'], row['p95']) == pytest.approx((np.percentile(every, 50), np.percentile(every, 95)))
    assert row['images_per_second'] == pytest.approx(4 / median(every))
    assert row['flops_per_second'] == pytest.approx((2e9 / 0.2 + 2e9 / 0.4) / 2)
    assert row['share_of_peak'] == pytest.approx(0.5)
    assert (row['color'], row['ratio'], row['seconds']) == ('red', None, times)


def test_a_comparison_has_a_row_for_each_with_what_its_result_tells():
    baseline = candidate('one')
    other = candidate('other', baseline=baseline.key, result_facts=lambda result: dict(number=len(result)))
    comparison = compare([baseline, other], rounds=2, seconds=0)
    assert [(row['name'], row['baseline']) for row in comparison['rows']] == [('one', None), ('other', 'one eager')]
    assert len(comparison['rows'][1]['ratio']['rounds']) == 2
    assert comparison['rows'][1]['number'] == 1
    assert comparison['peak_flops_per_second'] == {}


def test_matrices_are_multiplied_in_full_each_way(monkeypatch):
    monkeypatch.setitem(peak.SIDE, 'cpu', 64)
    products = peak.gemms('float32', 'cpu')
    assert set(products) == {'mm', '1x1 convolution', 'packed'}
    assert {run().numel() for run in products.values()} == {64 * 64}
    assert peak.gemm_flops('cpu') == 2 * 64**3


def test_the_peak_of_a_round_is_that_of_its_fastest_matrix_product(monkeypatch):
    times = {('float32', 'a'): [[1.0], [0.1]], ('float32', 'b'): [[0.5], [1.0]], ('net', 'eager'): [[1.0], [1.0]]}
    monkeypatch.setattr(timing, 'gemms', lambda *_: dict(a=None, b=None))
    monkeypatch.setattr(timing, 'gemm_flops', lambda device: 10)
    monkeypatch.setattr(timing, 'take_turns', lambda runs, *_: {key: times[key] for key in runs})
    comparison = compare([candidate(macs=3)], rounds=2, seconds=0, peaks=['float32'])
    assert comparison['peak_flops_per_second'] == dict(float32=[20, 100])
    assert comparison['rows'][0]['share_of_peak'] == pytest.approx((6 / 20 + 6 / 100) / 2)


def test_what_cannot_run_is_named_before_anything_is_timed():
    def fail():
        raise RuntimeError('no such operator\nand much more')

    with pytest.raises(UserError, match=r'net does not run with eager, .* no such operator$'):
        compare([Candidate('net', 'eager', prepare=fail)], rounds=1, seconds=0)


def test_each_candidate_is_timed_by_its_own_clock():
    def clock(run):
        run()
        return 7.0

    comparison = compare([candidate(clock=clock)], rounds=2, seconds=0)
    assert comparison['rows'][0]['seconds'] == [[7.0] * MIN_CALLS] * 2


def test_a_gpu_is_timed_by_events_after_it_has_become_idle(monkeypatch):
    calls = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            calls.append('record')

        def synchronize(self):
            calls.append('wait')

        def elapsed_time(self, end):
            return 250.0  # milliseconds

    monkeypatch.setattr(torch.cuda, 'Event', Event)
    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: calls.append('idle'))
    assert clocks.device_clock('cuda')(lambda: calls.append('call')) == 0.25
    assert calls == ['idle', 'record', 'call', 'record', 'wait']
    calls.clear()
    assert clocks.host_seconds(lambda: calls.append('call')) >= 0
    assert calls == ['idle', 'call', 'idle']
