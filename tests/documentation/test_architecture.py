"""docs/architecture.md: what its figures draw, what its tables say, the files that it names, its worked examples."""

import ast
import importlib.util
import re
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch

import fasternet_mm
from fasternet_mm.errors import UserError
from fasternet_mm.models.backbone import ARCHITECTURES
from fasternet_mm.models.multiply_adds import complexity
from fasternet_mm.models.published import CLASSIFIERS


@pytest.fixture(scope='module')
def figures(root):
    """The script that draws the figures, as a module."""
    spec = importlib.util.spec_from_file_location('draw_network', root / 'docs/figures/draw_network.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAPER = {
    't0': (40, (1, 2, 8, 2)),
    't1': (64, (1, 2, 8, 2)),
    't2': (96, (1, 2, 8, 2)),
    's': (128, (1, 2, 13, 2)),
    'm': (144, (3, 4, 18, 3)),
    'l': (192, (3, 4, 18, 3)),
}
"""Channels of the first stage, and blocks of each: arXiv 2303.03667, table 9."""


@pytest.mark.parametrize('arch', PAPER)
def test_the_drawn_network_is_the_papers(figures, arch):
    width, depths = PAPER[arch]
    parts = figures.gather_network(arch)
    assert [part.name for part in parts] == [
        *('embedding', 'stage 1', 'merging', 'stage 2', 'merging', 'stage 3', 'merging', 'stage 4')
    ]
    embedding, *mergings = (part for part in parts if not part.name.startswith('stage'))
    assert embedding.does == '4×4 convolution, stride 4; batch norm'
    assert {part.does for part in mergings} == {'2×2 convolution, stride 2; batch norm'}
    stages = [part for part in parts if part.name.startswith('stage')]
    assert tuple(int(part.does.split()[0]) for part in stages) == depths
    assert [part.shape for part in stages] == [(width * 2**i, 160 // 2**i, 160 // 2**i) for i in range(4)]
    assert [part.stride for part in stages] == [4, 8, 16, 32]
    assert [part.norm for part in stages] == ['norm0', 'norm2', 'norm4', 'norm6']
    assert not any(part.norm for part in (embedding, *mergings))


def test_the_drawn_counts_are_the_networks(figures):
    parts = figures.gather_network('t0')
    counted = complexity(fasternet_mm.FasterNet('t0'), 640, 640)
    assert sum(part.macs for part in parts) == counted.macs
    assert sum(part.parameters for part in parts) == 2_214_900  # timm's features_only, which have no output norms
    assert counted.parameters == 2_214_900 + 2 * (40 + 80 + 160 + 320)


@pytest.fixture(scope='module')
def block():
    return fasternet_mm.FasterNet('t0').eval().requires_grad_(False).stages[0].blocks[0]


def test_the_drawn_block_is_the_papers(figures, block):
    """Section 3: PConv, two PWConvs that widen to twice the channels and back, norm and activation between them."""
    before = [parameter.clone() for parameter in block.parameters()]
    assert figures.gather_block(block) == [
        ('PConv 3×3', 40, 40, 10 * 10 * 9, 10 * 10 * 9),
        ('PWConv 1×1', 40, 80, 40 * 80, 40 * 80),
        ('batch norm', 80, 80, 2 * 80, 0),
        ('GELU', 80, 80, 0, 0),
        ('PWConv 1×1', 80, 40, 80 * 40, 80 * 40),
    ]
    reach = figures.gather_reach(block)
    assert reach.sum(dim=(1, 2)).tolist() == [9] * 10 + [1] * 30  # the T
    assert all(map(torch.equal, before, block.parameters()))


def test_pconv_has_a_sixteenth_of_the_multiply_adds_and_a_quarter_of_the_accesses(figures, block):
    """Section 3: h·w·2·c_p + k²·c_p² numbers against h·w·2·c + k²·c², with c_p = c / 4."""
    macs, accesses = figures.shares(block.spatial_mixing, 40, 160)
    assert macs == 1 / 16
    assert accesses == (160**2 * 2 * 10 + 9 * 10**2) / (160**2 * 2 * 40 + 9 * 40**2)


def test_the_figures_are_drawn(figures, tmp_path, monkeypatch):
    monkeypatch.setattr('sys.argv', ['draw_network.py', '--out-dir', str(tmp_path)])
    figures.main()
    drawn = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sorted(drawn) == ['block.png', 'network.png', 'pconv.png']
    assert max(drawn.values()) < 200_000


# Tables and files


@pytest.fixture(scope='module')
def page(root):
    return (root / 'docs/architecture.md').read_text()


def rows_of(page, head):
    """The cells of the tables whose head is this one; where the first cell is empty, it is that of the row above."""
    rows, inside = [], False
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip('|').split(' | ')]
        inside = line.startswith('|') and (inside or cells == head)
        if inside and cells != head and not line.startswith('|---'):
            rows.append(cells)
    return rows


def test_the_table_of_variants_is_the_codes_and_the_papers(page):
    head = ['`arch`', 'channels of the stages', 'blocks', 'activation', 'parameters', 'GMACs at 224×224']
    rows = rows_of(page, [*head, 'ImageNet-1k top-1'])
    assert rows == [
        [
            f'`{arch}`',
            ', '.join(str(settings['embed_dim'] * 2**i) for i in range(4)),
            ', '.join(map(str, settings['depths'])),
            settings['act'],
            f'{CLASSIFIERS[arch].parameters} M',
            f'{CLASSIFIERS[arch].gmacs:.2f}',
            f'{CLASSIFIERS[arch].top1}',
        ]
        for arch, settings in ARCHITECTURES.items()
    ]


def test_the_way_of_an_image_names_what_is_there(page, root):
    rows = rows_of(page, ['room', 'file', 'there', 'what happens'])
    assert len(rows) > 30
    room = ''
    for named_room, file, names, _ in rows:
        room = named_room or room
        (path,) = re.findall(r'^`(fasternet_mm/[\w/]+\.py)`$', file)
        defined = {node.name for node in ast.parse((root / path).read_text()).body if hasattr(node, 'name')}
        imported = set(dir(importlib.import_module(path[:-3].replace('/', '.')))) if room == 'ops' else set()
        missing = {*re.findall(r'`(\w+)`', names)} - defined - imported
        assert not missing, f'{path} has no {missing}'
        assert names.count('`') >= 2


def test_files_that_the_page_names_exist(page, root):
    """But for those that the worked examples add."""
    added = {'configs/rtmdet_fasternet_m.py', 'fasternet_mm/own_data/layouts/csv_boxes.py'}
    named = set(re.findall(r'`(?:python )?((?:fasternet_mm|configs|docs|tests)/[\w/]+\.\w+)`', page))
    assert len(named) > 30
    assert {name for name in named if not (root / name).is_file()} == added


# Worked examples


@pytest.fixture(scope='module')
def blocks(page):
    """The blocks of code under a heading, in order."""

    def under(heading):
        section = page.split(f'### {heading}\n')[1].split('\n### ')[0]
        return re.findall(r'^```(?:python|diff)\n(.*?)^```', section, re.MULTILINE | re.DOTALL)

    return under


def run(source, like=None, name='docs.architecture'):
    """What a source defines, in the place of a module of the package."""
    place = dict(__name__=like.__name__, __package__=like.__package__) if like else dict(__name__=name)
    exec(compile(source, str(place), 'exec'), place)
    return place


def patched(module, diff):
    """What a module defines after a change, each of whose parts must have exactly one place in it."""
    source = Path(module.__file__).read_text()
    for part in diff.split('@@\n')[1:]:
        before, after = (
            ''.join(line[1:] for line in part.splitlines(keepends=True) if line[0] in kept) for kept in (' -', ' +')
        )
        # A part may end within a line, as a signature does.
        before, after = before.rstrip('\n'), after.rstrip('\n')
        assert source.count(before) == 1, before
        source = source.replace(before, after)
    return run(source, module)


def test_the_worked_operator_is_right(blocks, monkeypatch):
    import mmcv._ext

    from fasternet_mm.ops import focal_loss

    if 'mmcv_ext.py' not in mmcv._ext.__file__:
        pytest.skip('this MMCV has compiled operators')
    source, registration, test = blocks('An operator')
    for name, function in run(Path(focal_loss.__file__).read_text() + source, focal_loss).items():
        monkeypatch.setattr(focal_loss, name, function, raising=False)
    extension = patched(mmcv._ext, registration)
    new = set(extension['__all__']) - set(mmcv._ext.__all__)
    assert new == {'softmax_focal_loss_backward', 'softmax_focal_loss_forward'}
    for name in new:
        monkeypatch.setattr(mmcv._ext, name, extension[name], raising=False)
    run(test)['test_softmax_focal_loss']()


def test_the_worked_config_builds_a_detector(blocks, root, tmp_path, command):
    (source,) = blocks('A config')
    shutil.copytree(root / 'configs/_base_', tmp_path / '_base_')
    (tmp_path / 'rtmdet_fasternet_m.py').write_text(source)
    done = command('complexity', tmp_path / 'rtmdet_fasternet_m.py')
    assert done.returncode == 0, done.stderr
    assert re.search(r'rtmdet_fasternet_m +\| +\d\d\.\d M +\| +\d+\.\d +\| +640x640', done.stdout)


def test_the_worked_layout_gives_the_same_content_as_all_others(blocks, tmp_path, monkeypatch):
    import own_layouts

    from fasternet_mm.own_data.layouts import recognition

    reader, registration, writer = blocks('A layout of annotations')
    module = types.SimpleNamespace(**run(reader, like=recognition))
    monkeypatch.setitem(sys.modules, 'fasternet_mm.own_data.layouts.csv_boxes', module)
    read_own_data = patched(recognition, registration)['read_own_data']
    layouts = patched(own_layouts, writer)
    splits = layouts['made'](masks=False)
    layouts['BOXES']['csv'](tmp_path / 'csv', splits)
    layouts['BOXES']['coco'](tmp_path / 'coco', splits)
    data = read_own_data(str(tmp_path / 'csv'))
    assert (data.layout, [str(problem) for problem in data.problems]) == ('CSV', [])
    assert data.splits == read_own_data(str(tmp_path / 'coco')).splits
    with (tmp_path / 'csv/boxes.csv').open('a') as table:
        table.write('p00000.png,cat,1,2,x,9\n')
    (problem,) = read_own_data(str(tmp_path / 'csv')).problems
    assert re.search(r'boxes\.csv: line \d+ has a side that is not a number', str(problem))


def test_the_worked_format_is_written_and_run(blocks, tmp_path, monkeypatch, segmenter_cfg, segmenter):
    from fasternet_mm.deployment import exporter, formats, runtimes, writers

    for package in ('onnx', 'onnxruntime'):
        pytest.importorskip(package)
    row, writer, opener = map(patched, (formats, writers, runtimes), blocks('An export format'))
    assert list(row['FORMATS']) == list(writer['WRITERS']) == list(opener['OPENERS'])
    monkeypatch.setitem(formats.FORMATS, 'onnx-gz', row['FORMATS']['onnx-gz'])
    monkeypatch.setattr(formats, '_ALL', row['_ALL'])
    monkeypatch.setitem(writers.WRITERS, 'onnx-gz', writer['WRITERS']['onnx-gz'])
    monkeypatch.setitem(runtimes.OPENERS, 'onnx-gz', opener['OPENERS']['onnx-gz'])
    torch.save(dict(state_dict=segmenter.state_dict()), tmp_path / 'weights.pth')
    files = [tmp_path / 'model.gz', tmp_path / 'model.onnx']
    for file in files:
        exporter.export(segmenter_cfg, tmp_path / 'weights.pth', out=file, backbone_alone=True)
    assert files[0].stat().st_size < files[1].stat().st_size
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    packed, plain = (runtimes.open_runtime(str(file))(image) for file in files)
    assert packed.keys() == plain.keys()
    assert all(torch.equal(packed[name], plain[name]) for name in plain)
    files[0].write_bytes(files[0].read_bytes()[:1000])
    with pytest.raises(UserError, match='cannot be read, it is cut short'):
        runtimes.open_runtime(str(files[0]))
