"""Time and memory of loading FasterNet-L's weights, against what PyTorch and safetensors offer."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import safetensors.torch
import torch
from mmengine.logging import MMLogger

from ..models.classifier import FasterNetClassifier
from ..weights.conversion import convert
from ..weights.loading import load_weights
from .memory import begin_new_peak, in_own_process, resident

WAYS = [('ours', '.pth'), ('torch', '.pth'), ('ours', '.safetensors'), ('safetensors', '.safetensors')]
"""Who loads, and from which kind of file; PyTorch's and safetensors' tensors go through ``load_state_dict``."""


def compare_loading(repeats: int) -> None:
    """Measure all ways in turns, each time in a process of its own, and print the medians.

    Memory counts pages of the file that are in memory because it is mapped; the system may drop them at any time.

    Args:
        repeats: loads for each way.
    """
    measured: dict[tuple[str, str], list[tuple[float, int]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        files = {suffix: str(Path(folder, f'net{suffix}')) for suffix in ('.pth', '.safetensors')}
        torch.save(FasterNetClassifier('l').state_dict(), files['.pth'])
        convert(files['.pth'], files['.safetensors'])
        size = Path(files['.pth']).stat().st_size
        for _ in range(repeats):
            for loader, suffix in WAYS:
                measured[loader, suffix].append(in_own_process(_measure, loader, files[suffix]))
    for (loader, suffix), runs in measured.items():
        seconds = statistics.median(seconds for seconds, _ in runs)
        memory = max(memory for _, memory in runs) / size
        print(f'{loader:12}{suffix:13}{seconds:.3f} s   peak memory {memory:.2f} x the file')


def _measure(loader: str, file: str) -> tuple[float, int]:
    """Seconds, and bytes by which the process's peak memory grew."""
    MMLogger.get_current_instance().setLevel('WARNING')
    net = FasterNetClassifier('l')
    begin_new_peak()
    before, start = resident('VmRSS'), time.perf_counter()
    if loader == 'ours':
        load_weights(net, file)
    elif loader == 'torch':
        net.load_state_dict(torch.load(file, mmap=True, weights_only=True))
    else:
        net.load_state_dict(safetensors.torch.load_file(file))
    return time.perf_counter() - start, resident('VmHWM') - before
