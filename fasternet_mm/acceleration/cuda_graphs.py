"""CUDA graphs: the launches of a network's part, recorded once for each size of input and repeated in one call.

At batch 1 a small network waits for Python and for hundreds of launches. A graph repeats all of them at the cost of
one, from the same memory into the same memory: inputs are copied there, and results are copied out before anything else
runs, so that they belong to the caller. See https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..models.backbone import is_compiling

KEPT_GRAPHS = 32
"""Graphs of a model that are kept; the one used longest ago goes first. For the five parts of a Mask R-CNN these are
some six sizes of image."""

KEPT_SIGHTINGS = 256
"""Sizes without a graph whose uses are counted; the one used longest ago is forgotten first."""

MOST_SIGHTINGS = 64
"""Uses of a size, at most, before it gets a graph. Two are enough at first, and each time that a graph has to make
room twice as many, up to this number: recording takes as long as some dozen runs, which graphs that are soon replaced
would not earn back."""

WARM_UPS = 3
"""Runs before a recording, in which libraries choose kernels and allocate what they keep; as in PyTorch's
documentation."""

FEWEST_ROWS = 8
"""Rows, as of RoIs, to which fewer are padded; more are padded to the next of 12, 16, 24, 32, 48, …."""


@dataclass(eq=False)
class Part:
    """What is recorded: a function from tensors to tensors that asks nothing of the device and draws nothing.

    Tensors may be nested in tuples, lists and dicts, among numbers, strings and None.

    Attributes:
        run: the function.
        module: whose weights it reads.
        dtype: to which floating inputs are converted, and whose results become float32. None: nothing is converted.
        has_rows: whether the first dimension of all inputs and outputs counts rows that are computed one by one, as of
            RoIs. Their number, which is another for each image, is padded to one of few.
    """

    run: Callable[..., Any]
    module: nn.Module
    dtype: torch.dtype | None = None
    has_rows: bool = False


class NotReplayable(Exception):
    """A graph cannot take this input or give this output."""


class GraphMemory:
    """What the graphs on one GPU share: a private memory pool, and the stream on which they are recorded.

    Sharing is safe since graphs take turns and their results are copied out within the turn.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)
        self.last_turn = torch.cuda.Event()

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """How to repeat a function, and what it returned, which each repetition overwrites."""
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            self.stream.wait_stream(current)
            with torch.cuda.stream(self.stream):
                for _ in range(WARM_UPS):
                    function()
            current.wait_stream(self.stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads, as those of a data loader, may allocate meanwhile. PyTorch's context leaves its stream the
            # current one where a capture fails, the outer context does not.
            with (
                torch.cuda.stream(current),
                torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode='thread_local'),
            ):
                outputs = function()
        return graph.replay, outputs

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One graph runs at a time, whatever the streams of those who call it."""
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(self.last_turn)
        yield
        self.last_turn.record(stream)

    def finish(self) -> None:
        """Wait until no graph runs, before one is freed."""
        self.last_turn.synchronize()


class CudaGraphs:
    """The graphs of one model, which its parts share. Threads may call it together.

    Copies of a model, and a model that is loaded, start without graphs.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._recordings: OrderedDict[Hashable, _Recording] = OrderedDict()
        self._sightings: OrderedDict[Hashable, int] = OrderedDict()
        self._wanted_sightings = 2
        self._failed: set[Part] = set()
        self._memories: dict[torch.device, GraphMemory] = {}

    def __reduce__(self) -> tuple[type[CudaGraphs], tuple[()]]:
        return type(self), ()

    def replay(self, part: Part, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any] | None:
        """What a part gives, as a tuple of one; or None where it must be run as it is.

        That is on a CPU, within autocast, a capture of the caller's, compilation or tracing, in training mode, until a
        size has come again, and after the first recording that failed, as it does with hooks on a module of the part;
        the log has one warning then.
        """
        tensors: list[Tensor] = []
        try:
            structure = _take_apart((inputs, options), tensors)
        except NotReplayable:
            return None
        if part in self._failed or part.module.training or not is_replayable(tensors):
            return None
        rows = len(tensors[0]) if part.has_rows else None
        if rows is not None and any(len(x) != rows for x in tensors):
            return None
        shapes = tuple(_padded(x.shape) if part.has_rows else x.shape for x in tensors)
        key = part, structure, shapes, tuple(x.dtype for x in tensors), tensors[0].device
        with self._lock:
            recording = self._recordings.get(key)
            if recording is not None and not recording.is_valid():
                self.clear()
                recording = None
            if recording is None:
                if not self._has_come_often(key):
                    return None
                recording = self._try_to_record(key, tensors)
            if recording is None:
                return None
            self._recordings.move_to_end(key)
            return (recording.play(tensors, rows),)

    def clear(self) -> bool:
        """Free all graphs and their memory; False where there are none."""
        with self._lock:
            had_graphs = bool(self._recordings)
            for memory in self._memories.values():
                memory.finish()
            self._recordings.clear()
            self._memories.clear()
        return had_graphs

    def _has_come_often(self, key: Hashable) -> bool:
        sightings = self._sightings.pop(key, 0) + 1
        if sightings >= self._wanted_sightings:
            return True
        self._sightings[key] = sightings
        if len(self._sightings) > KEPT_SIGHTINGS:
            self._sightings.popitem(last=False)
        return False

    def _try_to_record(self, key: Hashable, tensors: Sequence[Tensor]) -> _Recording | None:
        part, structure, shapes, _, device = key
        if device not in self._memories:
            self._memories[device] = GraphMemory(device)
        if len(self._recordings) >= KEPT_GRAPHS:
            self._memories[device].finish()
            self._recordings.popitem(last=False)
            self._wanted_sightings = min(2 * self._wanted_sightings, MOST_SIGHTINGS)
        try:
            # Tensors of inference mode could not be written to outside of it.
            with torch.inference_mode(False), torch.no_grad():
                self._recordings[key] = _Recording(part, structure, shapes, tensors, self._memories[device])
        except Exception as error:  # by CUDA, the allocator, a library, whatever the part calls, …
            self._failed.add(part)
            self._memories.pop(device)  # a capture that failed may leave them unusable; graphs keep what they have
            reason = str(error).strip().partition('\n')[0] or type(error).__name__
            print_log(
                f'{type(part.module).__name__} runs without a CUDA graph, which is slower: none could be recorded '
                f'({reason})',
                logger='current',
                level=logging.WARNING,
            )
            return None
        return self._recordings[key]


