"""The training step of a backbone: its time, and the memory of its activations."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ..errors import UserError
from ..extras import require
from ..models import FasterNet
from .timing import Candidate

MODES = ('plain', 'checkpointed', 'compiled')
"""Ways to train: storing activations; recomputing them (``with_cp``; in timm ``set_grad_checkpointing``); compiled."""


def training_candidates(arch: str, modes: Sequence[str], batch: int, side: int, device: str = 'cpu') -> list[Candidate]:
    """A step of this package's backbone and of timm's in each mode; all are compared with timm's in the mode 'plain'.

    A step is the forward and the backward pass. The loss is the mean square of each of the four maps, which keeps them
    as a neck would. There is no drop path, and no optimizer, whose step is the same for both.

    Args:
        arch: the variant, 't0' to 'l'.
        modes: out of `MODES`.
        batch, side: of the images, in pixels.
        device: 'cpu' or 'cuda'.

    Returns:
        Candidates with the fact ``peak``, bytes in use at the peak of a step beyond those of before: see `peak_bytes`.

    Raises:
        UserError: timm is missing, or a step does not work, as for images that are too small.
    """
    require('timm', 'comparing with timm')
    ours, timms = f'fasternet_{arch}', f'timm/fasternet_{arch}'
    modes = list(dict.fromkeys(('plain', *modes)))
    found = []
    for name in (timms, ours):
        for mode in modes:
            net, images = _build(name, mode), torch.randn(batch, 3, side, side)
            net, images = net.to(device), images.to(device)
            step = partial(_step, net, images)
            try:
                step()  # from now on there are gradients, which are no activations
            except (RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise UserError(
                    f'{name} ({mode}) does not train with --size {side} --batch {batch}, give others: {reason}'
                ) from error
            candidate = Candidate(
                name=name,
                engine=mode,
                prepare=partial(_finished, step, device),
                baseline=(timms, 'plain'),
                images=batch,
                facts=dict(side=side, peak=peak_bytes(step, device)),
            )
            found.append(candidate)
    return found


def _build(name: str, mode: str) -> nn.Module:
    torch.manual_seed(0)
    if name.startswith('timm/'):
        import timm

        net = timm.create_model(name.removeprefix('timm/'), features_only=True, drop_path_rate=0.0)
        if mode == 'checkpointed':
            net.set_grad_checkpointing()
    else:
        net = FasterNet(name.removeprefix('fasternet_'), with_cp=mode == 'checkpointed')
    return torch.compile(net.train()) if mode == 'compiled' else net.train()


def _loss(maps: Sequence[Tensor]) -> Tensor:
    return sum(x.square().mean() for x in maps)


def _step(net: nn.Module, images: Tensor) -> None:
    _loss(net(images)).backward()


def _finished(step: Callable[[], Any], device: str) -> Callable[[], Any]:
    def run() -> None:
        step()
        if device == 'cuda':
            torch.cuda.synchronize()

    return run


def peak_bytes(call: Callable[[], Any], device: str = 'cpu') -> int:
    """Bytes that PyTorch's allocator has given out at the peak of a call, beyond those of before.

    On the CPU they are added up from the profiler's record of each allocation and release, so that, unlike the
    process's own peak, neither what the allocator holds back nor what other parts of the process do counts.
    """
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # the profiler speaks of its own working
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    with tempfile.TemporaryDirectory() as folder:
        found.export_chrome_trace(str(Path(folder, 'trace.json')))
        events = json.loads(Path(folder, 'trace.json').read_text())['traceEvents']
    changes = sorted((event['ts'], event['args']['Bytes']) for event in events if event.get('name') == '[memory]')
    now = peak = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return peak
