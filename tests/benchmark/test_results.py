import json

import pytest

from fasternet_mm.benchmark import peak
from fasternet_mm.benchmark.benchmark_plots import check_plot, draw
from fasternet_mm.benchmark.machine import describe_machine
from fasternet_mm.benchmark.results import new_results, read_results, table, write_results
from fasternet_mm.benchmark.timing import Candidate, result_row
from fasternet_mm.errors import UserError
from fasternet_mm.report.plots import write_figure

ROW_KEYS = {
    'name',
    'engine',
    'precision',
    'images',
    'macs',
    'baseline',
    'seconds',
    'p50',
    'p95',
    'images_per_second',
    'ratio',
    'flops_per_second',
    'share_of_peak',
}


@pytest.fixture
def tool(root, monkeypatch, command):
    """Run fasternet-mm benchmark here, and return what it printed."""
    monkeypatch.setitem(peak.SIDE, 'cpu', 64)
    monkeypatch.chdir(root)

    def run(*args):
        done = command('benchmark', *args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_networks_are_compared_shown_stored_and_shown_again(tool, tmp_path):
    file, plot = tmp_path / 'networks.json', tmp_path / 'networks.svg'
    options = '--networks', 'fasternet_t0', '--engines', 'eager', '--batches', 1, 2
    options += '--size', 32, 32, '--size', 32, 64
    printed = tool('networks', *options, '--quick', '--seconds', '0', '--out', file, '--plot', plot)
    results = json.loads(file.read_text())
    assert (results['format_version'], results['kind'], results['rounds']) == (2, 'networks', 3)
    assert {'processor', 'threads', 'cores', 'instructions', 'packages'} <= results['machine'].keys()
    assert len(results['comparisons']) == 4
    for comparison in results['comparisons']:
        assert len(comparison['peak_flops_per_second']['float32']) == 3
        assert [row['name'] for row in comparison['rows']] == ['timm/fasternet_t0', 'fasternet_t0']
        for row in comparison['rows']:
            assert row.keys() >= ROW_KEYS | {'form', 'height', 'width', 'parameters', 'top1', 'top1_source'}
            assert [len(turn) for turn in row['seconds']] == [2, 2, 2]
            assert len(row['ratio']['rounds']) == 3
    assert '| fasternet_t0      | eager  | 2 × 32×64 |' in printed
    assert f'{results["machine"]["threads"]} threads' in printed
    assert '</svg>' in plot.read_text()
    again = tool('show', file, '--plot', tmp_path / 'again.png')
    assert again.splitlines()[:-1] == printed.splitlines()[:-2]
    assert (tmp_path / 'again.png').read_bytes().startswith(b'\x89PNG')


def test_layers_are_compared_and_drawn(tool, tmp_path):
    printed = tool('layers', '--quick', '--seconds', '0', '--shapes', '16x4', '--plot', tmp_path / 'layers.pdf')
    lines = [line for line in printed.splitlines() if '16 × 4²' in line]
    assert [line.split('|')[1].split()[0] for line in lines] == ['Conv', 'GConv', 'DWConv', 'PConv', 'PConv']
    assert (tmp_path / 'layers.pdf').read_bytes().startswith(b'%PDF')


def test_a_table_has_the_columns_of_which_something_is_known():
    facts = dict(height=800, width=1216, detections=7)
    candidates = [Candidate(name, 'eager', prepare=None, facts=facts) for name in ('theirs', 'ours')]
    times = [[[0.2, 0.2], [0.4, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]
    rows = [result_row(candidate, own, times[0]) for candidate, own in zip(candidates, times)]
    head, _, first, second = table('detectors', dict(rows=rows)).splitlines()
    assert [cell.strip() for cell in head.split('|')[1:-1]] == [
        'detector',
        'engine',
        'H × W',
        'detections',
        'p50',
        'p95',
        '× baseline',
    ]
    assert '1.00 (1.00–1.00)' in first
    assert '3.00 (2.50–3.50)' in second


@pytest.mark.parametrize('content', ['no JSON', '[]', '{}', '{"format_version": 2, "kind": "networks"}'])
def test_a_file_of_something_else_is_named(content, tmp_path):
    (tmp_path / 'file.json').write_text(content)
    with pytest.raises(UserError, match=r'file\.json has no results of a benchmark'):
        read_results(tmp_path / 'file.json')


def test_results_of_another_version_are_named(tmp_path):
    results = new_results('layers', describe_machine('cpu'), 3, 0.1) | dict(format_version=1)
    results['comparisons'].append(dict(peak_flops_per_second={}, rows=[]))
    write_results(tmp_path / 'file.json', results)
    with pytest.raises(UserError, match='of another version: measure again'):
        read_results(tmp_path / 'file.json')


@pytest.mark.parametrize(
    ('path', 'kind', 'message'),
    [
        ('a.png', 'training', 'for networks, layers and models, not for training'),
        ('a.txt', 'layers', '--plot a.txt: the name must end in .png'),
    ],
)
def test_a_plot_that_there_is_not_is_named(path, kind, message):
    with pytest.raises(UserError, match=message):
        check_plot(path, kind)


def test_the_plot_has_a_panel_for_each_engine_and_a_line_for_each_fasternet(tmp_path):
    rows = [
        dict(name=name, engine=engine, precision='float32', top1=top1, p50=0.01)
        for name, top1 in (('fasternet_s', 81.3), ('timm/fasternet_s:slicing', 81.3), ('timm/pvt_v2_b1', 78.7))
        for engine in ('eager', 'optimized', 'openvino')
        if engine != 'optimized' or '/' not in name
    ]
    figure = draw('networks', dict(rows=[*rows, dict(rows[0], top1=None), dict(rows[0], precision='bfloat16')]))
    assert [axes.get_title() for axes in figure.axes] == ['eager', 'openvino']
    assert [len(axes.texts) for axes in figure.axes] == [1, 1]  # the peer's name
    lines = [text.get_text() for text in figure.legends[0].texts]
    assert lines == ['FasterNet, ours', 'FasterNet, optimized', 'FasterNet, timm, slicing']
    write_figure(tmp_path / 'plot.svg', figure)
    assert 'pvt_v2_b1' in (tmp_path / 'plot.svg').read_text()
