"""Networks in exported files, whatever made them, which take turns with detectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..extras import require
from .network_engines import ENGINES, run_onnx, run_openvino
from .timing import Candidate

ENGINES_OF = {
    '.onnx': ('onnxruntime', 'openvino', 'openvino-bfloat16'),
    '.torchscript': ('eager',),
    '.pt': ('eager',),
}
"""By suffix, what runs such a file, of `ENGINES`. TorchScript runs in PyTorch, as it is in the file."""

ONNX_TYPES = {'tensor(float)': np.float32, 'tensor(uint8)': np.uint8}
"""Types of images that a file may take, by ONNX Runtime's names."""


@dataclass(frozen=True)
class FileTask:
    """An exported network and the image that it gets.

    Attributes:
        path: the file; its suffix is one of `ENGINES_OF`.
        image: uint8 ``(3, H, W)``, RGB. The network gets ``(1, 3, H, W)`` of that, or float32 in 0 to 1, by the type of
            its input; TorchScript, which does not tell the type, gets float32.
    """

    path: str
    image: Tensor

    @property
    def name(self) -> str:
        return Path(self.path).name


def check_files(paths: Sequence[str], engines: Sequence[str], device: str, trust_program: bool) -> None:
    """Raise `UserError` unless the files are of known kinds, trusted, and can run on the device.

    Args:
        paths: files that exist.
        engines: see `engines_of`.
        device: 'cpu' or 'cuda'.
        trust_program: run TorchScript, which is a program and may do anything.
    """
    for path in paths:
        if Path(path).suffix not in ENGINES_OF:
            raise UserError(
                f'--beside {path}: its suffix is unknown, give an ONNX file (.onnx) or TorchScript (.torchscript, .pt)'
            )
        if Path(path).suffix != '.onnx' and not trust_program:
            raise UserError(
                f'{path} is refused: PyTorch runs it as a program, which may do anything; add --trust-program if you '
                'made it or trust who did, or give ONNX, which needs no trust'
            )
        for engine in engines_of(path, engines):
            if not ENGINES[engine].suits(device):
                raise UserError(f'--beside {path}: ONNX files run on the CPU here, add --device cpu')
            if ENGINES[engine].packages:
                require(ENGINES[engine].runtime, f'engine {engine}')


def engines_of(path: str, engines: Sequence[str]) -> list[str]:
    """Those of the engines that run a file; where there are none, those that run it in float32."""
    possible = ENGINES_OF[Path(path).suffix]
    chosen = [engine for engine in possible if engine in engines]
    return chosen or [engine for engine in possible if ENGINES[engine].precision == 'float32']


def file_candidates(
    paths: Sequence[str], engines: Sequence[str], image: Tensor, device: str, baseline: tuple[str, str]
) -> list[Candidate]:
    """Each file with each of its engines. What they find is not counted: outputs have no common form.

    Args:
        paths, engines, device: see `check_files`.
        image: uint8 ``(3, H, W)``, RGB.
        baseline: name and engine of the candidate that they are compared with.
    """
    height, width = image.shape[1:]
    return [
        Candidate(
            name=task.name,
            engine=engine,
            prepare=partial(prepare_file, engine, task, device),
            baseline=baseline,
            precision=ENGINES[engine].precision,
            facts=dict(height=height, width=width, detections=None),
            packages=(ENGINES[engine].runtime,) if ENGINES[engine].packages else (),
        )
        for task in (FileTask(path, image) for path in paths)
        for engine in engines_of(task.path, engines)
    ]


def prepare_file(engine: str, task: FileTask, device: str = 'cpu') -> Callable[[], Any]:
    """Make a file ready; what is returned runs it on the task's image.

    Raises:
        UserError: the file cannot be read, or takes something else than one image of this size.
    """
    if not ENGINES[engine].packages:
        return _torchscript(task, device)
    read = _input_of_onnx if ENGINES[engine].runtime == 'onnxruntime' else _input_by_openvino
    try:
        shape, dtype = read(task.path)
    except Exception as error:
        raise _unreadable(task.path, error) from error
    _check_input(task, shape, dtype)
    images = _as_type(task.image, dtype).numpy()
    if ENGINES[engine].runtime == 'onnxruntime':
        run = run_onnx(task.path)
    else:
        run = run_openvino(task.path, ENGINES[engine].precision, images)
    return lambda: run(images)


def _input_of_onnx(path: str) -> tuple[list[int | None] | None, Any]:
    """Shape, with None for sizes that are free, and type; None for what is not one image."""
    import onnxruntime

    inputs = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider']).get_inputs()
    if len(inputs) != 1:
        return None, None
    shape = [size if isinstance(size, int) else None for size in inputs[0].shape]
    return shape, ONNX_TYPES.get(inputs[0].type)


def _input_by_openvino(path: str) -> tuple[list[int | None] | None, Any]:
    import openvino

    inputs = openvino.Core().read_model(path).inputs
    if len(inputs) != 1:
        return None, None
    shape = [size.get_length() if size.is_static else None for size in inputs[0].partial_shape]
    dtype = inputs[0].element_type.to_dtype()
    return shape, dtype.type if dtype in (np.float32, np.uint8) else None


def _check_input(task: FileTask, shape: list[int | None] | None, dtype: Any) -> None:
    height, width = task.image.shape[1:]
    if shape is None or dtype is None or len(shape) != 4 or shape[0] not in (1, None) or shape[1] not in (3, None):
        raise UserError(
            f'{task.path} does not take one image: --beside is for networks with one input, 1x3xHxW of float32 or uint8'
        )
    if any(own not in (given, None) for own, given in zip(shape[2:], (height, width))):
        own = ' '.join('any' if side is None else str(side) for side in shape[2:])
        raise UserError(
            f'{task.path} takes images of {own} (H W), not {height} {width}: give that --size, or export it again'
        )


def _as_type(image: Tensor, dtype: Any) -> Tensor:
    return image[None] if dtype == np.uint8 else image[None].float() / 255


def _torchscript(task: FileTask, device: str) -> Callable[[], Any]:
    try:
        network = torch.jit.load(task.path, map_location=device).eval()
    except Exception as error:
        raise _unreadable(task.path, error) from error
    images = _as_type(task.image, np.float32).to(device)
    try:
        # PyTorch watches two calls to make the others faster.
        with torch.inference_mode():
            for _ in range(2):
                network(images)
    except Exception as error:
        height, width = task.image.shape[1:]
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f'{task.path} does not take a float32 image 1x3x{height}x{width}, give the --size that it was exported '
            f'for ({reason})'
        ) from error
    return torch.inference_mode()(lambda: network(images))


def _unreadable(path: str, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition('. ')[0]
    kind = 'an ONNX file' if path.endswith('.onnx') else 'TorchScript'
    return UserError(f'{path} cannot be read as {kind}, export it again ({reason})')
