"""Models written to files that run without this package: ONNX, OpenVINO, torch.export, TorchScript."""

from __future__ import annotations

import copy
import inspect
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models import FasterRCNN, MaskRCNN
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmseg.models import EncoderDecoder
from torch import Tensor, nn

from ..acceleration.folding import fold_batch_norms
from ..datasets.checks import check_heads, dataset_of_test, meta_of_test_set
from ..datasets.image_pipeline import ImagePipeline, resizing
from ..datasets.image_reading import read_image
from ..engine.runner import build_model, check_writable
from ..errors import UserError
from ..extras import require
from ..files import appearing
from ..inference.inputs import find_images
from ..models.backbone import MIN_INPUT_SIZE
from ..weights.classes import load_trained
from .description import KEY, Description
from .detector_graph import DetectorGraph, check_detector
from .exported_models import fixed_settings
from .graphs import (
    BackboneGraph,
    Graph,
    Preparation,
    SegmenterGraph,
    check_segmenter,
    check_types,
    preparation_settings,
)
from .runtimes import SUFFIXES

OPSET = 17
"""ONNX's: that of 2022, which runtimes of all ages read; RoIAlign as ours is in ONNX from 16 on."""

BY_TRACING = dict(dynamo=False) if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
"""What has `torch.onnx.export` trace; before PyTorch 2.5 it could do nothing else."""

MIN_SIZE_TORCH_EXPORT = 65
"""torch.export takes a size of one pixel for a constant; from here on a map of stride 64 has two."""


def export(
    cfg: Config,
    checkpoint: str,
    file_format: str,
    out: str,
    backbone_alone: bool = False,
    prepared: bool = False,
    size: Sequence[int] | None = None,
    half: bool = False,
    calibration: Sequence[str] = (),
    allow_mismatch: bool = False,
) -> Description:
    """Write a config's model, or its backbone, to one file; OpenVINO's has its weights in a second, ``.bin``.

    Args:
        cfg: an MMDetection or MMSegmentation config.
        checkpoint: weights of exactly that model: see `local_file`.
        file_format: one of `SUFFIXES`.
        out: the file, with the format's suffix.
        backbone_alone, prepared: see `build_graph`. Default: False.
        size: (H, W) of all images that the file will take. Default: any.
        half: store weights in float16; computation stays as it is. ONNX and OpenVINO. Default: False.
        calibration: images, or folders of them, like those that the file is for: convolutions and matrix products
            are done in int8 on scales measured on these. OpenVINO. Default: none.
        allow_mismatch: take from the checkpoint what fits, and let its classes have other names. Default: False.

    Returns:
        What the file says of itself.

    Raises:
        UserError: the model, format, checkpoint or an option cannot be used; no file is written then.
    """
    _check_request(file_format, Path(out), size, half, calibration)
    images = find_images(calibration) if calibration else []
    model = build_model(cfg)
    check_exportable(model, backbone_alone)
    meta = dict(classes=[]) if backbone_alone else meta_of_test_set(cfg)
    if not backbone_alone:
        check_heads(cfg, 'test_dataloader.dataset', meta['classes'])
    load_trained(model, checkpoint, meta['classes'], allow_mismatch)
    check_writable(str(Path(out).parent))

    graph = build_graph(model, backbone_alone, prepared)
    description = Description(
        task=graph.task,
        outputs=list(graph.outputs),
        classes=list(meta['classes']),
        palette=[list(color) for color in meta.get('palette') or []],
        preparation=preparation_settings(model.data_preprocessor),
        prepared=prepared,
        size=None if size is None else list(size),
        min_size=MIN_SIZE_TORCH_EXPORT if file_format == 'torch-export' and size is None else MIN_INPUT_SIZE,
        weights='int8' if calibration else 'float16' if half else 'float32',
        test_cfg=fixed_settings(cfg) if graph.task == 'detection' else {},
        align_corners=graph.task == 'segmentation' and model.decode_head.align_corners,
        resize=None if backbone_alone else resizing(dataset_of_test(cfg).pipeline),
    )
    inputs = _calibration_inputs(model, cfg, images, description)
    with appearing(out) as path, _quiet(), _told(file_format):
        if file_format == 'openvino':
            _write_openvino(graph, description, path, inputs)
        else:
            writers = {'onnx': _write_onnx, 'torch-export': _write_torch_export, 'torchscript': _write_torchscript}
            writers[file_format](graph, description, path)
    return description


