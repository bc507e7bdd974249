"""When CUDA graphs are recorded and replayed, and what they return, with graphs that the CPU simulates."""

import copy
import io
import threading
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from fasternet_mm import FasterNet
from fasternet_mm.acceleration import cuda_graphs
from fasternet_mm.acceleration.optimization import optimize

TINY = dict(embed_dim=16, depths=(1, 1, 2, 1))


class SimulatedMemory:
    """Repeats a function by running it and writing its results over those of the recording, as a graph does."""

    def __init__(self, device):
        self.recorded, self.replayed, self.in_turn = 0, 0, False
        memories.append(self)

    def record(self, function):
        assert self.in_turn
        self.recorded += 1
        outputs = function()
        tensors = []
        cuda_graphs._take_apart(outputs, tensors)

        def replay():
            assert self.in_turn
            self.replayed += 1
            anew = []
            with torch.inference_mode(False), torch.no_grad():
                cuda_graphs._take_apart(function(), anew)
                for place, x in zip(tensors, anew, strict=True):
                    place.copy_(x)

        return replay, outputs

    @contextmanager
    def turn(self):
        assert not self.in_turn
        self.in_turn = True
        yield
        self.in_turn = False

    def finish(self):
        assert not self.in_turn


memories: list[SimulatedMemory] = []


def recorded():
    return sum(memory.recorded for memory in memories)


def replayed():
    return sum(memory.replayed for memory in memories)


@pytest.fixture(autouse=True)
def _simulated(monkeypatch):
    memories.clear()
    monkeypatch.setattr(cuda_graphs, 'GraphMemory', SimulatedMemory)
    monkeypatch.setattr(cuda_graphs, 'is_replayable', lambda tensors: bool(tensors) and not torch.is_autocast_enabled())


