"""Packages that only some of the commands need."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import UserError

EXTRAS = {
    'onnx': 'onnx',
    'onnxruntime': 'onnx',
    'openvino': 'openvino',
    'nncf': 'int8',
    'timm': 'benchmark',
    'gradio': 'app',
    'starlette': 'serve',
    'python_multipart': 'serve',
    'uvicorn': 'serve',
    'httptools': 'serve',
    'prometheus_client': 'serve',
    'trackers': 'track',
    'supervision': 'track',
    'pyvips': 'large',
    'huggingface_hub': 'hub',
    'tensorboard': 'tensorboard',
    'wandb': 'wandb',
    'mlflow': 'mlflow',
    'clearml': 'clearml',
}
"""The extra of this package that brings each optional one."""


def require(package: str, purpose: str) -> Any:
    """An optional package, imported.

    Raises:
        UserError: it is missing, with how to install it; or it does not work, as with another version of PyTorch.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:  # nothing, or a mere folder of that name
        raise UserError(f"{purpose} needs the package {package}: pip install 'fasternet-mm[{EXTRAS[package]}]'")
    try:
        return importlib.import_module(package)
    except Exception as error:
        raise UserError(f'{purpose} needs the package {package}, and importing that fails: {error}') from error


OPENMMLAB = frozenset({'mmengine', 'mmcv', 'mmdet', 'mmseg', 'ftfy', 'regex', 'pkg_resources'})
"""What is imported of OpenMMLab's libraries, and what they import without declaring it."""


class MissingOpenMMLab(UserError, ImportError):
    """A library of OpenMMLab's is missing; two projects publish them under the same names, so none is a dependency."""


@contextmanager
def needs_openmmlab() -> Iterator[None]:
    """Names what to install where a library of OpenMMLab's turns out to be missing.

    Raises:
        MissingOpenMMLab: instead of the ``ModuleNotFoundError`` of such a library.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in OPENMMLAB:
            raise
        raise MissingOpenMMLab(
            f"{error.name} is not installed: pip install 'fasternet-mm[openmmlab]' for OpenMMLab's own releases, or "
            "'fasternet-mm[onedl]' for OneDL's maintained fork of them"
        ) from error


@contextmanager
def mmseg_by_module_name() -> Iterator[None]:
    """Inside, configs that inherit from ``mmseg::…`` are found with OneDL's libraries as with OpenMMLab's.

    MMEngine looks for a distribution named mmsegmentation, but OneDL's is onedl-mmsegmentation; the module's name is
    the same.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    distribution = MODULE2PACKAGE['mmseg']
    MODULE2PACKAGE['mmseg'] = 'mmseg'
    try:
        yield
    finally:
        MODULE2PACKAGE['mmseg'] = distribution