class _Recording:
    """A part's graph for one size."""

    def __init__(
        self,
        part: Part,
        structure: Hashable,
        shapes: Sequence[Sequence[int]],
        tensors: Sequence[Tensor],
        memory: GraphMemory,
    ) -> None:
        self.part, self.memory = part, memory
        modules = list(part.module.modules())
        self.weights = [held for module in modules for held in (module._parameters, module._buffers) if held]
        self.hooks = [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        if any(self.hooks):
            raise NotReplayable('hooks, which are Python, watch its modules')
        self.addresses = self._addresses()
        self.inputs = [_place_for(x, shape, part.dtype) for x, shape in zip(tensors, shapes)]
        with memory.turn():
            self._copy_in(tensors)
            inputs, options = _put_together(structure, iter(self.inputs))
            self._replay, outputs = memory.record(lambda: part.run(*inputs, **options))
        self.outputs: list[Tensor] = []
        self.structure = _take_apart(outputs, self.outputs)
        if part.has_rows and any(len(x) != len(self.inputs[0]) for x in self.outputs):
            raise NotReplayable('its results have other rows than its inputs')

    def is_valid(self) -> bool:
        """Whether weights are where they were and nobody watches: values may change in place, and are read anew."""
        return not any(self.hooks) and self.addresses == self._addresses()

    def play(self, tensors: Sequence[Tensor], rows: int | None) -> Any:
        with self.memory.turn():
            self._copy_in(tensors)
            self._replay()
            # A copy converts as it goes.
            dtypes = (x.dtype if self.part.dtype is None else torch.float32 for x in self.outputs)
            copies = [x[:rows].to(dtype, copy=True) for x, dtype in zip(self.outputs, dtypes)]
        return _put_together(self.structure, iter(copies))

    def _copy_in(self, tensors: Sequence[Tensor]) -> None:
        for place, x in zip(self.inputs, tensors):
            place[: len(x)].copy_(x) if self.part.has_rows else place.copy_(x)

    def _addresses(self) -> list[int]:
        held: Iterable[Tensor | None] = chain.from_iterable(tensors.values() for tensors in self.weights)
        return [x.data_ptr() for x in held if x is not None]


def is_replayable(tensors: Sequence[Tensor]) -> bool:
    """Whether a graph may take these tensors, here and now: all on one GPU, none of them empty or of a derived type."""
    return bool(
        tensors
        and all(type(x) in (Tensor, nn.Parameter) and x.is_cuda and x.numel() for x in tensors)
        and len({x.device for x in tensors}) == 1
        and not torch.is_autocast_enabled()
        and not is_compiling()
        and not torch.jit.is_tracing()
        and not torch.cuda.is_current_stream_capturing()
    )


def _padded(shape: torch.Size) -> torch.Size:
    rows = FEWEST_ROWS
    while rows < shape[0]:  # 8, 12, 16, 24, 32, …: half as many more at most
        rows = rows * 3 // 2 if rows & (rows - 1) == 0 else rows * 4 // 3
    return torch.Size((rows, *shape[1:]))


def _place_for(x: Tensor, shape: Sequence[int], dtype: torch.dtype | None) -> Tensor:
    channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    place = torch.zeros(shape, dtype=dtype if dtype and x.is_floating_point() else x.dtype, device=x.device)
    return place.contiguous(memory_format=torch.channels_last) if channels_last else place


PLAIN = bool, int, float, str, type(None)
"""Values beside tensors that belong to a recording as they are."""


def _take_apart(value: Any, tensors: list[Tensor]) -> Hashable:
    """What `_put_together` needs to build a value again from its tensors, which are added to the list."""
    kind = type(value)
    if isinstance(value, Tensor):
        tensors.append(value)
        return Tensor, None
    if isinstance(value, (tuple, list)):
        return kind, tuple([_take_apart(item, tensors) for item in value])
    if kind is dict:
        return kind, tuple([(key, _take_apart(item, tensors)) for key, item in value.items()])
    if kind in PLAIN:
        return kind, value
    raise NotReplayable(f'{kind.__name__} is neither a tensor nor a plain value')


def _put_together(structure: Any, tensors: Iterator[Tensor]) -> Any:
    kind, content = structure
    if kind is Tensor:
        return next(tensors)
    if kind in PLAIN:
        return content
    if kind is dict:
        return {key: _put_together(item, tensors) for key, item in content}
    items = [_put_together(item, tensors) for item in content]
    return kind(*items) if hasattr(kind, '_fields') else kind(items)
