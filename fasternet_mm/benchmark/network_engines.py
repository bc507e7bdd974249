"""What runs a network: PyTorch in several ways, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..acceleration.optimization import optimize
from ..acceleration.precision import supported_dtypes
from ..errors import UserError
from ..extras import require
from .networks import NetworkTask, shared_network


@dataclass(frozen=True)
class NetworkEngine:
    """One way to run a network.

    Attributes:
        runtime: 'eager', 'optimized', 'graphed' (in a CUDA graph, as `optimize` does by itself on a GPU), 'compiled',
            'onnxruntime' or 'openvino'.
        precision: what it computes in: in eager mode where autocast chooses, with others everywhere. In 'int8' there
            are convolutions and matrix products, on scales measured on the images that are timed.
    """

    runtime: str
    precision: str

    @property
    def packages(self) -> Sequence[str]:
        """What it needs besides PyTorch and this package."""
        if self.runtime not in ('onnxruntime', 'openvino'):
            return ()
        return ('onnx', self.runtime, *(['nncf'] if self.precision == 'int8' else []))

    @property
    def modules(self) -> Sequence[str]:
        """What is imported when it is first used."""
        compiler = ('torch._inductor.compile_fx',) if self.runtime == 'compiled' else ()
        own = 'fasternet_mm.deployment.exporter' if self.packages else 'fasternet_mm.acceleration.optimization'
        return (*self.packages, *compiler, own)

    @property
    def dtype(self) -> torch.dtype | None:
        """PyTorch's type for the precision; None where a network's own weights, in float32, are used as they are."""
        return None if self.precision in ('float32', 'int8') else getattr(torch, self.precision)

    def suits(self, device: str) -> bool:
        """Whether the device, 'cpu' or 'cuda', can do it."""
        if (self.packages and device != 'cpu') or (self.runtime == 'graphed' and device != 'cuda'):
            return False
        return self.dtype is None or self.dtype in supported_dtypes(device)

    def takes(self, is_ours: bool) -> bool:
        """Whether it is for this package's networks, or for those of others: 'optimized' is the former's 'graphed'."""
        return self.runtime != ('graphed' if is_ours else 'optimized')


ENGINES = {
    'eager': NetworkEngine('eager', 'float32'),
    'eager-bfloat16': NetworkEngine('eager', 'bfloat16'),
    'eager-float16': NetworkEngine('eager', 'float16'),
    'optimized': NetworkEngine('optimized', 'float32'),
    'optimized-bfloat16': NetworkEngine('optimized', 'bfloat16'),
    'optimized-float16': NetworkEngine('optimized', 'float16'),
    'graphed': NetworkEngine('graphed', 'float32'),
    'graphed-bfloat16': NetworkEngine('graphed', 'bfloat16'),
    'graphed-float16': NetworkEngine('graphed', 'float16'),
    'compiled': NetworkEngine('compiled', 'float32'),
    'compiled-bfloat16': NetworkEngine('compiled', 'bfloat16'),
    'compiled-float16': NetworkEngine('compiled', 'float16'),
    'onnxruntime': NetworkEngine('onnxruntime', 'float32'),
    'openvino': NetworkEngine('openvino', 'float32'),
    'openvino-bfloat16': NetworkEngine('openvino', 'bfloat16'),
    'openvino-int8': NetworkEngine('openvino', 'int8'),
}


GRAPH_WARM_UP_CALLS = 3
"""Calls before a CUDA graph is recorded, as PyTorch's documentation advises."""


def check_engines(names: Sequence[str], device: str) -> None:
    """Raise `UserError` unless all can run on the device, 'cpu' or 'cuda', and are installed."""
    possible = [name for name, engine in ENGINES.items() if engine.suits(device)]
    for name in names:
        if name not in ENGINES:
            raise UserError(f'engine {name} is unknown: use {", ".join(possible)}')
        if name not in possible:
            raise UserError(f'engine {name} does not run on this {device}: use {", ".join(possible)}')
        for package in ENGINES[name].packages:
            require(package, f'engine {name}')
        if ENGINES[name].runtime == 'compiled' and device == 'cpu' and not shutil.which(os.environ.get('CXX', 'g++')):
            raise UserError(f'engine {name} needs a C++ compiler: install g++, or leave the engine out')


