"""People's own data, from their folder to a model that is trained, tested and applied, by the commands alone."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from mmdet.models.detectors.two_stage import TwoStageDetector
from own_layouts import CLASSES, made, write_coco, write_yolo
from printed import printed_rows

from fasternet_mm.datasets.shapes import ensure_shapes
from fasternet_mm.engine.device_memory import GIB, Card
from fasternet_mm.files import MARKER
from fasternet_mm.own_data.plan.run_time import RunTime

pytestmark = pytest.mark.usefixtures('in_the_project')

MASK_RCNN = 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py'
UPERNET = 'configs/shapes/upernet_fasternet_t0_shapes.py'
SHORT = ('--epochs', '1', '--size', '64', '96')


@pytest.mark.slow
def test_outlines_train_a_model_that_needs_nothing_but_its_work_directory(tmp_path, run):
    write_coco(tmp_path / 'data', made(train=8, val=2))
    said = run('train', MASK_RCNN, '--data', tmp_path / 'data', '--work-dir', tmp_path / 'out', *SHORT)
    assert re.search(r'class traffic light +\| \d', said)
    assert 'evaluated every epoch' in said
    assert '| segm |' in said
    assert cv2.imread(str(tmp_path / 'out/samples.png')) is not None
    config = (tmp_path / 'out/config.py').read_text()
    assert '| segm |' in run('test', tmp_path / 'out')
    assert (tmp_path / 'out/config.py').read_text() == config
    run('predict', tmp_path / 'out', tmp_path / 'data/images/val', '--out-dir', tmp_path / 'found')
    assert (tmp_path / 'found/results.json').is_file()
    assert len([*(tmp_path / 'found').rglob('*.png')]) == 2


def test_boxes_alone_choose_a_model_that_a_cpu_trains_and_another_training_starts_from_it(tmp_path, run):
    write_yolo(tmp_path / 'data', made(train=8, val=2, masks=False))
    options = ('--batch', 4, '--workers', 0, *SHORT)
    said = run('train', '--data', tmp_path / 'data', '--work-dir', tmp_path / 'out', *options)
    assert 'model:         rtmdet_fasternet_t0, for boxes; T0' in said
    assert re.search(r'^time: +about \d+ \w+ \([\d.]+ s a step on this machine, measured; 1 evaluation of', said, re.M)
    assert re.search(r'Epoch\(train\) .* eta: ', said)
    assert '| bbox |' in said
    assert '| bbox |' in run('test', tmp_path / 'out')
    more = ('--dry-run', '--work-dir', tmp_path / 'more', '--start', tmp_path / 'out')
    said = run('train', '--data', tmp_path / 'data', *options, *more)
    assert re.search(rf'start: +{tmp_path}/out, epoch 1: (\d+) of \1 tensors', said)


@pytest.mark.slow
def test_boxes_train_in_two_processes(tmp_path):
    write_yolo(tmp_path / 'data', made(train=8, val=2, masks=False))
    environment = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}', 'PORT': '29618'}
    config = 'faster_rcnn_fasternet_t0'
    own = ('--data', tmp_path / 'data', '--work-dir', tmp_path / 'out', *SHORT)
    options = ('--cfg-options', 'model.backbone.init_cfg=None')
    command = ['bash', 'tools/dist_train.sh', config, '2', *map(str, own), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('of 4 images') == 1  # two each
    assert done.stdout.count('| bbox |') == 1  # by the first process
    assert torch.load(tmp_path / 'out/epoch_1.pth', weights_only=True)['meta']['iter'] == 2
    assert 'segm' not in done.stdout.split('| bbox |')[1]
    content = json.loads((tmp_path / 'out/data/train.json').read_text())
    assert [category['name'] for category in content['categories']] == CLASSES


@pytest.fixture
def crowded_gpu(monkeypatch):
    """A GPU for the plan, with memory for two images at once when training comes; all is computed on the CPU."""

    def loss(self, batch_inputs, batch_data_samples):
        if len(batch_inputs) > 2:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return whole(self, batch_inputs, batch_data_samples)

    whole = TwoStageDetector.loss
    monkeypatch.setattr(TwoStageDetector, 'loss', loss)
    monkeypatch.setattr(
        'fasternet_mm.engine.device_memory.card_at_hand', lambda: Card('A card', 7 * GIB, 8 * GIB, True)
    )
    monkeypatch.setattr('fasternet_mm.own_data.plan.gpu_batch.peak_memory', lambda *_: GIB)
    time = RunTime(step=1, steps=2, evaluation=1, evaluations=1)
    monkeypatch.setattr('fasternet_mm.own_data.plan.run_time.measure_run_time', lambda *_: time)


@pytest.mark.slow
@pytest.mark.usefixtures('crowded_gpu')
def test_a_training_that_runs_out_of_memory_goes_on_with_half_the_images_at_once(tmp_path, run):
    write_coco(tmp_path / 'data', made(train=8, val=2))
    options = ('--work-dir', tmp_path / 'out', *SHORT, '--batch', 4, '--no-amp', '--workers', 0)
    said = run('train', MASK_RCNN, '--data', tmp_path / 'data', *options)
    assert '2 steps of 4 images (as you say)' in said
    assert "The GPU's memory did not hold 4 images at once. From now on it gets 2 at a time" in said
    assert torch.load(tmp_path / 'out/epoch_1.pth', weights_only=True)['meta']['iter'] == 2


@pytest.mark.usefixtures('crowded_gpu')
def test_without_own_data_a_training_that_runs_out_of_memory_ends_with_a_sentence(tmp_path, command, root):
    ensure_shapes(root / 'data/shapes')
    options = ('--no-amp', '--batch', 4, '--cfg-options', 'train_dataloader.dataset.indices=8')
    done = command('train', MASK_RCNN, '--work-dir', tmp_path / 'out', *options)
    assert done.returncode == 2
    assert 'does not hold a training step with 4 images at once in float32: add --amp, give a smaller' in done.stderr


@pytest.mark.slow
def test_label_maps_train_a_segmenter(root, tmp_path, run):
    shapes = ensure_shapes(root / 'data/shapes')
    for kind in ('images', 'labels'):
        for split, count in (('train', 8), ('val', 2)):
            (tmp_path / 'data' / kind / split).mkdir(parents=True)
            for image in sorted((shapes / kind / split).iterdir())[:count]:
                shutil.copy(image, tmp_path / 'data' / kind / split)
    said = run('train', UPERNET, '--data', tmp_path / 'data', '--work-dir', tmp_path / 'out', *SHORT)
    assert 'index PNGs' in said
    trained, tested = printed_rows(said), printed_rows(run('test', tmp_path / 'out'))
    assert 0 < trained['mIoU'][0] <= 100
    assert tested['mIoU'] == trained['mIoU']


def test_a_dry_run_shows_what_would_be_done_and_trains_nothing(tmp_path, run):
    write_coco(tmp_path / 'data', made(train=20, val=0))
    said = run('train', MASK_RCNN, '--data', tmp_path / 'data', '--work-dir', tmp_path / 'out', '--dry-run')
    for line in (
        'schedule: ',
        'start:         random weights',
        'image size:',
        'learning rate:',
    ):
        assert line in said
    counts = [len(json.loads((tmp_path / f'out/data/{part}.json').read_text())['images']) for part in ('train', 'val')]
    assert sum(counts) == 20
    assert f'split:         {counts[1] / 20:.0%} ({counts[1]} of 20 images) for validation, by a hash of each' in said
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {MARKER, 'config.py', 'data', 'samples.png'}
