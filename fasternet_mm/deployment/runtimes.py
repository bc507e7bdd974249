"""Exported files, run by whichever engine their format is for, behind one interface.

ONNX and OpenVINO files are descriptions of a network: running a stranger's does arithmetic, and nothing else. The two
formats of PyTorch are programs: ``torch.export.load`` unpickles objects and evaluates expressions out of the file, and
TorchScript can read and write any file. So these run only where the user says that the file is to be trusted.
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

SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml', 'torch-export': '.pt2', 'torchscript': '.torchscript'}
"""What files of each format are called; by their names they are told from checkpoints."""

PRECISIONS = ('float32', 'bfloat16')


@dataclass(frozen=True)
class Engine:
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
            ValueError: the file cannot take an image of this size.
        """
        self.description.check_size(*image.shape[-2:])
        if not self.description.prepared and image.dtype != torch.uint8:
            image = image.round().clamp(0, 255).to(torch.uint8)
        found = self.run(image[None].cpu().contiguous().numpy())
        return {name: torch.from_numpy(value) for name, value in zip(self.description.outputs, found)}


def is_exported(path: str) -> bool:
    """Whether what is given in a checkpoint's place is an exported file."""
    return Path(path).suffix in SUFFIXES.values()


def open_engine(path: str, precision: str = 'float32', trusted: bool = False) -> Engine:
    """Make an exported file ready to run, on the CPU; ONNX on a GPU where an ONNX Runtime for it is installed.

    Args:
        path: a file that ``tools/export.py`` wrote.
        precision: one of `PRECISIONS`, in which the network computes; 'bfloat16' is for OpenVINO on CPUs that have it.
        trusted: the file may be a program. Default: False.

    Raises:
        UserError: the file or its engine is missing, it is damaged or of other origin, it is a program and not trusted,
            or the precision is not to be had.
    """
    if not Path(path).is_file():
        raise UserError(f'exported file {path} does not exist: make it with tools/export.py')
    suffix = Path(path).suffix
    if precision != 'float32' and suffix != '.xml':
        raise UserError(f'--bf16 is for OpenVINO: export {path} again with --format openvino')
    if suffix in ('.pt2', '.torchscript') and not trusted:
        raise UserError(
            f'{path} is refused: PyTorch runs it as a program, which may do anything; add --trust-program if you made '
            'it or trust who did, or use ONNX or OpenVINO, which need no trust'
        )
    if suffix == '.xml':
        return _open_openvino(path, precision)
    return {'.onnx': _open_onnx, '.pt2': _open_torch_export, '.torchscript': _open_torchscript}[suffix](path)


def _open_onnx(path: str) -> Engine:
    runtime = require('onnxruntime', path)
    wanted = ('CUDAExecutionProvider', 'CPUExecutionProvider')
    providers = [provider for provider in wanted if provider in runtime.get_available_providers()]
    try:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = runtime.InferenceSession(path, options, providers=providers)
    except Exception as error:
        raise _damaged(path) from error
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    return Engine(Description.from_json(text, path), lambda x: session.run(None, {'images': x}))


def _open_openvino(path: str, precision: str) -> Engine:
    openvino = require('openvino', path)
    core = openvino.Core()
    if precision == 'bfloat16' and 'BF16' not in core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        raise UserError('--bf16: this CPU has no bfloat16; leave it out')
    try:
        model = core.read_model(path)
        shape = model.input().partial_shape
        shape[0] = 1  # known, it makes the plan faster
        model.reshape(shape)
        hint = {'float32': 'f32', 'bfloat16': 'bf16'}[precision]
        settings = dict(INFERENCE_PRECISION_HINT=hint, INFERENCE_NUM_THREADS=torch.get_num_threads())
        compiled = core.compile_model(model, 'CPU', settings)
    except Exception as error:
        raise _damaged(path) from error
    text = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None
    return Engine(Description.from_json(text, path), lambda x: compiled(x).values())


def _open_torch_export(path: str) -> Engine:
    description = Description.from_json(_member(path, f'extra/{KEY}'), path)
    network = torch.export.load(path).module()
    return Engine(description, _with_torch(network))


def _open_torchscript(path: str) -> Engine:
    description = Description.from_json(_member(path, f'extra/{KEY}'), path)
    return Engine(description, _with_torch(torch.jit.load(path, map_location='cpu')))


def _with_torch(network: Callable[[Tensor], tuple[Tensor, ...]]) -> Callable[[np.ndarray], list[np.ndarray]]:
    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [output.numpy() for output in network(torch.from_numpy(images))]

    return run


def _member(path: str, ending: str) -> str | None:
    """The text of a PyTorch archive's member, read without PyTorch."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(ending):
                    return archive.read(member).decode()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise _damaged(path) from error
    return None


def _damaged(path: str) -> UserError:
    return UserError(f'{path} cannot be read, it is cut short, damaged or of another format: export the model again')
