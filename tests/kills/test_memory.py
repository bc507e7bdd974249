"""The memory of a training's main process, which neither steps nor validations let grow.

STEPS, in the environment, says how many steps; 3,000 by default, which take some minutes.
"""

import os
from pathlib import Path

import forked_trainings
import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

# oneDNN, with which PyTorch computes on CPUs, keeps up to 1,024 kernels, one for each shape that it meets: tens of MB
# that come by and by, and that are no leak. It reads this when it computes first.
os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'] = '32'

STEPS = int(os.environ.get('STEPS', 3000))
INTERVAL = STEPS // 50
"""Steps between two validations, after each of which a checkpoint is saved."""


@HOOKS.register_module()
class MemoryOfSteps(Hook):
    """Writes into a file how many bytes the process holds after each interval."""

    priority = 'LOWEST'

    def after_train_iter(self, runner, *args, **kwargs):
        if (runner.iter + 1) % INTERVAL == 0:
            pages = int(Path('/proc/self/statm').read_text().split()[1])
            with open(Path(runner.work_dir, 'memory'), 'a') as file:
                file.write(f'{pages * os.sysconf("SC_PAGE_SIZE")}\n')


@pytest.mark.parametrize('model', ['detector', 'segmenter'])
def test_the_main_process_does_not_grow(model, shapes, tmp_path):
    cfg = getattr(forked_trainings, model)(shapes)
    cfg.val_dataloader.dataset.indices = 8
    if model == 'detector':
        cfg.train_dataloader.batch_size = 1
        cfg.model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=20)
        cfg.model.train_cfg.rpn.sampler.num = cfg.model.train_cfg.rcnn.sampler.num = 16
        cfg.train_dataloader.dataset.indices = INTERVAL
        cfg.train_cfg.max_epochs = STEPS // INTERVAL
    else:
        cfg.train_cfg.update(max_iters=STEPS, val_interval=INTERVAL)
        cfg.default_hooks.checkpoint.interval = INTERVAL
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='MemoryOfSteps')]
    cfg.dump(tmp_path / 'config.py')
    log = tmp_path / 'log'
    assert forked_trainings.train(tmp_path / 'config.py', '--work-dir', tmp_path / 'run', log=log, seconds=3600) == 0, (
        log.read_text()[-3000:]
    )
    held = [int(line) for line in (tmp_path / 'run/memory').read_text().split()]
    assert len(held) == STEPS // INTERVAL
    begun, ended = held[len(held) // 5], held[-1]
    growth = ended / begun - 1
    print(f'\n{model}: {begun / 2**20:.0f} MiB after a fifth of {STEPS:,} steps, {growth:+.2%} in the rest')
    assert growth <= 0.01
