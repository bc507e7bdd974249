"""Time and memory of loading FasterNet-L's weights, against what PyTorch and safetensors offer."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from command_line import parser, run

EPILOG = """examples:
  python tools/benchmark_loading.py --repeats 7

Linux only. Each load has a process of its own; ways take turns. Memory counts pages of the file that stand in memory
because it is mapped; the system may drop them at any time.
"""
WAYS = [('ours', '.pth'), ('torch', '.pth'), ('ours', '.safetensors'), ('safetensors', '.safetensors')]


def arguments() -> argparse.ArgumentParser:
    result = parser(
        'Compare load_weights with torch.load(mmap=True) and safetensors, each with load_state_dict.', EPILOG
    )
    result.add_argument('--repeats', type=int, default=7, help='loads per way; default: 7')
    result.add_argument('--one', nargs=2, help=argparse.SUPPRESS)
    return result


def main(args: argparse.Namespace) -> None:
    if args.one:
        print(json.dumps(measure(*args.one)))
        return
    import torch

    from fasternet_mm import FasterNetClassifier
    from fasternet_mm.weights.conversion import convert

    with tempfile.TemporaryDirectory() as folder:
        files = {suffix: str(Path(folder, f'net{suffix}')) for suffix in ('.pth', '.safetensors')}
        torch.save(FasterNetClassifier('l').state_dict(), files['.pth'])
        convert(files['.pth'], files['.safetensors'])
        size = Path(files['.pth']).stat().st_size
        found = {way: [] for way in WAYS}
        for _ in range(args.repeats):
            for way, suffix in WAYS:
                command = [sys.executable, __file__, '--one', way, files[suffix]]
                answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found[way, suffix].append(json.loads(answer.splitlines()[-1]))
    for (way, suffix), runs in found.items():
        seconds = statistics.median(seconds for seconds, _ in runs)
        memory = max(memory for _, memory in runs) / size
        print(f'{way:12}{suffix:13}{seconds:.3f} s   peak memory {memory:.2f} x the file')


def measure(way: str, file: str) -> tuple[float, int]:
    """Seconds, and bytes by which the process's peak memory grew."""
    import safetensors.torch
    import torch
    from mmengine.logging import MMLogger

    from fasternet_mm import FasterNetClassifier, load_weights
    from fasternet_mm.benchmark.memory import begin_new_peak, resident

    MMLogger.get_current_instance().setLevel('WARNING')
    net = FasterNetClassifier('l')
    begin_new_peak()
    before, start = resident('VmRSS'), time.perf_counter()
    if way == 'ours':
        load_weights(net, file)
    elif way == 'torch':
        net.load_state_dict(torch.load(file, mmap=True, weights_only=True))
    else:
        net.load_state_dict(safetensors.torch.load_file(file))
    return time.perf_counter() - start, resident('VmHWM') - before


if __name__ == '__main__':
    run(main, arguments())
