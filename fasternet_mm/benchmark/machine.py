"""The machine that measures."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from ..cpus import usable_cpus

PACKAGES = ('torch', 'torchvision', 'timm', 'onnx', 'onnxruntime', 'openvino', 'nncf', 'mmdet', 'mmcv-lite', 'mmcv')


def has_bfloat16(device: str) -> bool:
    """Whether the device computes in bfloat16 by itself."""
    if device == 'cuda':
        return torch.cuda.is_bf16_supported()
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def finished(call: Callable[[], Any], device: str) -> Callable[[], Any]:
    """``call`` without gradients, done when it returns, which on a GPU is not so by itself."""

    def run() -> Any:
        with torch.inference_mode():
            result = call()
            if device == 'cuda':
                torch.cuda.synchronize()
        return result

    return run


def describe_machine(device: str) -> dict[str, Any]:
    """What a measurement depends on: processor, cores, threads, instructions, and versions of packages."""
    return dict(
        device=torch.cuda.get_device_name() if device == 'cuda' else 'CPU',
        processor=_processor(),
        cores=usable_cpus(),
        threads=torch.get_num_threads(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        bfloat16=has_bfloat16(device),
        system=f'{platform.system()} {platform.machine()}, Python {platform.python_version()}',
        packages=dict(_versions(PACKAGES)),
    )


def _processor() -> str:
    found = Path('/proc/cpuinfo')
    lines = found.read_text().splitlines() if found.exists() else []
    name = next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), '')
    return name or platform.processor() or platform.machine()


def _versions(packages: Iterable[str]) -> Iterable[tuple[str, str]]:
    for package in packages:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
