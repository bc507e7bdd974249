"""The training step of a backbone: its time, and the memory of its activations."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ..acceleration.precision import supported_dtypes
from ..engine.memory_layout import LAYOUTS
from ..errors import UserError
from ..extras import require
from ..models import FasterNet
from .clocks import device_clock
from .dispatched_operators import dispatched_operators
from .timing import Candidate

BASELINE_LAYOUT = 'contiguous'
"""The memory layout of timm's step that all are compared with: the one that PyTorch gives by itself."""


def training_candidates(
    arch: str,
    modes: Sequence[str],
    batch: int,
    size: Sequence[int],
    device: str = 'cpu',
    amp: str | None = None,
    layouts: Sequence[str] = tuple(LAYOUTS),
) -> list[Candidate]:
    """A step of this package's backbone and of timm's in each mode and memory layout.

    All are compared with timm's in the mode 'plain', contiguous. A step drops the gradients of the last one, then come
    the forward and the backward pass. The loss is the mean square of each of the four maps, which keeps them as a neck
    would. There is no drop path, no scaler of the loss, and no optimizer, whose step is the same for both.

    Channels_last is what each project makes of it: our training arranges the images, and maps follow (see
    `MemoryLayoutHook`, which chooses between the two); timm's arranges images and weights.

    Args:
        arch: the variant, 't0' to 'l'.
        modes: 'checkpointed', which recomputes activations (``with_cp``, in timm ``set_grad_checkpointing``), or
            'compiled'. Always there is 'plain', which stores them.
        batch: images of a step.
        size: (height, width) of the images, in pixels.
        device: 'cpu' or 'cuda'.
        amp: precision of autocast in the forward pass, 'float16' or 'bfloat16'. Default: None, all is float32.
        layouts: keys of `LAYOUTS`. Default: both. Contiguous is always there for the baseline.

    Returns:
        Candidates with the facts ``layout``; ``activations_bytes``: see `peak_bytes`; and ``operators``: see
        `dispatched_operators`. The latter is None for compiled steps, whose kernels stand for many operators.

    Raises:
        UserError: timm is missing, a step does not work, as for images that are too small, or the device does not
            compute in the precision.
    """
    require('timm', 'comparing with timm')
    check_amp(amp, device)
    ours, timms = f'fasternet_{arch}', f'timm/fasternet_{arch}'
    modes = list(dict.fromkeys(('plain', *modes)))
    baseline = (timms, f'plain, {BASELINE_LAYOUT}')
    triples = [(name, mode, layout) for name in (timms, ours) for mode in modes for layout in layouts]
    if (timms, 'plain', BASELINE_LAYOUT) not in triples:
        triples.insert(0, (timms, 'plain', BASELINE_LAYOUT))
    candidates = []
    for name, mode, layout in triples:
        net = _build(name, mode, layout).to(device)
        images = torch.randn(batch, 3, *size).to(device).contiguous(memory_format=LAYOUTS[layout])
        passes = partial(_forward_and_backward, net, images, amp)
        try:
            passes()  # from now on there are gradients, which are no activations
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f'{name} ({mode}) does not train with --size {size[0]} {size[1]} --batch {batch}, give others: {reason}'
            ) from error
        step = partial(_step, net, passes)
        candidate = Candidate(
            name=name,
            engine=f'{mode}, {layout}',
            prepare=lambda step=step: step,
            baseline=baseline,
            images=batch,
            precision=amp or 'float32',
            clock=device_clock(device),
            facts=dict(
                height=size[0],
                width=size[1],
                layout=layout,
                activations_bytes=peak_bytes(passes, device),
                operators=None if mode == 'compiled' else dispatched_operators(step),
            ),
        )
        candidates.append(candidate)
    return candidates


def check_amp(amp: str | None, device: str) -> None:
    """Raise `UserError` unless autocast works on the device in this precision, or None is given."""
    # PyTorch has bfloat16 on every CPU, slowly on those that compute in it by way of float32.
    dtypes = [torch.bfloat16] if device == 'cpu' else supported_dtypes(device)[1:]
    accepted = [str(dtype).removeprefix('torch.') for dtype in dtypes]
    if amp and amp not in accepted:
        raise UserError(f'--amp {amp}: this {device} does not compute in it, use {" or ".join(accepted)}')


def _build(name: str, mode: str, layout: str) -> nn.Module:
    torch.manual_seed(0)
    if name.startswith('timm/'):
        import timm

        net = timm.create_model(name.removeprefix('timm/'), features_only=True, drop_path_rate=0.0)
        net.to(memory_format=LAYOUTS[layout])
        if mode == 'checkpointed':
            net.set_grad_checkpointing()
    else:
        net = FasterNet(name.removeprefix('fasternet_'), with_cp=mode == 'checkpointed')
    return torch.compile(net.train()) if mode == 'compiled' else net.train()


def _loss(maps: Sequence[Tensor]) -> Tensor:
    return sum(x.float().square().mean() for x in maps)


def _forward_and_backward(net: nn.Module, images: Tensor, amp: str | None) -> None:
    with torch.autocast(images.device.type, getattr(torch, amp)) if amp else nullcontext():
        loss = _loss(net(images))
    loss.backward()


def _step(net: nn.Module, passes: Callable[[], None]) -> None:
    net.zero_grad()
    passes()


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
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as allocations:
        call()
    with tempfile.TemporaryDirectory() as folder:
        allocations.export_chrome_trace(str(Path(folder, 'trace.json')))
        events = json.loads(Path(folder, 'trace.json').read_text())['traceEvents']
    changes = sorted((event['ts'], event['args']['Bytes']) for event in events if event.get('name') == '[memory]')
    now = peak = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return peak
