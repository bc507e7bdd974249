"""Packages that only some of the commands need."""

from __future__ import annotations

import importlib.util
from typing import Any

from .errors import UserError

EXTRAS = {
    'onnx': 'onnx',
    'onnxruntime': 'onnx',
    'openvino': 'openvino',
    'nncf': 'int8',
    'timm': 'benchmark',
}
"""The extra of this package that brings each optional one."""


def require(package: str, purpose: str) -> Any:
    """An optional package, imported.

    Raises:
        UserError: it is missing, with how to install it; or it does not work, as with another version of PyTorch.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{purpose} needs the package {package}: pip install 'fasternet-mm[{EXTRAS[package]}]'")
    try:
        return importlib.import_module(package)
    except Exception as error:
        raise UserError(f'{purpose} needs the package {package}, and importing that fails: {error}') from error
