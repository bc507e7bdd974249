"""TorchVision's kernels, and what all operators on them share.

They take no bfloat16 on the CPU, so reduced precision is computed in float32 and rounded once.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

kernels = torch.ops.torchvision


def full_precision(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def refuse(operator: str) -> NoReturn:
    raise NotImplementedError(
        f"MMCV's operator {operator!r} is compiled in MMCV and fasternet_mm has no replacement for it: install an mmcv "
        'with compiled operators (mmcv>=2.0,<2.2 beside the PyTorch it was built for, at most 2.1; see '
        'https://mmcv.readthedocs.io/en/2.x/get_started/installation.html) or choose a model without it'
    )
