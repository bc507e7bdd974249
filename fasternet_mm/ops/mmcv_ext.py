"""The module ``mmcv._ext`` on TorchVision's kernels, CPU and CUDA.

Names, arguments and conventions are those of MMCV 2.x's compiled module (``mmcv/ops/csrc/pytorch/pybind.cpp``), which
writes results into tensors that it is given; arguments that TorchVision's kernels do not need are accepted and unused.
MMCV imports this file under a name of its own, so its imports are absolute.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torchvision

from fasternet_mm.ops.boxes import bbox_overlaps, nms, nms_match, softnms
from fasternet_mm.ops.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from fasternet_mm.ops.focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from fasternet_mm.ops.kernels import refuse
from fasternet_mm.ops.roi_align import roi_align_backward, roi_align_forward
from fasternet_mm.ops.roi_pool import roi_pool_backward, roi_pool_forward

__all__ = [
    'bbox_overlaps',
    'deform_conv_backward_input',
    'deform_conv_backward_parameters',
    'deform_conv_forward',
    'modulated_deform_conv_backward',
    'modulated_deform_conv_forward',
    'nms',
    'nms_match',
    'roi_align_backward',
    'roi_align_forward',
    'roi_pool_backward',
    'roi_pool_forward',
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
    'softnms',
]


def __getattr__(name: str) -> Any:
    """Any other operator: importing MMCV works, and calling the operator says what to do."""
    if name.startswith('_'):
        raise AttributeError(name)

    def not_covered(*args: Any, **kwargs: Any) -> NoReturn:
        refuse(name)

    return not_covered


def get_compiler_version() -> str:
    return 'not compiled: fasternet_mm on torchvision ' + torchvision.__version__


get_compiling_cuda_version = get_compiler_version
