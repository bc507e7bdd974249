"""Two processes, of which only the first has the weights to start from."""

import multiprocessing
import os

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from torch import nn

from fasternet_mm import FasterNet, FasterNetClassifier
from fasternet_mm.engine.runner import StrictRunner

TINY = dict(embed_dim=16, depths=(1, 1, 1, 1))
SECONDS = 60


class Detector(BaseModel):
    def __init__(self, init_cfg=None):
        super().__init__()
        self.backbone = FasterNet(TINY, init_cfg=init_cfg)
        self.head = nn.Conv2d(128, 4, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.head(self.backbone(inputs)[-1])


def begin(rank, folder, init_cfg, load_from):
    """What a process does before its first step; its weights go to a file."""
    machine = folder / f'machine {rank}'
    machine.mkdir(exist_ok=True)
    os.chdir(machine)
    os.environ['LOCAL_RANK'] = str(rank)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2)
    torch.manual_seed(rank)
    model = Detector(init_cfg)
    runner = StrictRunner(
        model,
        '.',
        load_from=load_from,
        custom_hooks=[dict(type='EMAHook')],
        launcher='pytorch',
    )
    (averaging,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    averaging.before_run(runner)
    runner._init_model_weights()
    runner.load_or_resume()
    torch.save(model.state_dict(), folder / f'{rank}.pth')
    torch.save(averaging.ema_model.module.state_dict(), folder / f'averages {rank}.pth')


def first_weights(*arguments):
    processes = multiprocessing.get_context('fork')
    started = [processes.Process(target=begin, args=(rank, *arguments)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(SECONDS)
    assert [process.exitcode for process in started] == [0, 0]
    return [torch.load(arguments[0] / f'{rank}.pth', weights_only=True) for rank in range(2)]


def assert_equal(*states):
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_random_weights_are_those_of_rank_0(tmp_path):
    assert_equal(*first_weights(tmp_path, None, None))


def test_a_pretrained_backbone_needs_to_be_on_the_machine_of_rank_0_alone(tmp_path):
    (tmp_path / 'machine 0').mkdir()
    torch.manual_seed(7)  # unlike what the processes begin with
    saved = FasterNetClassifier(TINY).state_dict()
    torch.save(saved, tmp_path / 'machine 0/net.pth')
    first, second = first_weights(tmp_path, dict(type='Pretrained', checkpoint='net.pth'), None)
    assert_equal(first, second)
    assert torch.equal(second['backbone.patch_embed.proj.weight'], saved['patch_embed.proj.weight'])


def test_weights_of_a_whole_model_need_to_be_on_the_machine_of_rank_0_alone(tmp_path):
    (tmp_path / 'machine 0').mkdir()
    torch.manual_seed(7)  # unlike what the processes begin with
    saved = Detector().state_dict()
    torch.save(dict(state_dict=saved), tmp_path / 'machine 0/whole.pth')
    first, second = first_weights(tmp_path, dict(type='Pretrained', checkpoint='nowhere.pth'), 'whole.pth')
    assert_equal(first, second)
    assert_equal(second, saved)
    assert_equal(torch.load(tmp_path / 'averages 1.pth', weights_only=True), saved)


@pytest.mark.parametrize(('configured', 'cpus', 'workers'), [(8, 4, 4), (2, 4, 2), (2, 1, 1), (0, 4, 0)])
def test_no_more_processes_load_data_than_there_are_cpus(monkeypatch, configured, cpus, workers):
    monkeypatch.setattr('fasternet_mm.engine.runner.cpus_per_process', lambda: cpus)
    config = dict(
        dataset=torch.utils.data.TensorDataset(torch.zeros(4)),
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=1,
        num_workers=configured,
        persistent_workers=configured > 0,
    )
    assert StrictRunner.build_dataloader(config, seed=0).num_workers == workers
    assert config['num_workers'] == configured
