"""The machine that measures."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import torch

from ..acceleration.precision import supported_dtypes
from ..cpus import processor_name, usable_cpus

PACKAGES = ('torch', 'torchvision', 'timm', 'onnx', 'onnxruntime', 'openvino', 'nncf', 'mmdet', 'mmcv-lite', 'mmcv')
"""Distributions whose versions are part of the results."""


def describe_machine(device: str) -> dict[str, Any]:
    """What a measurement depends on: processor, cores, threads, instructions, and versions of packages."""
    return dict(
        device=torch.cuda.get_device_name() if device == 'cuda' else 'CPU',
        processor=processor_name(),
        cores=usable_cpus(),
        threads=torch.get_num_threads(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        bfloat16=torch.bfloat16 in supported_dtypes(device),
        system=f'{platform.system()} {platform.machine()}, Python {platform.python_version()}',
        packages=_versions(),
    )


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
