"""A trained model made fast, for inference alone."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils import apply_to
from torch import Tensor, nn

from ..devices import device_of_choice
from ..errors import UserError
from ..models import FasterNet, FasterNetClassifier
from ..registry import HOOKS
from .cuda_graphs import CudaGraphs, Part
from .folding import fold_batch_norms
from .packing import pack
from .precision import check_dtype, short_dtype

HEADS = {'AnchorHead', 'AnchorFreeHead', 'YOLOXHead', 'BBoxHead', 'FCNMaskHead', 'BaseDecodeHead'}
"""Classes of heads that are convolutions, by name: importing MMDetection takes seconds, and a segmenter needs none."""

ROI_HEADS = {'BBoxHead', 'FCNMaskHead'}
"""Those of them whose inputs are RoIs, computed one by one."""

ModelT = TypeVar('ModelT', bound=nn.Module)


@torch.inference_mode(False)  # tensors of that mode have no versions, by which changed weights are noticed
def optimize(model: ModelT, dtype: torch.dtype | None = None, compile: bool = False) -> ModelT:
    """A copy of a model that answers as it does, faster, and learns nothing. The model itself stays as it is.

    Batch norms are folded into convolutions, maps are channels_last, FasterNet's blocks work in the memory of their
    input, and on the CPU convolutions and fully connected layers run on oneDNN's fused kernels, which keep the weights
    once more in an order of their own: see `fold_batch_norms` and `pack`. Where this release of PyTorch lacks one of
    these kernels, its public ones take over, with a warning: see `kernels_work`. On CUDA each part's launches are
    recorded at the second input of a size and repeated as one CUDA graph from then on: see `CudaGraphs`. Weights may
    be replaced and moved later; settings of PyTorch's that choose kernels are those of the recording.

    Args:
        model: a backbone, classifier, detector or segmenter; FasterNet's own layers gain most.
        dtype: of the backbone's, neck's and heads' arithmetic: ``torch.float16`` on CUDA, ``torch.bfloat16`` where the
            device has it. Everything else, as boxes and their suppression, stays in float32. Default: None, the
            model's own.
        compile: let ``torch.compile`` make the kernels of these parts instead; needs a C++ compiler on the CPU, Triton
            on a GPU, where they go into CUDA graphs as the others do. Compiles at the first image, and again at the
            first of another size. Default: False.

    Returns:
        The copy, in evaluation mode, on the model's device, its parameters frozen.

    Raises:
        InvalidArgument: the device does not compute in ``dtype``.
        UserError: later, at an image, the parts cannot be compiled. Nothing else runs in their place, so that
            measurements of compiled models are of such.
        RuntimeError: later, when gradients are asked for through the copy.
    """
    check_dtype(dtype, next(model.parameters()).device.type)
    optimized = copy.deepcopy(model).eval()
    fold_batch_norms(optimized)
    optimized.requires_grad_(False).to(memory_format=torch.channels_last)
    if not compile:
        pack(optimized)
    graphs = CudaGraphs()
    for part in _parts(optimized):
        part.forward = _Inference(part if dtype is None else part.to(dtype), dtype, compile, graphs)
    return optimized


def _parts(model: nn.Module) -> list[nn.Module]:
    """The parts that go from tensors to tensors by convolutions; the model itself where it has none of them."""
    parts = [module for name, module in model.named_modules() if _is_part(name.rpartition('.')[2], module)]
    inner = {id(child) for part in parts for child in part.modules() if child is not part}
    return [part for part in parts if id(part) not in inner] or [model]


def _is_part(name: str, module: nn.Module) -> bool:
    if name in ('backbone', 'neck') or isinstance(module, (FasterNet, FasterNetClassifier)):
        return True
    return _is_any_of(module, HEADS)


def _is_any_of(module: nn.Module, names: set[str]) -> bool:
    return not names.isdisjoint(kind.__name__ for kind in type(module).__mro__)


class _Inference:
    """The forward pass of a part without gradients, in a precision of its own, compiled or not, on a GPU in graphs."""

    def __init__(self, part: nn.Module, dtype: torch.dtype | None, compile: bool, graphs: CudaGraphs) -> None:
        self.part, self.dtype, self.compile, self.graphs = part, dtype, compile, graphs
        self.run = torch.compile(type(part).forward) if compile else type(part).forward
        self.recorded = Part(self._run, part, dtype, has_rows=_is_any_of(part, ROI_HEADS))

    def __getstate__(self) -> dict[str, Any]:
        return dict(part=self.part, dtype=self.dtype, compile=self.compile, graphs=self.graphs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        _Inference.__init__(self, **state)  # a compiled function can be neither copied nor pickled

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        with torch.no_grad():
            replayed = self.graphs.replay(self.recorded, inputs, options)
            outputs = replayed[0] if replayed else self._at_once(inputs, options)
        if not torch.is_grad_enabled():
            return outputs
        anchor = torch.empty(0, requires_grad=True)
        return apply_to(outputs, torch.is_tensor, lambda x: _NoGradient.apply(anchor, x))

    def _at_once(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Without a graph. Where memory does not suffice, that of the graphs is given up first."""
        if self.dtype is not None:
            inputs = apply_to(inputs, _is_floating, lambda x: x.to(self.dtype))
        try:
            outputs = self._run(*inputs, **options)
        except torch.cuda.OutOfMemoryError:
            if not self.graphs.clear():
                raise
            outputs = self._run(*inputs, **options)
        # Coordinates are computed from the outputs, and MMDetection rounds RoIs to the type of their maps.
        return outputs if self.dtype is None else apply_to(outputs, torch.is_tensor, Tensor.float)

    def _run(self, *inputs: Any, **options: Any) -> Any:
        if not self.compile:
            return self.run(self.part, *inputs, **options)
        # Compilation happens in a call; freezing takes the weights for constants, which it reorders once.
        with torch._inductor.config.patch(freezing=True):
            try:
                return self.run(self.part, *inputs, **options)
            except torch._dynamo.exc.TorchDynamoException as error:
                cause = getattr(error, 'inner_exception', error)
                reason = str(cause).strip().partition('\n')[0] or type(cause).__name__
                raise UserError(
                    f'torch.compile failed for {type(self.part).__name__} ({reason}): it needs a C++ compiler, such as '
                    f'g++, on a CPU and Triton on a GPU; install what is missing, or optimize without compile'
                ) from error


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


