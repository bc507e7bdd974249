"""The loop of docs/labeling.md: its commands as they stand there, on a few images and with the least training."""

import json
import re
import shlex
import shutil
import subprocess

import pytest

from fasternet_mm.datasets import shapes
from fasternet_mm.own_data.plan.run_time import RunTime

LEAST = dict(
    train=('--epochs', '1', '--size', '64', '64', '--batch', '4', '--workers', '0'),
    predict=('--cfg-options', 'model.test_cfg.max_per_img=5', 'model.test_cfg.score_thr=0'),
)
"""One pass in small images, and few objects in each: no more than shows that the commands fit together."""


@pytest.fixture
def walk(root):
    """The commands of the document's first two blocks."""
    blocks = re.findall(r'```shell\n(.*?)```', (root / 'docs/labeling.md').read_text(), re.DOTALL)
    return [line.partition('    #')[0].rstrip() for block in blocks[:2] for line in block.splitlines()]


@pytest.mark.slow
def test_label_train_label_correct_train_on(walk, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    time = RunTime(step=1, steps=2, evaluation=1, evaluations=1)
    monkeypatch.setattr('fasternet_mm.own_data.plan.run_time.measure_run_time', lambda *_: time)
    monkeypatch.setattr(shapes, 'SPLITS', {'train': 1, 'val': 8, 'test': 3})
    said = {}
    for line in walk:
        program, *words = shlex.split(line)
        if program == 'python':
            exec(words[1], {})
        elif program == 'labelme':
            correct(tmp_path / words[0], tmp_path / 'shapes/test')
        elif program != 'fasternet-mm':
            subprocess.run(line, shell=True, check=True)
        else:
            words = ['0' if word == '0.5' else word for word in words]  # after one epoch no object is sure
            said[line] = run(*words, *LEAST.get(words[0], ()))
    first, predicted, checked, second = (said[line] for line in said if 'convert' not in line)
    assert re.search(r'\| images +\| \d+ +\| \d+ ', first)
    assert 'labels:     round2/labelme (LabelMe, to correct: 3 images)' in predicted
    assert re.search(r'\| images +\| 11 ', checked)
    assert 'no problems' in checked
    assert re.search(r'start: +work_dirs/round1, epoch 1: (\d+) of \1 tensors', second)
    assert [*(tmp_path / 'work_dirs/round2').glob('epoch_*.pth')]


def correct(folder, truth):
    """What a person does in LabelMe: each file gets the objects that are there in place of those that were found."""
    files = sorted(folder.glob('*.json'))
    assert [file.name for file in files] == ['0000.json', '0001.json', '0002.json']
    assert any(json.loads(file.read_text())['shapes'] for file in files)
    for file in files:
        shutil.copy(truth / file.name, file)