class Scaled(nn.Module):
    """Computes in Python, so that a graph which did not read its input or weights anew would show."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0), requires_grad=False)

    def forward(self, x, shift=0):
        return dict(scaled=x * self.scale + shift, same=[x])


def part(**options):
    module = Scaled().eval()
    return cuda_graphs.Part(module, module, **options)


def test_a_size_is_recorded_when_it_comes_again_and_replayed_from_then_on():
    graphs, scaled = cuda_graphs.CudaGraphs(), part()
    for size in (3, 4):
        assert graphs.replay(scaled, (torch.ones(size),), {}) is None
    for value in (1.0, 5.0):
        (outputs,) = graphs.replay(scaled, (torch.full((3,), value),), {})
        assert outputs['scaled'].tolist() == [2 * value] * 3
        assert outputs['same'][0].tolist() == [value] * 3
    assert (recorded(), replayed()) == (1, 2)
    assert graphs.replay(scaled, (torch.ones(3),), dict(shift=1)) is None
    assert graphs.replay(scaled, (torch.ones(3, dtype=torch.float64),), {}) is None


def test_results_and_inputs_stay_as_they_are_in_later_calls():
    graphs, scaled = cuda_graphs.CudaGraphs(), part()
    inputs = [torch.full((2,), float(i)) for i in range(6)]
    outputs = [graphs.replay(scaled, (x,), {}) for x in inputs][1:]
    for i, (output,) in enumerate(outputs, start=1):
        assert output['scaled'].tolist() == [2.0 * i] * 2
        assert output['same'][0].tolist() == inputs[i].tolist() == [i] * 2


def test_the_graph_used_longest_ago_makes_room_and_recordings_become_rarer(monkeypatch):
    monkeypatch.setattr(cuda_graphs, 'KEPT_GRAPHS', 2)
    monkeypatch.setattr(cuda_graphs, 'MOST_SIGHTINGS', 8)
    graphs, scaled = cuda_graphs.CudaGraphs(), part()

    def uses_until_replayed(size):
        return next(n for n in range(1, 100) if graphs.replay(scaled, (torch.ones(size),), {}))

    assert [uses_until_replayed(size) for size in (1, 2, 1, 3)] == [2, 2, 1, 2]
    assert [uses_until_replayed(size) for size in (1, 3)] == [1, 1]
    assert [uses_until_replayed(size) for size in (2, 1, 3, 2)] == [4, 8, 8, 8]


def test_sizes_without_a_graph_are_counted_up_to_a_number(monkeypatch):
    monkeypatch.setattr(cuda_graphs, 'KEPT_SIGHTINGS', 2)
    graphs, scaled = cuda_graphs.CudaGraphs(), part()
    for size in (1, 2, 3, 1):
        assert graphs.replay(scaled, (torch.ones(size),), {}) is None
    assert graphs.replay(scaled, (torch.ones(3),), {})


@pytest.mark.parametrize('reason', ['in the capture', 'a result that is no tensor'])
def test_a_part_that_cannot_be_recorded_is_never_tried_again_and_said_once(reason, logged_warnings, monkeypatch):
    def fail(self, function):
        tries.append(1)
        if reason == 'in the capture':
            raise RuntimeError('in the capture\nand more')
        return None, object()

    tries = []
    monkeypatch.setattr(SimulatedMemory, 'record', fail)
    graphs, scaled = cuda_graphs.CudaGraphs(), part()
    for size in (3, 3, 3, 4, 4):
        assert graphs.replay(scaled, (torch.ones(size),), {}) is None
    (warning,) = logged_warnings()
    assert len(tries) == 1
    assert warning.startswith('Scaled runs without a CUDA graph')
    assert (reason if reason == 'in the capture' else 'object is neither a tensor nor a plain value') in warning


def test_rows_are_padded_to_few_numbers_and_the_padding_is_cut_off():
    graphs, scaled = cuda_graphs.CudaGraphs(), part(has_rows=True)
    for rows in range(1, 101):
        replay = graphs.replay(scaled, (torch.full((rows, 2), float(rows)),), {})
        if replay:
            assert torch.equal(replay[0]['scaled'], torch.full((rows, 2), 2.0 * rows))
    sizes = [8, 12, 16, 24, 32, 48, 64, 96, 128]
    assert recorded() == len(sizes)
    assert [cuda_graphs._padded(torch.Size((rows, 2))) for rows in (1, *sizes, 1000)] == [
        (rows, 2) for rows in (8, *sizes, 1024)
    ]


def test_in_another_dtype_inputs_are_converted_on_their_way_in_and_results_on_their_way_out():
    graphs, scaled = cuda_graphs.CudaGraphs(), part(dtype=torch.bfloat16)
    scaled.module.to(torch.bfloat16)
    x = torch.tensor([1 + 2**-12])
    graphs.replay(scaled, (x,), {})
    (outputs,) = graphs.replay(scaled, (x,), {})
    assert outputs['scaled'].dtype == torch.float32
    assert outputs['scaled'].item() == 2


@pytest.mark.parametrize('change', ['in place', 'data', 'parameter', 'hook', 'training', 'autocast'])
def test_a_model_that_is_changed_gives_what_it_is_now(change, monkeypatch):
    graphs, scaled = cuda_graphs.CudaGraphs(), part()
    x = torch.ones(1)
    for _ in range(3):
        graphs.replay(scaled, (x,), {})
    module = scaled.module
    if change == 'in place':
        module.load_state_dict(dict(scale=torch.tensor(3.0)))
        assert graphs.replay(scaled, (x,), {})[0]['scaled'].item() == 3
        return
    if change == 'data':
        module.scale.data = torch.tensor(3.0)
    elif change == 'parameter':
        module.scale = nn.Parameter(torch.tensor(3.0), requires_grad=False)
    elif change == 'hook':
        module.register_forward_hook(lambda *args: None)
    elif change == 'training':
        module.train()
    elif change == 'autocast':
        monkeypatch.setattr(torch, 'is_autocast_enabled', lambda: True)
    assert graphs.replay(scaled, (x,), {}) is None


def test_nothing_is_recorded_on_a_cpu(monkeypatch):
    monkeypatch.undo()
    assert not cuda_graphs.is_replayable([torch.ones(1)])
    assert not cuda_graphs.is_replayable([])
    optimized = optimize(tiny())
    for _ in range(3):
        optimized(torch.randn(1, 3, 32, 32))
    assert not memories


def test_threads_share_a_graph():
    graphs, scaled = cuda_graphs.CudaGraphs(), part()
    graphs.replay(scaled, (torch.ones(4),), {})
    wrong = []

    def use(value):
        for _ in range(100):
            (outputs,) = graphs.replay(scaled, (torch.full((4,), value),), {})
            if outputs['scaled'].tolist() != [2 * value] * 4:
                wrong.append(value)

    threads = [threading.Thread(target=use, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert recorded() == 1


def test_memory_that_does_not_suffice_is_taken_from_graphs_first(monkeypatch):
    optimized = optimize(tiny())
    image = torch.randn(1, 3, 32, 64)
    optimized(image), optimized(image)
    run = FasterNet.forward
    calls = []

    def scarce(self, x):
        calls.append(x)
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return run(self, x)

    optimized.forward.run = scarce
    optimized(torch.randn(1, 3, 64, 64))
    assert len(calls) == 2
    calls.clear()
    with pytest.raises(torch.cuda.OutOfMemoryError):
        optimized(image)


def tiny():
    net = FasterNet(TINY).eval()
    net.init_weights()
    return net


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_an_optimized_backbone_replays_what_it_computes(mode):
    net = tiny()
    optimized = optimize(net)
    with mode():
        for size in (64, 32, 64, 32, 64):
            image = torch.randn(1, 3, size, 64)
            for x, expected in zip(optimized(image), net(image), strict=True):
                assert type(x) is Tensor
                torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-5)
    assert (recorded(), replayed()) == (2, 3)
    with torch.no_grad():
        optimized(torch.randn(1, 3, 32, 64))


@pytest.mark.parametrize('dtype', [None, torch.float64])
def test_copies_and_loaded_models_have_graphs_of_their_own(dtype, monkeypatch):
    monkeypatch.setattr('fasternet_mm.acceleration.optimization.check_dtype', lambda *args: None)
    optimized = optimize(tiny(), dtype)
    image = torch.randn(1, 3, 32, 32)
    expected = [optimized(image) for _ in range(3)][-1]
    file = io.BytesIO()
    torch.save(optimized, file)
    file.seek(0)
    for other in (copy.deepcopy(optimized), torch.load(file, weights_only=False)):
        memories.clear()
        for parameter in other.parameters():
            parameter.mul_(0)
        for _ in range(3):
            assert other(image)[-1].abs().sum() == 0
        assert recorded() == 1
    assert torch.equal(optimized(image)[-1], expected[-1])
