"""The formats of exported files: one table for exporter, runtimes, messages, command line and docs.

It imports nothing heavy, so that a command line can show it at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from ..errors import UserError


@dataclass(frozen=True)
class ExportFormat:
    """A kind of exported file.

    Attributes:
        name: as the option ``--format`` takes it.
        suffix: of the file's name, by which exported files are told from checkpoints.
        runs_in: what runs such files.
        packages: what writing such a file needs besides PyTorch, see `extras.require`.
        weights_suffix: of a second file, which has the weights; '' where there is none.
        is_program: PyTorch executes what the file says. ``torch.export.load`` unpickles objects and evaluates
            expressions, and TorchScript can read and write any file, so such files run only where the user trusts them.
        fp16: weights can be stored in float16.
        int8: convolutions and matrix products can be done in int8.
        bf16: the runtime can compute in bfloat16.
        least_free_side: the least height and width, in pixels, of images for a file that takes any size; 0 where the
            format sets none.
    """

    name: str
    suffix: str
    runs_in: str
    packages: tuple[str, ...] = ()
    weights_suffix: str = ''
    is_program: bool = False
    fp16: bool = False
    int8: bool = False
    bf16: bool = False
    least_free_side: int = 0

    def files(self, path: str | PathLike) -> list[Path]:
        """All files that are written where ``path`` is asked for."""
        return [Path(path), *([Path(path).with_suffix(self.weights_suffix)] if self.weights_suffix else [])]


# fmt: off
_ALL = (
    ExportFormat('onnx', '.onnx', 'ONNX Runtime and what else reads ONNX', ('onnx',), fp16=True),
    ExportFormat('openvino', '.xml', 'OpenVINO', ('onnx', 'openvino'), '.bin', fp16=True, int8=True, bf16=True),
    # torch.export takes a size of one pixel for a constant; from 65 pixels on a map of stride 64 has two.
    ExportFormat('torch-export', '.pt2', "PyTorch, without the model's code", is_program=True, least_free_side=65),
    ExportFormat('torchscript', '.torchscript', 'PyTorch in Python and C++', is_program=True),
)
# fmt: on

FORMATS = {export_format.name: export_format for export_format in _ALL}
"""All formats, by name."""


def format_of(path: str | PathLike) -> ExportFormat | None:
    """The format of an exported file, by its suffix; None where the suffix is of no format."""
    return next((export_format for export_format in _ALL if export_format.suffix == Path(path).suffix), None)


def formats_with(ability: str) -> str:
    """For help and messages, the names of the formats with an ability: 'fp16', 'int8', 'bf16' or 'is_program'."""
    return ', '.join(export_format.name for export_format in _ALL if getattr(export_format, ability))


def all_suffixes() -> str:
    """For help and messages: '.onnx, .xml, .pt2, .torchscript'."""
    return ', '.join(export_format.suffix for export_format in _ALL)


def runs_in_bfloat16(path: str, dtype: str | None) -> bool:
    """Whether an exported file is to compute in 'bfloat16', and not in float32, which None stands for.

    Raises:
        UserError: it is to compute in 'float16', which no runtime here does.
    """
    if dtype == 'float16':
        raise UserError(f'{path} is an exported file, which computes in float32: leave float16 (--fp16) out')
    return dtype == 'bfloat16'
