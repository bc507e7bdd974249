"""Steps in parts; a model that refuses too many images at once stands for a GPU."""

import copy
import multiprocessing
from contextlib import contextmanager

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from torch import nn

from fasternet_mm import FasterNet
from fasternet_mm.engine.micro_batches import MicroBatches
from fasternet_mm.engine.runner import StrictRunner


class Mean(BaseModel):
    """A model whose loss is a mean over images, so that parts have to give exactly what the whole gives."""

    def __init__(self, memory=1000):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)
        self.memory = memory
        self.sizes = []

    def forward(self, inputs, data_samples=None, mode='loss'):
        self.sizes.append(len(inputs))
        loss = self.layer(torch.stack(inputs)).square().mean()
        if len(inputs) > self.memory:
            loss.register_hook(out_of_memory)  # in the backward pass, where most memory is taken
        return dict(loss=loss)


def out_of_memory(gradient):
    raise torch.cuda.OutOfMemoryError('CUDA out of memory')


@pytest.fixture
def batch():
    return dict(inputs=[*torch.randn(7, 3, 8, 8)], data_samples=[None] * 7)


def optimized(model):
    return OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))


def test_processes_share_gradients_after_the_last_part_alone(batch):
    model, alone = Mean(), []

    @contextmanager
    def no_sync():
        alone.append(len(model.sizes))
        yield

    model.no_sync = no_sync
    MicroBatches(3).step(model, batch, optimized(model))
    assert alone == [0, 1]  # before the first and the second of three parts


@pytest.mark.parametrize(('at_once', 'sizes'), [(7, [7]), (4, [3, 4]), (3, [2, 2, 3]), (1, [1] * 7)])
def test_parts_change_the_weights_as_the_whole_does(at_once, sizes, batch):
    parted, whole = Mean(), Mean()
    whole.load_state_dict(parted.state_dict())
    wrappers = optimized(parted), optimized(whole)
    micro_batches = MicroBatches(at_once)
    for _ in range(3):
        parted.sizes.clear()
        losses = micro_batches.step(parted, batch, wrappers[0])
        expected = whole.train_step(batch, optim_wrapper=wrappers[1])
        assert parted.sizes == sizes
        torch.testing.assert_close(losses['loss'], expected['loss'].detach())
    torch.testing.assert_close(parted.state_dict(), whole.state_dict())


class Backbone(BaseModel):
    def __init__(self, **norms):
        super().__init__()
        self.backbone = FasterNet(dict(embed_dim=16, depths=(1, 1, 1, 1)), drop_path_rate=0.0, **norms)

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=sum(found.square().mean() for found in self.backbone(torch.stack(inputs))))


@pytest.mark.parametrize(
    'norms', [dict(norm_cfg=dict(type='GN', num_groups=4)), dict(norm_eval=True)], ids=['group norm', 'frozen']
)
def test_without_statistics_of_a_batch_gradients_of_parts_are_those_of_the_larger_batch(norms):
    inputs = [*torch.randn(8, 3, 64, 64)]
    parted = Backbone(**norms).train()
    whole = copy.deepcopy(parted)
    begun = copy.deepcopy(parted.state_dict())
    for model, at_once in ((parted, 2), (whole, 8)):
        MicroBatches(at_once).step(model, dict(inputs=inputs), OptimWrapper(torch.optim.SGD(model.parameters(), lr=1)))
    for name, value in whole.state_dict().items():
        difference = (parted.state_dict()[name] - value).abs().max()
        assert difference <= 1e-5 * max(1, (begun[name] - value).abs().max()), name  # of the gradient, as the rate is 1
    assert any(not torch.equal(begun[name], value) for name, value in whole.state_dict().items())


def test_after_an_out_of_memory_error_the_step_is_repeated_with_half_the_images_at_once(batch, logged_warnings):
    model = Mean(memory=2)
    whole = copy.deepcopy(model)
    whole.memory = 7
    micro_batches = MicroBatches(16)
    wrapper = optimized(model)
    micro_batches.step(model, batch, wrapper)
    assert model.sizes == [7, 2, 2, 3, *[1] * 7]  # whole; in threes, of which the last fails; one by one
    assert micro_batches.images_at_once == 1
    whole.train_step(batch, optim_wrapper=optimized(whole))
    torch.testing.assert_close(model.state_dict(), whole.state_dict())
    assert 'did not hold 7 images at once. From now on it gets 3 at a time' in logged_warnings()[0]
    before = len(logged_warnings())
    micro_batches.step(model, batch, wrapper)
    assert len(logged_warnings()) == before


@pytest.mark.parametrize(('processes', 'least', 'tried'), [(1, 1, [7, 2, 1]), (1, 2, [7, 2, 2]), (2, 1, [7])])
def test_what_cannot_be_halved_is_an_error(processes, least, tried, batch, monkeypatch):
    monkeypatch.setattr('fasternet_mm.engine.micro_batches.get_world_size', lambda: processes)
    model = Mean(memory=0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        MicroBatches(7, least).step(model, batch, optimized(model))
    assert model.sizes == tried


@pytest.mark.parametrize('loop', ['EpochLoop', 'IterLoop'])
def test_a_run_that_runs_out_of_memory_goes_on_with_the_same_steps(loop, tmp_path):
    length = dict(max_epochs=2) if loop == 'EpochLoop' else dict(max_iters=4)
    model = Mean(memory=2)
    runner = StrictRunner(
        model,
        str(tmp_path),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.ones(3, 8, 8))] * 8,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=4,
        ),
        train_cfg=dict(type=f'fasternet_mm.{loop}', images_at_once=4, **length),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        experiment_name=f'{loop} {tmp_path.name}',
        cfg=Config(),
    )
    runner.train()
    assert model.sizes == [4, *[2] * 8]
    assert runner.iter == runner.max_iters == 4


def train_together(rank, folder, batch, at_once):
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2)
    torch.manual_seed(0)
    model = MMDistributedDataParallel(Mean(), device_ids=None, broadcast_buffers=False)
    wrapper = optimized(model)
    images = batch['inputs'][:4] if rank == 0 else batch['inputs'][3:]
    for _ in range(3):
        MicroBatches(at_once).step(model, dict(inputs=images), wrapper)
    torch.save(model.module.state_dict(), folder / f'{rank}.pth')


def test_processes_share_the_gradients_of_all_parts(batch, tmp_path):
    weights = []
    for at_once in (4, 2):
        folder = tmp_path / str(at_once)
        folder.mkdir()
        processes = multiprocessing.get_context('fork')
        started = [processes.Process(target=train_together, args=(rank, folder, batch, at_once)) for rank in range(2)]
        for process in started:
            process.start()
        for process in started:
            process.join(60)
        assert [process.exitcode for process in started] == [0, 0]
        weights += [torch.load(folder / f'{rank}.pth', weights_only=True) for rank in range(2)]
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0])