def prepare_network(name: str, task: NetworkTask) -> Callable[[], Any]:
    """Make a network ready to run with one of `ENGINES`; what is returned runs it once on the task's images."""
    engine = ENGINES[name]
    network, images = shared_network(task.network, task.form, task.device), task.images()
    if engine.packages:
        return _exported(network, images, engine)
    if engine.runtime == 'compiled':
        # Networks of one class share their code's compilations; beyond a few, PyTorch would give up compiling.
        torch._dynamo.config.recompile_limit = 1000
    if engine.runtime == 'eager':
        run = network if engine.dtype is None else torch.autocast(task.device, engine.dtype)(network.forward)
    elif task.is_ours:
        run = optimize(network, dtype=engine.dtype, compile=engine.runtime == 'compiled')
    elif engine.runtime == 'graphed':
        run = _graphed(network, engine.dtype or torch.float32, images)
    else:
        run = _compiled(network, engine.dtype or torch.float32, task.device)
    return torch.inference_mode()(lambda: run(images))


def _compiled(network: nn.Module, dtype: torch.dtype, device: str) -> Callable[[Tensor], Any]:
    """As `fasternet_mm.optimize` compiles: channels_last, constant weights, CUDA graphs, precision changed within."""
    network = copy.deepcopy(network).to(dtype=dtype, memory_format=torch.channels_last)
    options = {'freezing': True, 'triton.cudagraphs': device == 'cuda'}
    run = torch.compile(network, options=options)
    return lambda images: run(images.to(dtype))


def _graphed(network: nn.Module, dtype: torch.dtype, images: Tensor) -> Callable[[Tensor], Any]:
    """Recorded once and repeated as one CUDA graph; channels_last, precision changed within."""
    network = copy.deepcopy(network).to(dtype=dtype, memory_format=torch.channels_last)
    recorded_images = images.clone()
    with torch.inference_mode():
        # What a first call allocates and chooses must not be recorded.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(GRAPH_WARM_UP_CALLS):
                network(recorded_images.to(dtype))
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = network(recorded_images.to(dtype))

    def replay(images: Tensor) -> Any:
        recorded_images.copy_(images)
        graph.replay()
        return outputs

    return replay


def _exported(network: nn.Module, images: Tensor, engine: NetworkEngine) -> Callable[[], Any]:
    from ..deployment.writers import BY_TRACING, OPSET

    with tempfile.TemporaryDirectory(prefix='fasternet_mm-') as folder:
        file = str(Path(folder, 'network.onnx'))
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
            torch.onnx.export(network, (images,), file, opset_version=OPSET, input_names=['images'], **BY_TRACING)
        array = images.numpy()
        run = run_onnx(file) if engine.runtime == 'onnxruntime' else run_openvino(file, engine.precision, array)
    return lambda: run(array)


def run_onnx(file: str) -> Callable[[np.ndarray], Any]:
    """What runs an ONNX file of one input in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})


def run_openvino(file: str, precision: str, images: np.ndarray) -> Callable[[np.ndarray], Any]:
    """What runs an ONNX file of one input in OpenVINO, on images of this size, on which int8 is calibrated."""
    import openvino

    model = openvino.Core().read_model(file)
    if model.input().partial_shape.is_dynamic:
        model.reshape(images.shape)
    if precision == 'int8':
        from ..deployment.writers import quantized

        model = quantized(model, [images])
    settings = dict(
        INFERENCE_PRECISION_HINT='bf16' if precision == 'bfloat16' else 'f32',
        INFERENCE_NUM_THREADS=torch.get_num_threads(),
        PERFORMANCE_HINT='LATENCY',
    )
    request = openvino.Core().compile_model(model, 'CPU', settings).create_infer_request()
    return lambda images: request.infer([images], share_inputs=True, share_outputs=True)
