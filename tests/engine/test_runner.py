import copy
import io
import re

import pytest
import torch
from global_state import global_state
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.model.weight_init import PretrainedInit
from mmengine.registry import MODELS
from torch import nn

from fasternet_mm import FasterNet
from fasternet_mm.engine.runner import StrictRunner, build_model, check_compiler, check_writable
from fasternet_mm.errors import UserError
from fasternet_mm.files import write_atomically

TINY = dict(embed_dim=16, depths=(1, 1, 1, 1))


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / 'epoch_1.pth'
    write_atomically(target, b'old')

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr('os.fsync', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, b'new')
    assert target.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [target]


class Mean(BaseModel):
    def __init__(self, init_cfg=None):
        super().__init__()
        self.backbone = FasterNet(TINY, init_cfg=init_cfg)

    def forward(self, inputs, mode='tensor'):
        mean = self.backbone(torch.stack(inputs))[-1].mean()
        return dict(loss=mean) if mode == 'loss' else mean


@pytest.fixture
def training(tmp_path):
    torch.save(FasterNet(TINY).state_dict(), tmp_path / 'net.pth')
    return StrictRunner(
        Mean(dict(type='Pretrained', checkpoint=str(tmp_path / 'net.pth'))),
        str(tmp_path / 'work_dir'),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.ones(3, 32, 32))] * 2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=2,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        experiment_name=tmp_path.name,
    )


def test_after_a_training_all_that_belongs_to_the_whole_process_is_as_before(training, tmp_path):
    before = global_state()
    training.train()
    assert global_state() == before
    assert before['initializers']['Pretrained'] is PretrainedInit
    assert {'epoch_1.pth', 'last_checkpoint'} <= {path.name for path in (tmp_path / 'work_dir').iterdir()}


def test_without_a_gpu_no_loader_pins_memory_which_pytorch_would_warn_of(monkeypatch):
    asked = dict(dataset=[1, 2], batch_size=1, sampler=dict(type='DefaultSampler'), pin_memory=True)
    monkeypatch.setattr('fasternet_mm.engine.runner.device_of_choice', lambda: 'cpu')
    assert not StrictRunner.build_dataloader(asked).pin_memory
    monkeypatch.setattr('fasternet_mm.engine.runner.device_of_choice', lambda: 'cuda')
    assert StrictRunner.build_dataloader(asked).pin_memory


