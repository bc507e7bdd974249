"""The commands as a person runs them, on a few of the embedded images."""

import json
import shutil
import subprocess
import sys

import cv2
import pytest
import torch
from PIL import Image
from printed import printed_rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fasternet_mm.datasets.shapes import CLASSES, ensure_shapes
from fasternet_mm.files import MARKER

CONFIG = 'shapes/mask_rcnn_fasternet_t0_shapes'
FEW = (
    'train_dataloader.dataset.indices=8',
    'val_dataloader.dataset.indices=4',
    'test_dataloader.dataset.indices=4',
    'train_cfg.val_interval=1',
)


@pytest.fixture(scope='module')
def shapes(root):
    return ensure_shapes(root / 'data' / 'shapes')


@pytest.fixture(autouse=True)
def _in_the_project(root, monkeypatch):
    monkeypatch.chdir(root)


@pytest.fixture(scope='module')
def trained(root, shapes, tmp_path_factory):
    """A work directory after one epoch of a two-epoch training that was cut off there."""
    work = tmp_path_factory.mktemp('work')
    options = (*FEW, 'train_cfg.max_epochs=1')
    command = [sys.executable, '-m', 'fasternet_mm', 'train', CONFIG, '--work-dir', work, '--seed', 3, '--tensorboard']
    command = [*map(str, command), '--cfg-options', *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    return work, done.stdout


def test_training_ends_with_the_coco_table_and_where_everything_is(trained):
    work, printed = trained
    assert 'eta:' in printed
    assert '| bbox' in printed
    assert '| segm' in printed
    assert str(work) in printed.splitlines()[-2]
    assert (work / 'epoch_1.pth').is_file()


def test_training_shows_device_data_and_schedule_first_and_its_environment_config_and_hooks_in_the_log_file_alone(
    trained,
):
    work, printed = trained
    headings = [line.partition(':')[0] for line in printed.splitlines()[:4]]
    assert headings == ['device', 'data', 'schedule', 'log']
    (log,) = work.glob('*/*.log')
    assert str(log) in printed
    for text in ('System environment:', 'Config:', 'Hooks will be executed'):
        assert text in log.read_text()
        assert text not in printed


def test_tensorboard_and_curves_have_the_losses_and_metrics_that_were_logged(trained, tmp_path, command):
    (scalars,) = trained[0].glob('*/vis_data/scalars.json')
    events = EventAccumulator(str(trained[0] / 'tensorboard'))
    events.Reload()
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    for key in ('loss', 'loss_mask', 'lr', 'coco/bbox_mAP', 'coco/segm_mAP_50'):
        logged = [(line['step'], line[key]) for line in lines if key in line]
        assert [(event.step, pytest.approx(event.value)) for event in events.Scalars(key)] == logged
        assert logged
    done = command('plot-log', trained[0], scalars, '--out', tmp_path / 'curves.png')
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / 'curves.png')).shape[1] == pytest.approx(3 * 5.6 * 160, rel=0.02)


def test_training_resumes_where_it_stopped(trained, tmp_path, command):
    work = shutil.copytree(trained[0], tmp_path / 'work')
    done = command('train', CONFIG, '--work-dir', work, '--resume', '--cfg-options', *FEW, 'train_cfg.max_epochs=2')
    assert done.returncode == 0, done.stderr
    assert 'Epoch(train) [1]' not in done.stdout
    state = torch.load(work / 'epoch_2.pth', weights_only=True)
    assert state['meta']['epoch'] == 2
    assert state['meta']['seed'] == 3
    assert {int(value['step']) for value in state['optimizer']['state'].values()} == {4}
    again = command('train', CONFIG, '--work-dir', work, '--resume', '--cfg-options', *FEW, 'train_cfg.max_epochs=2')
    assert again.returncode == 0, again.stderr
    assert 'nothing was left to train: ' in again.stdout
    assert '| bbox' not in again.stdout  # the checkpoint of the last epoch has the figures of the one before