def check_exportable(model: nn.Module, backbone_alone: bool = False) -> None:
    """Raise `UserError` where the model, or a part of it, is of a kind whose arithmetic is not written here."""
    preparation_settings(model.data_preprocessor)
    if backbone_alone:
        return
    check_types('model', model, EncoderDecoder, FasterRCNN, MaskRCNN)
    if isinstance(model, EncoderDecoder):
        check_segmenter(model)
    else:
        check_detector(model)


def build_graph(model: nn.Module, backbone_alone: bool = False, prepared: bool = False) -> Graph:
    """What is to be exported of a detector or segmenter, after `check_exportable`; the model itself stays as it is.

    Args:
        model: MMDetection's or MMSegmentation's, with its weights.
        backbone_alone: leave out what comes after the backbone. Default: False.
        prepared: take images that are normalized and padded already. Default: False.
    """
    preparation = None if prepared else Preparation(**preparation_settings(model.data_preprocessor))
    # The one place where a network is rearranged for speed before it is exported.
    network = copy.deepcopy(model).eval().requires_grad_(False)
    fold_batch_norms(network)
    if backbone_alone:
        return BackboneGraph(network.backbone, preparation).eval()
    return (SegmenterGraph if isinstance(network, EncoderDecoder) else DetectorGraph)(network, preparation).eval()


def _check_request(
    file_format: str, out: Path, size: Sequence[int] | None, half: bool, calibration: Sequence[str]
) -> None:
    """Raise `UserError` for what could never be exported so, before anything is read."""
    if out.suffix != SUFFIXES[file_format]:
        raise UserError(f'--out {out}: --format {file_format} writes {SUFFIXES[file_format]} files, name it so')
    if half and file_format not in ('onnx', 'openvino'):
        raise UserError('--fp16 is for --format onnx and openvino: leave it out')
    if calibration and file_format != 'openvino':
        raise UserError('--int8 is for --format openvino: leave it out')
    if size is not None and min(size) < MIN_INPUT_SIZE:
        raise UserError(f'--size {size[0]} {size[1]}: images must have at least {MIN_INPUT_SIZE} pixels each way')
    if file_format == 'torch-export' and not hasattr(torch.export, 'Dim'):
        raise UserError(
            f'--format torch-export needs a newer PyTorch than {torch.__version__}: update it, or use torchscript'
        )
    needed = dict(onnx=['onnx'], openvino=['onnx', 'openvino']).get(file_format, [])
    for package in [*needed, *(['nncf'] if calibration else [])]:
        require(package, f'--format {file_format}' + (' --int8' if package == 'nncf' else ''))


def _images(description: Description, batch: int, height: int, width: int) -> Tensor:
    """Random images as the file will take them; of its one size where it has one."""
    shape = (batch, 3, *(description.size or (height, width)))
    generator = torch.Generator().manual_seed(0)
    if description.prepared:
        return torch.randn(shape, generator=generator)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@torch.no_grad()
def _check_same(graph: Graph, recorded: Callable[[Tensor], Sequence[Tensor]], description: Description) -> None:
    """Raise `UserError` where what was recorded on some images is not right for others."""
    for batch, height, width in [(1, 200, 136)] if description.size else [(1, 200, 136), (3, 128, 224)]:
        images = _images(description, batch, height, width)
        for wanted, found in zip(graph(images), recorded(images)):
            if wanted.shape != found.shape or not torch.allclose(wanted.float(), found.float(), 1e-4, 1e-4):
                raise UserError(
                    'this model cannot be exported for images of any size, since it treats sizes differently: '
                    'name the one it is for with --size'
                )