def test_training_computes_on_the_cpu_where_mmengine_would_take_a_macs_gpu(training, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.get_device', lambda: 'mps')
    model = training.wrap_model(None, Mean())
    assert {parameter.device.type for parameter in model.parameters()} == {'cpu'}


def test_an_interrupted_checkpoint_leaves_the_old_one_and_nothing_else(training, tmp_path, monkeypatch):
    training.train()
    (tmp_path / 'work_dir/epoch_1.pth').write_bytes(b'old')
    before = sorted((tmp_path / 'work_dir').iterdir())

    def interrupted(checkpoint, file):
        file.write(b'half')
        raise KeyboardInterrupt

    save = torch.save
    monkeypatch.setattr('torch.save', interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.save_checkpoint(training.work_dir, 'epoch_1.pth', save_param_scheduler=False)
    monkeypatch.setattr('torch.save', save)
    monkeypatch.setattr('os.fsync', lambda descriptor: interrupted(None, io.BytesIO()))
    with pytest.raises(KeyboardInterrupt):
        training.save_checkpoint(training.work_dir, 'epoch_1.pth', save_param_scheduler=False)
    assert (tmp_path / 'work_dir/epoch_1.pth').read_bytes() == b'old'
    assert sorted((tmp_path / 'work_dir').iterdir()) == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'file.inside cannot be written \(Not a directory\)'):
        check_writable(str(tmp_path / 'file' / 'inside'))


@pytest.mark.parametrize(('compile', 'expected'), [(None, 0), (False, 0), (True, 1), (dict(dynamic=True), 1)])
def test_the_backbone_alone_is_compiled_and_keeps_its_names(compile, expected, monkeypatch):
    calls = []
    compiler = torch.compile

    def counting(function, **options):
        calls.append(options)
        return compiler(function, backend='aot_eager', fullgraph=True)

    monkeypatch.setattr(torch, 'compile', counting)
    runner = StrictRunner.__new__(StrictRunner)
    runner.cfg = Config(dict(compile=compile))
    runner.model = nn.Module()
    runner.model.backbone = FasterNet(TINY, drop_path_rate=0.0)
    runner.model.backbone.init_weights()
    eager = copy.deepcopy(runner.model)
    runner._maybe_compile('train_step')
    assert calls == [compile if isinstance(compile, dict) else {}] * expected
    assert runner.model.state_dict().keys() == eager.state_dict().keys()
    image = torch.randn(2, 3, 64, 64)
    for model in (eager, runner.model):
        sum(found.square().mean() for found in model.backbone.train()(image)).backward()
    for mine, other in zip(runner.model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_a_compiler_that_does_not_work_is_named_with_what_it_needs(monkeypatch):
    def without_compiler(function, **options):
        def run(x):
            raise RuntimeError('No working C++ compiler found in g++\nand more')

        return run

    monkeypatch.setattr(torch, 'compile', without_compiler)
    with pytest.raises(UserError, match=r'does not work here \(No working C\+\+ compiler found in g\+\+\): it needs'):
        check_compiler({})


def test_a_checkpoint_is_read_on_the_cpu_whatever_device_mmengine_asks_for(tmp_path):
    saved = FasterNet(TINY)
    torch.save(dict(state_dict=saved.state_dict(), optimizer=torch.ones(2)), tmp_path / 'net.pth')
    runner = StrictRunner.__new__(StrictRunner)
    runner.cfg, runner._hooks = Config(dict(resume=True)), []
    runner.model = FasterNet(TINY)
    checkpoint = runner.load_checkpoint(str(tmp_path / 'net.pth'), map_location='meta')
    assert checkpoint['optimizer'].device.type == 'cpu'
    assert torch.equal(runner.model.patch_embed.proj.weight, saved.patch_embed.proj.weight)


@MODELS.register_module(name='WithoutItsPackage')
def without_its_package(**_):
    """As MMSegmentation's TIMMBackbone is without timm."""
    raise RuntimeError('timm is not installed')


@pytest.mark.parametrize(
    ('model', 'reason'),
    [
        (dict(type='mmdet.Masc'), 'KeyError: .*Masc is not in the'),
        (dict(type='mmdet.FPN', in_channels=[16], out_channels=8, num_outs=1, depth=3), 'TypeError: .*depth'),
        (dict(type='fasternet_mm.FasterNet', arch='x'), "arch='x' is unknown: use one of t0"),
        (dict(type='WithoutItsPackage'), 'RuntimeError: timm is not installed'),
    ],
)
def test_a_model_that_cannot_be_built_is_told_in_a_sentence(model, reason):
    with pytest.raises(UserError, match=f"the config's model cannot be built.*{reason}"):
        build_model(Config(dict(model=model)))


@pytest.mark.parametrize(
    ('config', 'change', 'option'),
    [
        ('rtmdet_fasternet_t0', dict(backbone=dict(arch='t1')), 'model.neck.in_channels=[128,256,512]'),
        ('rtmdet_fasternet_t0', dict(backbone=dict(out_indices=(1, 2))), 'model.neck.in_channels=[80,160]'),
        ('upernet_fasternet_t0', dict(backbone=dict(arch='s')), 'model.decode_head.in_channels=[128,256,512,1024]'),
    ],
)
def test_a_neck_for_another_variant_is_told_in_a_sentence(root, config, change, option):
    cfg = Config.fromfile(root / f'configs/{config}.py')
    cfg.merge_from_dict(dict(model=change))
    with pytest.raises(UserError, match=re.escape(f'set it with --cfg-options {option}')):
        build_model(cfg)


@MODELS.register_module(name='NeckOfTheUsers')
class NeckOfTheUsers(torch.nn.Module):
    """Takes the last map alone."""

    def __init__(self, in_channels):
        super().__init__()
        self.in_channels = in_channels


def test_a_neck_of_the_users_may_be_for_a_part_of_the_maps(root):
    cfg = Config.fromfile(root / 'configs/rtmdet_fasternet_t0.py')
    cfg.model.neck = dict(type='NeckOfTheUsers', in_channels=[320], _scope_='mmengine')
    assert build_model(cfg).neck.in_channels == [320]
