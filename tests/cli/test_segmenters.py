"""The commands with a segmenter, on a few of the embedded images."""

import cv2
import numpy as np
import pytest
from printed import printed_rows

from fasternet_mm.datasets.shapes import ensure_shapes
from fasternet_mm.files import MARKER


@pytest.fixture(scope='module')
def shapes(root):
    return ensure_shapes(root / 'data' / 'shapes')


@pytest.fixture(autouse=True)
def _in_the_project(root, monkeypatch):
    monkeypatch.chdir(root)


def test_the_same_commands_serve_a_segmenter(fixtures, shapes, tmp_path, command):
    config, work = fixtures / 'fcn_shapes.py', tmp_path / 'work'
    done = command('train', config, '--work-dir', work, '--tensorboard')
    assert done.returncode == 0, done.stderr
    assert 0 < printed_rows(done.stdout)['mIoU'][0] <= 100
    assert len([*work.glob('tensorboard/**/events.*'), *work.glob('*/vis_data/scalars.json')]) == 2
    checkpoint = work / 'iter_2.pth'
    done = command(
        'test',
        config,
        checkpoint,
        '--work-dir',
        work,
        '--out',
        tmp_path / 'maps',
        '--show-dir',
        tmp_path / 'shown',
        '--report',
        tmp_path / 'report.html',
    )
    assert done.returncode == 0, done.stderr
    names = [f'000{number}.png' for number in range(8)]
    maps, truths = (
        np.stack([cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED) for name in names])
        for folder in (tmp_path / 'maps', shapes / 'labels/val')
    )
    assert printed_rows(done.stdout)['aAcc'] == pytest.approx([100 * (maps == truths).mean()], abs=0.01)
    assert (tmp_path / 'maps' / MARKER).is_file()
    assert 'Prediction for 000' in (tmp_path / 'report.html').read_text()
    height, width, _ = cv2.imread(str(tmp_path / 'shown' / '0000.png')).shape
    assert (height > 160, width) == (True, 320)  # with a legend
    cv2.imwrite(str(tmp_path / 'small.png'), np.zeros((20, 40, 3), np.uint8))
    cv2.imwrite(str(tmp_path / '0003.jpg'), np.zeros((64, 64, 3), np.uint8))
    images = shapes / 'images/test/0003.png', tmp_path / '0003.jpg', tmp_path / 'small.png'
    done = command('predict', config, checkpoint, *images, '--out-dir', tmp_path / 'found')
    assert done.returncode == 2
    assert 'small.png: an image of 20x40 pixels (H x W) is too small for FasterNet' in done.stderr.splitlines()[-1]
    assert sorted(path.name for path in (tmp_path / 'found').iterdir()) == [MARKER, '0003-2.jpg', '0003.png', 'labels']
    assert cv2.imread(str(tmp_path / 'found' / 'labels' / '0003-2.png'), cv2.IMREAD_UNCHANGED).shape == (64, 64)
    labels = cv2.imread(str(tmp_path / 'found' / 'labels' / '0003.png'), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (160, 160)
    assert labels.max() < 7


@pytest.mark.slow
def test_upernet_trains_and_is_evaluated_whole_sliding_and_augmented(shapes, tmp_path, command):
    config = 'shapes/upernet_fasternet_t0_shapes'
    few = [f'{split}_dataloader.dataset.indices=2' for split in ('val', 'test')]
    few += ['train_cfg.max_iters=2', 'train_cfg.val_interval=5']
    done = command('train', config, '--work-dir', tmp_path, '--cfg-options', *few)
    assert done.returncode == 0, done.stderr
    checkpoint, figures = tmp_path / 'iter_2.pth', []
    for flags, options in (([], []), (['--tta'], []), ([], ['model.test_cfg.mode=slide'])):
        done = command('test', config, checkpoint, '--work-dir', tmp_path, *flags, '--cfg-options', *few, *options)
        assert done.returncode == 0, done.stderr
        figures.append(printed_rows(done.stdout))
        assert 0 < figures[-1]['mIoU'][0] <= 100
    whole, augmented, sliding = figures
    assert sliding == whole != augmented  # images are as large as the window
    wrong = ('test_dataloader.dataset.metainfo.classes=[background,circle]',)
    for flags in ([], ['--tta']):  # data are checked either way
        done = command('test', config, checkpoint, '--work-dir', tmp_path, *flags, '--cfg-options', *wrong)
        assert done.returncode == 2
        assert 'num_classes=7, but test_dataloader.dataset has 2 classes' in done.stderr
