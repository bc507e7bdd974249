"""Graphs written to files: ONNX, OpenVINO, torch.export, TorchScript."""

from __future__ import annotations

import inspect
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from .description import KEY, Description
from .graphs import Graph

INPUT = 'images'
"""The name of the input of the files written here. Runtimes read it from the file: it was another one once."""

OPSET = 17
"""ONNX's: that of 2022, which runtimes of all ages read; RoIAlign as ours is in ONNX from 16 on."""

BY_TRACING = dict(dynamo=False) if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
"""What makes `torch.onnx.export` trace; before PyTorch 2.5 it could do nothing else."""

Inputs: TypeAlias = Sequence[np.ndarray]


def write_onnx(graph: Graph, description: Description, path: Path, calibration: Inputs) -> None:
    import onnx

    axes = {INPUT: {0: 'batch', 2: 'height', 3: 'width'}, **graph.outputs}
    if description.size is not None:
        free = ('batch', 'detections')
        axes = {name: {i: length for i, length in lengths.items() if length in free} for name, lengths in axes.items()}
    options = dict(output_names=description.outputs, dynamic_axes=axes)
    trace_to_onnx(_trace(graph, description), random_images(description), path, **options)
    model = onnx.load(path)
    model.metadata_props.add(key=KEY, value=description.to_json())
    if description.weights == 'float16':
        _store_in_half(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_openvino(graph: Graph, description: Description, path: Path, calibration: Inputs) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder, 'model.onnx')
        write_onnx(graph, replace(description, weights='float32'), onnx_file, [])
        model = openvino.Core().read_model(onnx_file)  # openvino.convert_model would report to its makers
    if calibration:
        model = quantized(model, calibration)
    model.set_rt_info(description.to_json(), KEY)
    openvino.save_model(model, path, compress_to_fp16=description.weights == 'float16')


def write_torch_export(graph: Graph, description: Description, path: Path, calibration: Inputs) -> None:
    axes = {0: torch.export.Dim('batch', min=1)}
    if description.size is None:
        for axis, name in ((2, 'height'), (3, 'width')):
            axes[axis] = _free_side(name, description)
    with torch.no_grad():
        images = (random_images(description),)
        program = torch.export.export(graph, images, dynamic_shapes=(axes,), strict=False)
    _check_other_sizes(graph, program.module(), description)
    torch.export.save(program, path, extra_files={KEY: description.to_json()})


def _free_side(name: str, description: Description) -> Any:
    """A height or width for torch.export: any from ``min_size``, or any multiple of ``size_divisor``."""
    divisor = description.size_divisor
    if divisor == 1:
        return torch.export.Dim(name, min=description.min_size)
    try:
        return divisor * torch.export.Dim(f'{name}_steps', min=description.min_size // divisor)
    except TypeError as error:  # PyTorch 2.1 and 2.2
        raise UserError(
            f'torch.export of PyTorch {torch.__version__} cannot say that sizes are multiples of {divisor}: name the '
            'size that the file is for with --size, or use another format'
        ) from error


def write_torchscript(graph: Graph, description: Description, path: Path, calibration: Inputs) -> None:
    torch.jit.save(_trace(graph, description), str(path), {KEY: description.to_json()})


WRITERS = {
    'onnx': write_onnx,
    'openvino': write_openvino,
    'torch-export': write_torch_export,
    'torchscript': write_torchscript,
}
"""For each of `FORMATS`, by name. ``calibration`` are inputs on which scales for int8 are measured."""


def trace_to_onnx(network: nn.Module, images: Tensor, path: Path, **options: Any) -> None:
    """Write any network to an ONNX file, recorded on these images; ``options`` are those of `torch.onnx.export`."""
    with torch.no_grad():
        torch.onnx.export(
            network, (images,), str(path), opset_version=OPSET, input_names=[INPUT], **BY_TRACING, **options
        )


def quantized(model: Any, calibration: Inputs) -> Any:
    """An OpenVINO model with its convolutions and matrix products in int8, on scales measured on these inputs."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    # Products of two maps, as in RTMDet-Ins's masks, have no weights that int8 could be prepared for: only their inputs
    # would be rounded.
    in_float = [
        operation.get_friendly_name()
        for operation in model.get_ops()
        if operation.get_type_name() == 'MatMul' and not _has_weights(operation)
    ]
    options = dict(ignored_scope=nncf.IgnoredScope(names=in_float)) if in_float else {}
    with redirect_stdout(sys.stderr):  # its progress bar
        return nncf.quantize(model, nncf.Dataset(calibration), subset_size=len(calibration), **options)


def _has_weights(operation: Any) -> bool:
    """Whether an operation of an OpenVINO model takes a constant."""
    return any(value.get_node().get_type_name() == 'Constant' for value in operation.input_values())


def random_images(description: Description, batch: int = 2, height: int = 160, width: int = 192) -> Tensor:
    """Random images as the file will take them; of its one size where it has one, else of at least these."""
    divisor = description.size_divisor
    height, width = (-(-side // divisor) * divisor for side in (height, width))
    shape = (batch, 3, *(description.size or (height, width)))
    generator = torch.Generator().manual_seed(0)
    if description.prepared:
        return torch.randn(shape, generator=generator)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _trace(graph: Graph, description: Description) -> torch.jit.ScriptModule:
    with torch.no_grad():
        traced = torch.jit.trace(graph, random_images(description), check_trace=False)
    _check_other_sizes(graph, traced, description)
    return traced


@torch.no_grad()
def _check_other_sizes(graph: Graph, recorded: Callable[[Tensor], Sequence[Tensor]], description: Description) -> None:
    """Raise `UserError` where what was recorded on some images is not right for others."""
    shapes = [(1, 200, 136)] if description.size else [(1, 200, 136), (3, 128, 224)]
    for shape in shapes:
        images = random_images(description, *shape)
        for expected, output in zip(graph(images), recorded(images)):
            if expected.shape != output.shape or not torch.allclose(expected.float(), output.float(), 1e-4, 1e-4):
                raise UserError(
                    'this model cannot be exported for images of any size, since it treats sizes differently: '
                    'name the size that it is for with --size'
                )


def _store_in_half(graph: Any) -> None:
    """Store the weights of an ONNX graph in float16, with Casts to float32 that runtimes do once, on loading."""
    from onnx import TensorProto, helper, numpy_helper

    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and len(weight.dims) > 1:
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f'{name}.half'))
            graph.node.insert(0, helper.make_node('Cast', [weight.name], [name], to=TensorProto.FLOAT))
