"""Exported files, run by whatever their format is for, behind one interface.

ONNX and OpenVINO files are descriptions of a network: running a stranger's does arithmetic, and nothing else. The two
formats of PyTorch are programs, see `ExportFormat.is_program`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..extras import require
from .description import KEY, Description
from .formats import format_of, formats_with


@dataclass(frozen=True)
class Runtime:
    """An exported file, ready to run on one image at a time: a CPU is no faster with several.

    Attributes:
        description: what the file says of itself.
        run: images ``(1, 3, H, W)``, uint8 or, where ``description.prepared``, float32, to its outputs in order.
    """

    description: Description
    run: Callable[[np.ndarray], Iterable[np.ndarray]]

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """The outputs by name, on the CPU.

        Args:
            image: ``(3, H, W)``, BGR with values 0 to 255, or prepared, as the file takes it.

        Raises:
            InvalidArgument: the file cannot take an image of this size.
        """
        self.description.check_size(*image.shape[-2:])
        if not self.description.prepared and image.dtype != torch.uint8:
            image = image.round().clamp(0, 255).to(torch.uint8)
        outputs = self.run(image[None].cpu().contiguous().numpy())
        return {name: torch.from_numpy(output) for name, output in zip(self.description.outputs, outputs)}


def open_runtime(path: str, *, bf16: bool = False, trust_program: bool = False) -> Runtime:
    """Make an exported file ready to run, on the CPU; ONNX on a GPU where an ONNX Runtime for it is installed.

    Args:
        path: a file that `export` wrote.
        bf16: compute in bfloat16, on CPUs that have it. Default: False, in float32.
        trust_program: run the file although it is a program, see `ExportFormat.is_program`. Default: False.

    Raises:
        UserError: the file or its runtime is missing, it is damaged or of other origin, it is a program and not
            trusted, or cannot be run in bfloat16.
    """
    export_format = format_of(path)
    if export_format is None or not Path(path).is_file():
        raise UserError(f'exported file {path} does not exist: make it with fasternet-mm export')
    if bf16 and not export_format.bf16:
        raise UserError(f'--bf16 is for {formats_with("bf16")}: export {path} again in that format')
    if export_format.is_program and not trust_program:
        raise UserError(
            f'{path} is refused: PyTorch runs it as a program, which may do anything; add --trust-program if you made '
            'it or trust who did, or use ONNX or OpenVINO, which need no trust'
        )
    return OPENERS[export_format.name](path, bf16)


def _open_onnx(path: str, bf16: bool) -> Runtime:
    onnxruntime = require('onnxruntime', path)
    available = onnxruntime.get_available_providers()
    providers = [name for name in ('CUDAExecutionProvider', 'CPUExecutionProvider') if name in available]
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:
        raise _damaged(path) from error
    description = Description.from_json(session.get_modelmeta().custom_metadata_map.get(KEY), path)
    images = session.get_inputs()[0].name
    return Runtime(description, lambda x: session.run(None, {images: x}))


def _open_openvino(path: str, bf16: bool) -> Runtime:
    openvino = require('openvino', path)
    core = openvino.Core()
    if bf16 and 'BF16' not in core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        raise UserError('--bf16: this CPU does not compute in bfloat16; leave the option out')
    try:
        model = core.read_model(path)
        shape = model.input().partial_shape
        shape[0] = 1  # a known number of images makes the plan faster
        model.reshape(shape)
        settings = dict(
            INFERENCE_PRECISION_HINT='bf16' if bf16 else 'f32', INFERENCE_NUM_THREADS=torch.get_num_threads()
        )
        compiled = core.compile_model(model, 'CPU', settings)
    except Exception as error:
        raise _damaged(path) from error
    text = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None
    return Runtime(Description.from_json(text, path), lambda x: compiled(x).values())


def _open_torch_export(path: str, bf16: bool) -> Runtime:
    description = _description_in_archive(path)
    return Runtime(description, _with_torch(torch.export.load(path).module()))


def _open_torchscript(path: str, bf16: bool) -> Runtime:
    description = _description_in_archive(path)
    return Runtime(description, _with_torch(torch.jit.load(path, map_location='cpu')))


OPENERS = {
    'onnx': _open_onnx,
    'openvino': _open_openvino,
    'torch-export': _open_torch_export,
    'torchscript': _open_torchscript,
}
"""For each of `FORMATS`, by name."""


def _with_torch(network: Callable[[Tensor], tuple[Tensor, ...]]) -> Callable[[np.ndarray], list[np.ndarray]]:
    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [output.numpy() for output in network(torch.from_numpy(images))]

    return run


def _description_in_archive(path: str) -> Description:
    """The description in a file of PyTorch's, which is a ZIP archive, read without PyTorch."""
    text = None
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(f'extra/{KEY}'):
                    text = archive.read(member).decode()
                    break
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:  # what `zipfile` raises
        raise _damaged(path) from error
    return Description.from_json(text, path)


def _damaged(path: str) -> UserError:
    return UserError(f'{path} cannot be read, it is cut short, damaged or of another format: export the model again')
