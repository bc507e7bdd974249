"""Trainings that were interrupted and go on, against those that were not: the same weights, and the same steps."""

import os
import zlib
from pathlib import Path

import forked_trainings
import pytest
import torch
from forked_trainings import equal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

STOP_AT = 'STOP_AT'
"""The environment variable with the step after which a training is interrupted."""


@HOOKS.register_module()
class RecordedSteps(Hook):
    """Writes the learning rate and a checksum of the images of each step into a file, and ends the training at one."""

    priority = 'LOWEST'

    def after_train_iter(self, runner, data_batch, *args, **kwargs):
        step, checksum = runner.iter + 1, 0
        for image in data_batch['inputs']:
            checksum = zlib.crc32(image.contiguous().numpy(), checksum)
        with open(Path(runner.work_dir, 'steps'), 'a') as file:
            file.write(f'{step} {checksum} {runner.optim_wrapper.get_lr()}\n')
        if step == int(os.environ.get(STOP_AT, 0)):
            os._exit(9)


@pytest.mark.parametrize('seed', ['0', None], ids=['seed', 'no seed'])
@pytest.mark.parametrize('interval', [3, 2], ids=['end of an epoch', 'within an epoch'])
@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('model', ['detector', 'fast_detector', 'segmenter'])
def test_a_training_that_was_interrupted_becomes_what_it_would_have_become(
    model, workers, interval, seed, shapes, tmp_path
):
    """Epochs have three steps; a checkpoint is saved after each ``interval``; the process ends after steps 5 and 8."""
    cfg = getattr(forked_trainings, model)(shapes)
    cfg.train_dataloader.update(num_workers=workers, persistent_workers=workers > 0)
    cfg.model.backbone.drop_path_rate = 0.3
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=interval)
    if model == 'segmenter':
        cfg.train_cfg.update(max_iters=12, val_interval=6)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='RecordedSteps')]
    cfg.dump(tmp_path / 'config.py')

    run, whole = tmp_path / 'run', tmp_path / 'whole'
    chosen = ['--seed', seed] if seed else []
    for stop in (5, 8, None):
        environment = {STOP_AT: str(stop)} if stop else {}
        assert train(run, '--resume', *chosen, environment=environment) == (9 if stop else 0), log_of(run)
    drawn = state(run)['meta']['seed']
    assert train(whole, '--seed', drawn) == 0, log_of(whole)

    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert equal(state(run).get(part), state(whole).get(part)), part
    assert steps(run) == steps(whole)
    assert len(steps(whole)) == 12


def train(folder, *options, environment=None):
    config = folder.parent / 'config.py'
    return forked_trainings.train(
        config, '--work-dir', folder, *options, log=folder.with_suffix('.log'), environment=environment
    )


def log_of(folder):
    return folder.with_suffix('.log').read_text()[-3000:]


def state(folder):
    return torch.load(folder / 'iter_12.pth', map_location='cpu', weights_only=False)


def steps(folder):
    """Learning rate and images of each step; a step that was done twice was the same twice."""
    lines = (folder / 'steps').read_text().splitlines()
    found = dict(line.split(' ', 1) for line in lines)
    assert set(lines) == {f'{step} {rest}' for step, rest in found.items()}
    return found
