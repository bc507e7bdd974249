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

from ..errors import UserError
from ..extras import require
from .machine import finished, has_bfloat16
from .networks import Task, shared_network


@dataclass(frozen=True)
class Engine:
    """One way to run a network.

    Attributes:
        runtime: 'eager', 'optimized', 'compiled', 'onnxruntime' or 'openvino'.
        precision: what it computes in. In eager mode autocast chooses where, elsewhere it is everywhere. 'int8':
            convolutions and matrix products, on scales measured on the images that are timed.
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
        return (*self.packages, *compiler, 'fasternet_mm.inference')

    def suits(self, device: str) -> bool:
        """Whether the device, 'cpu' or 'cuda', can do it."""
        if self.precision == 'bfloat16' and not has_bfloat16(device):
            return False
        return self.precision != 'float16' if device == 'cpu' else not self.packages


ENGINES = {
    'eager': Engine('eager', 'float32'),
    'eager-bfloat16': Engine('eager', 'bfloat16'),
    'eager-float16': Engine('eager', 'float16'),
    'optimized': Engine('optimized', 'float32'),
    'optimized-bfloat16': Engine('optimized', 'bfloat16'),
    'optimized-float16': Engine('optimized', 'float16'),
    'compiled': Engine('compiled', 'float32'),
    'compiled-bfloat16': Engine('compiled', 'bfloat16'),
    'compiled-float16': Engine('compiled', 'float16'),
    'onnxruntime': Engine('onnxruntime', 'float32'),
    'openvino': Engine('openvino', 'float32'),
    'openvino-bfloat16': Engine('openvino', 'bfloat16'),
    'openvino-int8': Engine('openvino', 'int8'),
}


def check_engines(names: Sequence[str], device: str) -> None:
    """Raise `UserError` unless all can run on the device, 'cpu' or 'cuda', and are installed."""
    possible = [name for name, engine in ENGINES.items() if engine.suits(device)]
    for name in names:
        if name not in ENGINES:
            raise UserError(f'engine {name} is unknown: use {", ".join(possible)}')
        if name not in possible:
            raise UserError(f'engine {name} is not for this {device}: use {", ".join(possible)}')
        for package in ENGINES[name].packages:
            require(package, f'engine {name}')
        if ENGINES[name].runtime == 'compiled' and device == 'cpu' and not shutil.which(os.environ.get('CXX', 'g++')):
            raise UserError(f'engine {name} needs a C++ compiler: install g++, or leave the engine out')


def prepare(engine: str, task: Task) -> Callable[[], Any]:
    """Make a network ready to run; what is returned runs it once on the task's images."""
    runtime, precision = ENGINES[engine].runtime, ENGINES[engine].precision
    if ENGINES[engine].packages:
        return _exported(task, runtime, precision)
    network, images = shared_network(task.network, task.form, task.device), task.images()
    dtype = getattr(torch, precision)
    if runtime == 'compiled':
        # Networks of one class share their code's compilations; beyond a few, PyTorch would give up compiling.
        torch._dynamo.config.recompile_limit = 1000
    if runtime == 'eager':
        run = network if precision == 'float32' else torch.autocast(task.device, dtype)(network.forward)
    elif task.is_ours:
        from ..acceleration.optimization import optimize

        run = optimize(network, dtype=None if precision == 'float32' else dtype, compile=runtime == 'compiled')
    else:
        run = _compiled(network, dtype)
    return finished(lambda: run(images), task.device)


def _compiled(network: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Any]:
    """As `fasternet_mm.optimize` compiles: channels_last, weights as constants, precision changed within."""
    network = copy.deepcopy(network).to(dtype=dtype, memory_format=torch.channels_last)
    run = torch.compile(network, options=dict(freezing=True))
    return lambda images: run(images.to(dtype))


def _exported(task: Task, runtime: str, precision: str) -> Callable[[], Any]:
    from ..deployment.writers import BY_TRACING, OPSET

    images = task.images()
    with tempfile.TemporaryDirectory(prefix='fasternet_mm-') as folder:
        file = str(Path(folder, 'network.onnx'))
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
            network = shared_network(task.network, task.form, task.device)
            torch.onnx.export(network, (images,), file, opset_version=OPSET, input_names=['images'], **BY_TRACING)
        given = images.numpy()
        run = _onnxruntime(file) if runtime == 'onnxruntime' else _openvino(file, precision, given)
    return lambda: run(given)


def _onnxruntime(file: str) -> Callable[[np.ndarray], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    return lambda images: session.run(None, {'images': images})


def _openvino(file: str, precision: str, images: np.ndarray) -> Callable[[np.ndarray], Any]:
    import openvino

    from ..deployment.writers import quantized

    model = openvino.Core().read_model(file)
    if precision == 'int8':
        model = quantized(model, [images])
    settings = dict(
        INFERENCE_PRECISION_HINT='bf16' if precision == 'bfloat16' else 'f32',
        INFERENCE_NUM_THREADS=torch.get_num_threads(),
        PERFORMANCE_HINT='LATENCY',
    )
    request = openvino.Core().compile_model(model, 'CPU', settings).create_infer_request()
    return lambda images: request.infer([images], share_inputs=True, share_outputs=True)