class _NoGradient(torch.autograd.Function):
    """Passes a value on, and no gradient back. ``anchor`` requires one, so that it is asked."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> None:
        raise RuntimeError(
            'there are no gradients through a model that fasternet_mm.optimize returned: '
            'take them through the model that it was given'
        )


@HOOKS.register_module()
class OptimizeHook(Hook):
    """Tests on an `optimize`-d copy of the runner's model.

    Args:
        dtype: 'float16' or 'bfloat16', see `optimize`. Default: None, in float32.
        bf16: the same as ``dtype='bfloat16'``. Default: False.

    Raises:
        InvalidArgument: the device does not compute in that.
    """

    priority = 'LOWEST'  # after those that change weights before a test, as the hook of averaged weights does

    def __init__(self, bf16: bool = False, dtype: str | None = None) -> None:
        self.dtype = short_dtype(dtype, bf16)
        check_dtype(self.dtype, device_of_choice())

    def before_test_epoch(self, runner: Runner) -> None:
        # Wrapped for several processes or for test-time augmentation, the model itself is .module.
        self.place = (runner.model, 'module') if hasattr(runner.model, 'module') else (runner, 'model')
        self.trained = getattr(*self.place)
        setattr(*self.place, optimize(self.trained, self.dtype))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        setattr(*self.place, self.trained)