def test_the_same_seed_gives_the_same_weights_and_resume_starts_where_there_is_nothing_to_resume(
    trained, tmp_path, command
):
    options = (*FEW, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=5')
    done = command('train', CONFIG, '--work-dir', tmp_path, '--resume', '--seed', 3, '--cfg-options', *options)
    assert done.returncode == 0, done.stderr
    mine, other = (torch.load(d / 'epoch_1.pth', weights_only=True)['state_dict'] for d in (tmp_path, trained[0]))
    for name, value in mine.items():
        torch.testing.assert_close(value, other[name], msg=name)


def test_evaluation_writes_results_drawings_a_sheet_and_a_report(trained, shapes, tmp_path, command):
    out, drawings, page = tmp_path / 'results.json', tmp_path / 'drawings', tmp_path / 'report.html'
    done_test = done = command(
        'test',
        trained[0],
        '--work-dir',
        tmp_path,
        '--out',
        out,
        '--show-dir',
        drawings,
        '--report',
        page,
        '--cfg-options',
        *FEW,
    )
    assert done.returncode == 0, done.stderr
    assert '| segm' in done.stdout
    assert str(drawings) in done.stdout
    assert {record['image_id'] for record in json.loads(out.read_text())} == {1, 2, 3, 4}
    assert '<svg' in page.read_text()
    assert 'Ground truth of 000' in page.read_text()
    done = command('evaluate', out, shapes / 'annotations/val.json', '--classwise', '--out', tmp_path / 'figures.json')
    assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()
    assert [line.split('|')[1].strip() for line in table[3:5]] == ['bbox', 'segm']
    figures = json.loads((tmp_path / 'figures.json').read_text())
    assert set(figures['segm']['classes']) == set(CLASSES)
    tested = printed_rows(done_test.stdout)
    assert tested.keys() == figures.keys()
    for task, row in tested.items():
        assert row[0] == pytest.approx(figures[task]['mAP'], abs=0.0005)
    assert sorted(path.name for path in drawings.iterdir()) == [MARKER, *(f'000{i}.png' for i in range(4)), 'sheet.png']
    assert cv2.imread(str(drawings / '0000.png')).shape == (160, 320, 3)


def test_prediction_draws_files_and_folders_and_goes_on_after_a_broken_one(
    trained, fixtures, shapes, tmp_path, command
):
    folder = tmp_path / 'images'
    folder.mkdir()
    shutil.copy(fixtures / '000000000785.jpg', folder)
    (folder / 'broken.jpg').write_bytes(b'no image')
    image = shapes / 'images/test/0000.png'
    done = command('predict', trained[0], folder, image, '--out-dir', tmp_path / 'found')
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith('fasternet-mm predict: error: 1 of 3 images were left out')
    assert 'broken.jpg is not an image' in last
    found = sorted(path.name for path in (tmp_path / 'found').iterdir())
    assert found == [MARKER, '0000.png', '000000000785.jpg', 'results.json']
    assert cv2.imread(str(tmp_path / 'found' / '000000000785.jpg')).shape == (425, 640, 3)
    records = json.loads((tmp_path / 'found' / 'results.json').read_text())
    assert {record['image_id'] for record in records} == {785, 0}


@pytest.mark.slow
def test_an_exported_file_is_tested_and_applied_in_the_checkpoints_place(trained, shapes, tmp_path, command):
    (work, stdout), file, found = trained, tmp_path / 'm.onnx', tmp_path / 'found'
    for args in (
        ('export', work, '--format', 'onnx', '--out', file),
        ('predict', CONFIG, file, shapes / 'images/test/0003.png', '--out-dir', found),
        ('predict', file, shapes / 'images/test/0003.png', '--out-dir', tmp_path / 'alone'),
        ('predict', work, shapes / 'images/test/0003.png', '--out-dir', tmp_path / 'trained'),
    ):
        done = command(*args)
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in found.iterdir()) == [MARKER, '0003.png', 'results.json']
    assert (tmp_path / 'alone/results.json').read_bytes() == (found / 'results.json').read_bytes()
    ours, exported = (json.loads((folder / 'results.json').read_text()) for folder in (tmp_path / 'trained', found))
    assert len(ours) > 10
    assert [record['score'] for record in exported] == pytest.approx([record['score'] for record in ours], abs=1e-4)
    assert exported[0]['bbox'] == pytest.approx(ours[0]['bbox'], abs=0.01)
    done = command('test', CONFIG, file, '--work-dir', tmp_path / 'work', '--cfg-options', *FEW)
    assert done.returncode == 0, done.stderr
    tables = [[line for line in text.splitlines() if line.startswith('|')] for text in (stdout, done.stdout)]
    assert tables[0] == tables[1]


