"""A trained model written to a file that runs without this package."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from mmdet.models import FasterRCNN, MaskRCNN, RTMDet
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmseg.models import EncoderDecoder

from ..acceleration.folding import fold_batch_norms
from ..datasets.checks import check_heads, dataset_of_test, meta_of_test_set
from ..datasets.image_pipeline import ImagePipeline, resizing
from ..datasets.image_reading import read_image
from ..datasets.image_search import find_files
from ..engine.runner import build_model
from ..engine.trained_model import find_trained_model
from ..errors import UserError
from ..extras import require
from ..files import appearing, check_writable
from ..models.backbone import MIN_INPUT_SIZE, InvalidArgument
from ..weights.classes import load_trained
from .description import Description
from .exported_models import fixed_settings
from .formats import FORMATS, ExportFormat, all_suffixes, format_of, formats_with
from .graphs import (
    BackboneGraph,
    Graph,
    Preparation,
    SegmenterGraph,
    check_segmenter,
    check_types,
    preparation_settings,
)
from .single_stage_graph import SingleStageGraph, check_single_stage
from .two_stage_graph import TwoStageGraph, check_two_stage
from .writers import WRITERS


def export(
    source: str | PathLike | Config,
    checkpoint: str | PathLike | None = None,
    *,
    out: str | PathLike,
    format: str | None = None,
    backbone_alone: bool = False,
    prepared: bool = False,
    size: Sequence[int] | None = None,
    fp16: bool = False,
    calibration: Sequence[str | PathLike] = (),
    allow_mismatch: bool = False,
    cfg_options: Sequence[str] = (),
) -> Description:
    """Write a trained model, or its backbone, to a file: ``export('work_dirs/mine', out='model.onnx')``.

    Args:
        source: the model, see `find_trained_model`.
        checkpoint: its weights, see `find_trained_model`.
        out: the file; its suffix is that of the format. OpenVINO's has its weights in a second file, ``.bin``.
        format: as ``fasternet-mm export --help`` lists them. Default: the one that the suffix of ``out`` belongs to.
        backbone_alone: leave out what comes after the backbone. Default: False.
        prepared: take images that are normalized and padded already. Default: False.
        size: (H, W) of all images that the file will take. Default: any.
        fp16: store weights in float16; computation stays as it is. Default: False.
        calibration: images, or folders of them, like those that the file is for: convolutions and matrix products
            are done in int8 on scales measured on these. Default: none.
        allow_mismatch: take from the checkpoint what fits, and let its classes have other names. Default: False.
        cfg_options: changes of the config: 'key=value', as with ``--cfg-options``.

    Returns:
        What the file says of itself.

    Raises:
        UserError: the model, format, checkpoint or an option cannot be used; no file is written then.
    """
    export_format = _checked_format(format, Path(out), fp16, calibration)
    if size is not None and min(size) < MIN_INPUT_SIZE:
        raise UserError(f'--size {size[0]} {size[1]}: images must have at least {MIN_INPUT_SIZE} pixels each way')
    image_files = find_files([str(name) for name in calibration])
    cfg, weights = find_trained_model(source, checkpoint, cfg_options)
    model = build_model(cfg)
    _check_exportable(model, backbone_alone)
    meta = dict(classes=[]) if backbone_alone else meta_of_test_set(cfg)
    if not backbone_alone:
        check_heads(cfg, 'test_dataloader.dataset', meta['classes'])
    load_trained(model, weights, meta['classes'], allow_mismatch)
    check_writable(str(Path(out).parent))

    graph = _build_graph(model, backbone_alone, prepared)
    least = max(MIN_INPUT_SIZE, export_format.least_free_side if size is None else 0)
    if size is not None and any(side % graph.size_divisor for side in size):
        raise UserError(
            f'--size {size[0]} {size[1]}: this network takes heights and widths that are multiples of '
            f'{graph.size_divisor}'
        )
    description = Description(
        task=graph.task,
        outputs=list(graph.outputs),
        classes=list(meta['classes']),
        palette=[list(color) for color in meta.get('palette') or []],
        preparation=preparation_settings(model.data_preprocessor),
        prepared=prepared,
        size=None if size is None else list(size),
        min_size=-(-least // graph.size_divisor) * graph.size_divisor,
        weights='int8' if calibration else 'float16' if fp16 else 'float32',
        test_cfg=fixed_settings(cfg) if graph.task == 'detection' else {},
        align_corners=graph.task == 'segmentation' and model.decode_head.align_corners,
        resize=None if backbone_alone else resizing(dataset_of_test(cfg).pipeline),
        size_divisor=graph.size_divisor,
        mask_stride=graph.mask_stride,
    )
    inputs = _calibration_inputs(model, cfg, image_files, description)
    with appearing(out) as path, _exporting_as(export_format):
        WRITERS[export_format.name](graph, description, path, inputs)
    return description


def _checked_format(name: str | None, out: Path, fp16: bool, calibration: Sequence[str | PathLike]) -> ExportFormat:
    """The format of an export; raises `UserError` for what could never be exported so, before anything is read."""
    if name is not None and name not in FORMATS:
        raise UserError(f'--format {name} is unknown: use {", ".join(FORMATS)}')
    export_format = format_of(out) if name is None else FORMATS[name]
    if export_format is None:
        raise UserError(f'--out {out}: its suffix belongs to none of the formats: use {all_suffixes()}')
    option = f'--format {export_format.name}'
    if out.suffix != export_format.suffix:
        raise UserError(f'--out {out}: {option} writes {export_format.suffix} files, name it so')
    if fp16 and not export_format.fp16:
        raise UserError(f'--fp16 is for the formats {formats_with("fp16")}: leave it out, or choose another format')
    if calibration and not export_format.int8:
        raise UserError(f'--int8 is for the formats {formats_with("int8")}: leave it out, or choose another format')
    if export_format.name == 'torch-export' and not hasattr(torch.export, 'Dim'):
        raise UserError(f'{option} needs a newer PyTorch than {torch.__version__}: update it, or use torchscript')
    for package in export_format.packages:
        require(package, option)
    if calibration:
        require('nncf', f'{option} --int8')
    return export_format


def _check_exportable(model: BaseModel, backbone_alone: bool) -> None:
    """Raise `UserError` where the model, or a part of it, is of a kind whose arithmetic is not written here."""
    preparation_settings(model.data_preprocessor)
    if backbone_alone:
        return
    check_types('model', model, EncoderDecoder, FasterRCNN, MaskRCNN, RTMDet)
    if isinstance(model, EncoderDecoder):
        check_segmenter(model)
    elif isinstance(model, RTMDet):
        check_single_stage(model)
    else:
        check_two_stage(model)


def _build_graph(model: BaseModel, backbone_alone: bool, prepared: bool) -> Graph:
    """What is to be exported of a detector or segmenter; the model itself stays as it is."""
    preparation = None if prepared else Preparation(**preparation_settings(model.data_preprocessor))
    network = copy.deepcopy(model).eval().requires_grad_(False)
    fold_batch_norms(network)
    if backbone_alone:
        return BackboneGraph(network.backbone, preparation).eval()
    if isinstance(network, EncoderDecoder):
        return SegmenterGraph(network, preparation).eval()
    graph = SingleStageGraph if isinstance(network, RTMDet) else TwoStageGraph
    return graph(network, preparation).eval()


def _calibration_inputs(
    model: BaseModel, cfg: Config, image_files: Sequence[str], description: Description
) -> list[np.ndarray]:
    """What the file will be given for each image, which goes through the config's test pipeline.

    Raises:
        UserError: a file is not an image, or has a size that the exported file will not take.
    """
    if not image_files:
        return []
    inputs = []
    pipeline = ImagePipeline(cfg)
    for file in image_files:
        data = pseudo_collate([pipeline(read_image(file))])
        images = model.data_preprocessor(data)['inputs'] if description.prepared else data['inputs'][0][None]
        try:
            description.check_size(*images.shape[-2:])
        except InvalidArgument as error:
            raise UserError(f'--int8: {file} becomes {error}') from error
        inputs.append(images.numpy())
    return inputs


@contextmanager
def _exporting_as(export_format: ExportFormat) -> Iterator[None]:
    """Tell what exporters fail on in one sentence; leave out what they warn of, which is checked on other images."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f'the model cannot be exported as {export_format.name}: {reason[0]} (--debug tells more)'
        ) from error