def _trace(graph: Graph, description: Description) -> torch.jit.ScriptModule:
    with torch.no_grad():
        traced = torch.jit.trace(graph, _images(description, 2, 160, 192), check_trace=False)
    _check_same(graph, traced, description)
    return traced


def _write_torchscript(graph: Graph, description: Description, path: Path) -> None:
    torch.jit.save(_trace(graph, description), str(path), {KEY: description.to_json()})


def _write_torch_export(graph: Graph, description: Description, path: Path) -> None:
    axes = {0: torch.export.Dim('batch', min=1)}
    if description.size is None:
        axes |= {2: torch.export.Dim('height', min=description.min_size)}
        axes |= {3: torch.export.Dim('width', min=description.min_size)}
    with torch.no_grad():
        images = _images(description, 2, 160, 192)
        program = torch.export.export(graph, (images,), dynamic_shapes=(axes,), strict=False)
    _check_same(graph, program.module(), description)
    torch.export.save(program, path, extra_files={KEY: description.to_json()})


def _write_onnx(graph: Graph, description: Description, path: Path) -> None:
    import onnx

    axes = {'images': {0: 'batch', 2: 'height', 3: 'width'}, **graph.outputs}
    if description.size is not None:
        free = ('batch', 'detections')
        axes = {name: {i: axis for i, axis in found.items() if axis in free} for name, found in axes.items()}
    torch.onnx.export(
        _trace(graph, description),
        (_images(description, 2, 160, 192),),
        str(path),
        **BY_TRACING,
        opset_version=OPSET,
        input_names=['images'],
        output_names=description.outputs,
        dynamic_axes=axes,
    )
    model = onnx.load(path)
    model.metadata_props.add(key=KEY, value=description.to_json())
    if description.weights == 'float16':
        _store_in_half(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _store_in_half(graph: Any) -> None:
    """Weights of an ONNX graph in float16, each with a Cast to float32 behind it, which engines do once, on loading."""
    from onnx import TensorProto, helper, numpy_helper

    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and len(weight.dims) > 1:
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f'{name}.half'))
            graph.node.insert(0, helper.make_node('Cast', [weight.name], [name], to=TensorProto.FLOAT))


def _write_openvino(graph: Graph, description: Description, path: Path, calibration: Sequence[np.ndarray]) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder, 'model.onnx')
        _write_onnx(graph, replace(description, weights='float32'), onnx_file)
        model = openvino.Core().read_model(onnx_file)  # openvino.convert_model would report to its makers
    if calibration:
        model = quantized(model, calibration)
    model.set_rt_info(description.to_json(), KEY)
    openvino.save_model(model, path, compress_to_fp16=description.weights == 'float16')


def quantized(model: Any, calibration: Sequence[np.ndarray]) -> Any:
    """An OpenVINO model with its convolutions and matrix products in int8, on scales measured on these inputs."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(sys.stderr):  # its progress bar
        return nncf.quantize(model, nncf.Dataset(calibration), subset_size=len(calibration))


def _calibration_inputs(model: nn.Module, cfg: Config, images: Sequence[Path], description: Description) -> list:
    """What the file will be given for each image: it goes through the config's test pipeline.

    Raises:
        UserError: a file is not an image, or has a size that the exported file will not take.
    """
    inputs = []
    pipeline = ImagePipeline(cfg) if images else None
    for image in images:
        data = pseudo_collate([pipeline(read_image(image))])
        given = model.data_preprocessor(data)['inputs'] if description.prepared else data['inputs'][0][None]
        try:
            description.check_size(*given.shape[-2:])
        except ValueError as error:
            raise UserError(f'--int8: {image} becomes {error}') from error
        inputs.append(given.numpy())
    return inputs


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings: what they warn of is checked on other images."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


@contextmanager
def _told(file_format: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f'the model cannot be exported as {file_format}: {reason[0]} (--debug tells more)') from error
