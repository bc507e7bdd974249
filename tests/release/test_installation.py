"""The wheel in the environment that `make release-check` made for it: a minute of training, far from the clone."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from fasternet_mm.version import __version__

WORK_DIR = 'work_dirs/rtmdet_ins_fasternet_t0_shapes'


@pytest.fixture(scope='module')
def binaries(root) -> Path:
    return root / 'build' / 'release' / 'bin'


@pytest.fixture(scope='module')
def run(binaries, tmp_path_factory):
    """Run a program of the environment in a folder of its own, and show and return what it prints."""
    folder = tmp_path_factory.mktemp('user')
    environment = {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}

    def run(program: str, *words: str) -> str:
        print(f'\n$ {program} {" ".join(words)}', flush=True)
        done = subprocess.run([binaries / program, *words], cwd=folder, env=environment, capture_output=True, text=True)
        print(done.stdout + done.stderr)
        assert done.returncode == 0
        return done.stdout

    run.folder = folder
    return run


def test_the_installed_package_is_the_wheels(run, binaries):
    file = run('python', '-c', 'import fasternet_mm; print(fasternet_mm.__file__)').strip()
    assert Path(file).is_relative_to(binaries.parent / 'lib')
    assert run('fasternet-mm', '--version') == f'fasternet-mm {__version__}\n'
    assert 'all is well' in run('fasternet-mm', 'env')


def test_it_trains_tests_and_predicts(run):
    run('fasternet-mm', 'train', 'shapes/rtmdet_ins_fasternet_t0_shapes', '--seed', '0', '--cfg-options',
        'train_cfg.max_epochs=1', 'train_cfg.val_interval=1')  # fmt: skip
    assert '| bbox |' in run('fasternet-mm', 'test', WORK_DIR)
    image = 'data/shapes/images/test/0000.png'
    run('fasternet-mm', 'predict', WORK_DIR, image, '--out-dir', 'predictions', '--score-thr', '0.1')
    assert json.loads((run.folder / 'predictions' / 'results.json').read_text())
    assert list((run.folder / 'predictions').glob('0000.*'))
