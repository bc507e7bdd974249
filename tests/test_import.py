"""What `import fasternet_mm` does to a process: next to nothing. Each script runs in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fasternet_mm import FasterNetClassifier

HERE = Path(__file__).parent
TINY = dict(embed_dim=16, depths=(1, 1, 1, 1))


def run(script, *arguments):
    """The lines that a script prints."""
    path = f'import sys; sys.path.insert(0, {str(HERE)!r})\n'
    command = [sys.executable, '-W', 'ignore', '-c', path + script, *map(str, arguments)]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_no_module_changes_what_belongs_to_the_whole_process_and_each_registered_class_is_found_by_its_name():
    script = """
from global_state import global_state, registered_by
before = global_state()
import importlib, pkgutil
from mmengine.registry import Registry
import fasternet_mm
from fasternet_mm import registry
ours = [value for value in vars(registry).values() if isinstance(value, Registry)]
names = [(registry, name, module) for registry in ours for name, module in registry.modules.items()]
places = [registry.parent.get(f'fasternet_mm.{name}').__module__ for registry, name, _ in names]
for module in pkgutil.walk_packages(fasternet_mm.__path__, 'fasternet_mm.'):
    if module.name not in ('fasternet_mm.__main__', 'fasternet_mm.ops.mmcv_ext'):  # which MMCV loads under its name
        importlib.import_module(module.name)
fasternet_mm.FasterNet('t0', init_cfg=dict(type='Pretrained', checkpoint='fasternet_t0_in1k'))
fasternet_mm.FasterNetClassifier('t0').init_weights()
after = global_state()
print(len(names))
print([name for (_, name, module), place in zip(names, places) if not place.startswith(f'fasternet_mm.{module}')])
print([name for registry in ours for name in registry.module_dict.keys() ^ registry.modules.keys()])
print([name for name in before if before[name] != after[name]])
print(registered_by('fasternet_mm'))
"""
    count, misplaced, unlisted, changed, strangers = run(script)[-5:]
    assert int(count) > 10
    assert misplaced == unlisted == changed == strangers == '[]'


def test_a_plain_config_of_mmdetection_builds_a_detector_with_it(root):
    script = """
import fasternet_mm
from mmdet.utils import register_all_modules
from mmdet.registry import MODELS
from mmengine.config import Config
register_all_modules()
cfg = Config.fromfile(sys.argv[1])
cfg.model.backbone.init_cfg = None
print(type(MODELS.build(cfg.model).backbone))
"""
    lines = run(script, root / 'configs/mask_rcnn_fasternet_t0.py')
    assert lines[-1] == "<class 'fasternet_mm.models.backbone.FasterNet'>"


@pytest.fixture
def classifier(tmp_path):
    torch.save(FasterNetClassifier(TINY).state_dict(), tmp_path / 'net.pth')
    return tmp_path / 'net.pth'


def test_in_mmengines_runner_the_backbone_is_found_by_its_name_and_strict_and_another_network_lenient(
    tmp_path, classifier
):
    torch.save({'conv.weight': torch.ones(1, 1, 1, 1), 'fc.weight': torch.ones(1)}, tmp_path / 'other.pth')
    script = """
import torch
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS
from mmengine.runner import Runner, load_checkpoint
from global_state import global_state

class Other(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.conv, self.new = torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1)

@MODELS.register_module()
class Both(BaseModel):
    def __init__(self, arch, checkpoint, other):
        super().__init__()
        init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
        self.backbone = MODELS.build(dict(type='fasternet_mm.FasterNet', arch=arch, init_cfg=init_cfg))
        self.other = Other(dict(type='Pretrained', checkpoint=other))
    def forward(self, inputs):
        return inputs

before = global_state()
folder, classifier, other = sys.argv[1:]

def initialized(arch):
    model = dict(type='Both', arch=arch, checkpoint=classifier, other=other)
    runner = Runner(model, folder, default_scope='mmengine', experiment_name=str(arch))
    runner._init_model_weights()
    return runner.model

model = initialized(dict(embed_dim=16, depths=(1, 1, 1, 1)))
saved = torch.load(classifier, weights_only=True)['patch_embed.proj.weight']
load_checkpoint(Other(), other)
try:
    initialized('t0')
except Exception as error:
    print(type(error).__name__, error)
print(torch.equal(model.backbone.patch_embed.proj.weight, saved), model.other.conv.weight.item())
print(global_state() == before, [name for name in ('mmdet', 'mmseg') if name in sys.modules])
"""
    refusal, loaded, unchanged = run(script, tmp_path / 'work_dir', classifier, tmp_path / 'other.pth')[-3:]
    assert refusal.startswith('UserError checkpoint')
    assert 'the model is FasterNet-T0' in refusal
    assert (loaded, unchanged) == ('True 1.0', 'True []')