def test_true_label_maps_without_a_predicted_one_are_told(tmp_path, command):
    for name in ('found/0.png', 'truth/0.png', 'truth/1.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new('L', (32, 32), 1).save(tmp_path / name)
    done = command('report', tmp_path / 'found', tmp_path / 'truth', '--out', tmp_path / 'a.html')
    assert f'1 of 2 label maps in {tmp_path}/truth do not count: {tmp_path}/found has no 1.png' in done.stdout
    assert (tmp_path / 'a.html').exists()


WRONG = [
    ('train', [CONFIG, '--dry-run'], '--group, --fast and --accurate are for --data DIR: name the folder'),
    ('train', [CONFIG, '--data', 'nowhere', '--work-dir', '{work}'], 'nowhere does not exist: name the folder'),
    ('train', [CONFIG, '--data', 'docs', '--work-dir', '{work}'], 'but no COCO, VIA or LabelMe JSON, Pascal VOC XML'),
    ('train', [CONFIG, '--data', 'docs', '--epochs', '0'], '0: give a whole number, at least 1'),
    ('train', [CONFIG, '--data', 'docs', '--ignore-label', '256'], '256: give a label'),
    ('train', [CONFIG, '--data', 'docs', '--size', '20', '100'], '20: give height and width'),
    ('train', ['configs/mask_rcn_fasternet_s.py'], "did you mean 'configs/mask_rcnn_fasternet_s.py'"),
    ('train', ['docs'], 'docs is a folder, not a config: to train on the images in it, give --data docs'),
    ('train', ['mask_rcn_fasternet_s'], "did you mean 'mask_rcnn_fasternet_s'"),
    ('train', ['mask_rcnn_fasternet_s'], 'data/coco/train2017 does not exist'),
    (
        'train',
        [CONFIG, '--work-dir', '{work}', '--cfg-options', 'model.backbone.arch=t9'],
        "'t9' is unknown: use one of t0, t1, t2, s, m, l",
    ),
    (
        'train',
        [CONFIG, '--work-dir', '{work}', '--cfg-options', 'model.backbone.out_indices=(0,7)'],
        'out_indices=(0, 7)',
    ),
    ('train', [CONFIG, '--cfg-options', 'model.bakbone.arch=t0'], "did you mean 'backbone'"),
    ('train', [CONFIG, '--work-dir', '{file}/inside'], 'cannot be written'),
    ('train', [CONFIG, '--resume', 'nowhere.pth'], 'nowhere.pth does not exist'),
    ('train', [CONFIG, '--resume', '{file}', '--work-dir', '{work}'], 'is broken, or no checkpoint'),
    ('test', [CONFIG, 'nowhere.pth'], 'nowhere.pth does not exist'),
    ('test', [CONFIG, '{file}', '--work-dir', '{work}'], 'is broken, or no checkpoint'),
    ('test', [CONFIG, '{file}', '--tta', '--work-dir', '{work}'], 'has no tta_model and tta_pipeline'),
    ('test', [CONFIG, '{file}', '--report', '{file}/a.html', '--work-dir', '{work}'], 'is broken, or no checkpoint'),
    ('evaluate', ['{file}', 'nowhere.json'], 'nowhere.json is not a file'),
    ('evaluate', ['{file}', '{file}'], 'is not JSON'),
    ('plot-log', ['{file}', '--out', '{work}/a.png'], 'has no whole line of scalars'),
    ('plot-log', ['tests', '--out', '{work}/a.png'], 'tests has no scalars'),
    ('plot-log', ['tests', '--out', '{work}/a.txt'], 'must end in .png, .svg, .pdf'),
    ('report', ['{file}', 'nowhere.json'], 'nowhere.json does not exist'),
    ('report', ['{file}', 'tests'], 'do not belong together'),
    ('report', ['configs', 'tests'], 'configs has no label maps'),
    ('report', ['{file}', '{file}', '--out', '{file}/a.html'], 'cannot be written'),
    ('test', [CONFIG], 'alone is not enough: add a checkpoint'),
    ('test', ['docs/images'], 'docs/images has no config'),
    ('test', ['docs/image'], "docs/image does not exist: did you mean 'docs/images'?"),
    ('predict', [CONFIG, '{file}', 'nowhere.jpg', '--out-dir', '{work}'], 'nowhere.jpg does not exist'),
    ('predict', [CONFIG, '{file}'], 'is a config: give its checkpoint and then images'),
    ('predict', [CONFIG, '{file}', 'x.jpg', '--score-thr', '45'], '45: give a number from 0 to 1, as in 0.5'),
    ('predict', ['nowhere', '{file}'], 'nowhere does not exist'),
    ('predict', ['{file}', 'tests/fixtures', '--out-dir', '{work}'], 'is broken, or no checkpoint'),
    ('predict', ['tests', 'tests/fixtures', '--out-dir', '{work}'], 'tests has no checkpoint'),
    ('predict', [CONFIG, '{file}', 'tests/fixtures', '--out-dir', 'tests'], 'is in the folder of the results'),
    ('export', [CONFIG, '--format', 'onnx', '--out', '{work}/m.onnx'], 'alone is not enough'),
    ('complexity', ['rtmdet_fasternet_t0', '--proposals', '300'], 'is for two-stage detectors, and the model of'),
    ('test', ['rtmdet_ins_fasternet_t0', '{file}', '--tta'], 'cannot merge masks'),
    ('complexity', ['configs/_base_/runtime.py'], 'the config has no model'),
    (
        'benchmark',
        ['networks', '--networks', 'timm/fasternet_z', '--engines', 'eager'],
        "mean 'timm/fasternet_",
    ),
    ('benchmark', ['networks', '--engines', 'tensorrt'], 'engine tensorrt is unknown: use eager'),
    ('benchmark', ['layers', '--shapes', '40x7'], 'shape 40x7: give CHANNELSxSIDE as in 96x56'),
    ('benchmark', ['layers', '--out', '{file}/a.json'], 'cannot be written'),
    ('benchmark', ['training', '--plot', 'a.png'], '--plot is for networks, layers and models, not for training'),
    ('benchmark', ['detectors', CONFIG, 'nowhere.pth', '--size', '64', '64', '--quick'], 'nowhere.pth does not exist'),
    ('benchmark', ['show', '{file}'], 'has no results of '),
    ('predict', [CONFIG, '{file}', 'x.jpg', '--out-dir', '{work}', '--no-optimize', '--bf16'], 'not allowed with'),
    ('test', [CONFIG, '{file}', '--score-thr', '0,5'], '0,5: give a number from 0 to 1'),
    ('test', [CONFIG, '{file}', '--no-optimize', '--bf16'], 'not allowed with argument --no-optimize'),
    ('test', [CONFIG, '{file}', '--bf16', '--fp16'], 'not allowed with argument --bf16'),
    ('test', [CONFIG, 'nowhere.onnx', '--work-dir', '{work}'], 'nowhere.onnx does not exist'),
    ('export', [CONFIG, '{file}', '--format', 'onnx', '--out', '{work}/m.onnx'], 'is broken, or no checkpoint'),
    ('export', [CONFIG, '{file}', '--format', 'onnx', '--out', 'm.pt'], '--format onnx writes .onnx files'),
    ('check-data', ['docs', '--model', '{file}', '--suspicion', '5'], '5: give a number from 0 to 1'),
    ('check-data', ['nowhere'], 'nowhere does not exist: name the folder'),
    ('check-data', ['tests/fixtures'], 'but no COCO, VIA or LabelMe JSON, Pascal VOC XML'),
    ('check-data', ['tests/fixtures', '--kind', 'label-maps'], 'but no PNG label maps in a folder'),
    ('check-data', ['tests/fixtures', '--json', '{file}/a.json'], 'cannot be written'),
]


@pytest.fixture
def refuse(command):
    def refuse(name, *args):
        """The one line that a command ends with."""
        done = command(name, *args)
        assert done.returncode == 2
        (error,) = done.stderr.strip().splitlines()
        assert error.startswith(f'fasternet-mm {name}')
        return error

    return refuse


@pytest.mark.parametrize(('name', 'args', 'message'), WRONG)
def test_a_mistake_gets_one_line_and_status_2_and_leaves_nothing(name, args, message, tmp_path, refuse):
    (tmp_path / 'file').write_text('something else')
    args = [arg.format(file=tmp_path / 'file', work=tmp_path / 'work') for arg in args]
    assert message in refuse(name, *args)
    assert [path.name for path in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize(
    ('flags', 'added'),
    [
        ([], [dict(dtype=None)]),
        (['--bf16'], [dict(dtype='bfloat16')]),
        (['--fp16'], [dict(dtype='float16')]),
        (['--no-optimize'], []),
    ],
)
def test_evaluation_is_of_an_optimized_model_unless_told_otherwise(flags, added, monkeypatch, command):
    class Built(Exception):
        pass

    def build_runner(cfg, *args, **options):
        raise Built(cfg)

    monkeypatch.setattr('fasternet_mm.engine.runner.build_runner', build_runner)
    with pytest.raises(Built) as built:
        command('test', CONFIG, 'net.pth', *flags)
    hooks = built.value.args[0].get('custom_hooks', [])
    assert hooks == [dict(type='fasternet_mm.OptimizeHook', **options) for options in added]


def test_training_that_cannot_be_compiled_ends_before_it_starts(shapes, tmp_path, monkeypatch, refuse):
    monkeypatch.setattr(torch, 'compile', lambda function, **options: 1 / 0)
    error = refuse('train', CONFIG, '--compile', '--work-dir', str(tmp_path / 'work'))
    assert 'torch.compile does not work here (division by zero)' in error
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('option', ['--tensorboard', '--logger tensorboard mlflow'])
def test_a_tracker_that_is_not_installed_is_asked_for(tmp_path, refuse, monkeypatch, option):
    package = option.split()[-1].strip('-')
    monkeypatch.setitem(sys.modules, package, None)
    error = refuse('train', CONFIG, *option.split(), '--work-dir', str(tmp_path / 'work'))
    assert error.endswith(f"--logger {package} needs the package {package}: pip install 'fasternet-mm[{package}]'")
    assert not list(tmp_path.iterdir())


def test_curves_that_cannot_be_written_are_said(tmp_path, refuse):
    scalars = tmp_path / 'scalars.json'
    scalars.write_text('{"lr": 1, "loss": 2, "step": 1}')
    assert 'cannot be written (' in refuse('plot-log', str(scalars), '--out', str(scalars / 'curves.svg'))
