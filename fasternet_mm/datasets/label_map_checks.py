"""Finding what is wrong with the label maps of a segmentation data set before a long run starts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from mmcv import rescale_size
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, TRANSFORMS, Registry
from mmengine.utils import is_seq_of
from mmseg.datasets import BaseSegDataset

from ..errors import UserError, few
from ..parallel import in_threads
from .image_files import ImageFileError, image_size, labels_in, read_label_map


def build_seg_dataset(key: str, kind: str, config: Any) -> BaseSegDataset | None:
    """A segmentation data set without its pipeline: its files, classes and options as a run would have them.

    Args:
        key: where the config has the data set, for messages.
        kind: its type, with scope.
        config: its config.

    Returns:
        The data set, or None where the label maps are not read by MMSegmentation's ``LoadAnnotations``.

    Raises:
        UserError: it cannot be built, or has no classes or no images.
    """
    if not {step['type'] for step in config.get('pipeline', ())} & {'LoadAnnotations', 'mmseg.LoadAnnotations'}:
        return None
    try:
        data = DATASETS.build(dict(config, type=kind, pipeline=[], serialize_data=False))
    except (ValueError, TypeError, LookupError, AssertionError) as error:
        message = str(error.args[0]) if error.args else type(error).__name__
        raise UserError(f'{key} cannot be built: {shorten(message, 300)}') from error
    if not data.metainfo.get('classes'):
        raise UserError(f'{key} has no classes: set its metainfo=dict(classes=(…)) in the order of their indices')
    if not data.data_list:
        cause = f'no file in {data.data_prefix["img_path"]} has that suffix'
        if data.ann_file:
            cause = f'{data.ann_file} is empty'
        raise UserError(f'{key} has no images with img_suffix={data.img_suffix!r}: {cause}')
    return data


def ignored_label(cfg: Config, split: str, key: str = '', pipeline: Sequence[Any] = ()) -> int:
    """The label that does not count, for the losses of a segmenter's heads, its padding and the metrics of a split.

    Args:
        cfg: of the segmenter.
        split: 'train', 'val' or 'test'.
        key: where the config has the data set of the split, for messages.
        pipeline: of that data set, whose steps may pad too.

    Raises:
        UserError: they contradict each other.
    """
    places = dict(_ignored_labels(cfg, split, key, pipeline))
    first, ignored = next(iter(places.items()), ('', 255))
    for place, label in places.items():
        if label != ignored:
            raise UserError(
                f'{place}={label}, but {first}={ignored}, so pixels that count for the one do not for the other: set '
                f'{place}={ignored}, or both to the label that does not count'
            )
    return ignored


def _ignored_labels(cfg: Config, split: str, key: str, pipeline: Sequence[Any]) -> Iterator[tuple[str, int]]:
    model = cfg.get('model', {})
    for name in ('decode_head', 'auxiliary_head'):
        for place, head in _parts(f'model.{name}', model.get(name)):
            yield f'{place}.ignore_index', head.get('ignore_index', 255)
    if model.get('data_preprocessor'):
        yield 'model.data_preprocessor.seg_pad_val', model.data_preprocessor.get('seg_pad_val', 255)
    evaluator = cfg.get(f'{split}_evaluator')
    metrics = evaluator.get('metrics') if hasattr(evaluator, 'get') else None
    for place, metric in _parts(f'{split}_evaluator' + ('.metrics' if metrics else ''), metrics or evaluator):
        yield from _setting(cfg, METRICS, place, metric, 'ignore_index')
    for place, step in _parts(f'{key}.pipeline', list(pipeline)):
        yield from _setting(cfg, TRANSFORMS, place, step, 'seg_pad_val')
        for where, padding in _setting(cfg, TRANSFORMS, place, step, 'pad_val'):
            if isinstance(padding, dict) and 'seg' in padding:
                yield f'{where}.seg', padding['seg']


def _setting(cfg: Config, registry: Registry, place: str, part: Any, name: str) -> Iterator[tuple[str, Any]]:
    """An option of a part of a config, or its default, where the part's class has it."""
    option = inspect.signature(registry.get(scoped_type(cfg, part)) or object).parameters.get(name)
    if option:
        yield f'{place}.{name}', part.get(name, option.default)


def scoped_type(cfg: Config, part: Any) -> str:
    """The type of a part of a config, with its scope: 'mmdet.CocoDataset'."""
    return part['type'] if '.' in part['type'] else f'{cfg.get("default_scope", "mmengine")}.{part["type"]}'


def _parts(place: str, config: Any) -> Iterator[tuple[str, Any]]:
    """A part of a config that may be one, a list, or missing."""
    if isinstance(config, (list, tuple)):
        for number, part in enumerate(config):
            yield f'{place}.{number}', part
    elif config:
        yield place, config


def check_label_maps(
    key: str, data: BaseSegDataset, ignored: int, pipeline: Sequence[Any] = (), least_side: int = 1
) -> None:
    """Check that every image has a label map, of its size, in which each pixel is a class or ignored.

    Args:
        key: where the config has the data set, for messages.
        data: what `build_seg_dataset` gave.
        ignored: the label that does not count, by `ignored_label`; MMSegmentation's data sets have an ``ignore_index``
            too, which nothing reads.
        pipeline: of the data set; its steps may make an image too small.
        least_side: the least height and width of an image after them.

    Raises:
        UserError: what is wrong with the first bad label map, and how many are bad; or 8 bits, which MMSegmentation
            reads, do not hold the labels.
    """
    allowed, rule = _allowed_labels(key, data, ignored)

    def problem(pair: dict[str, Any]) -> str | None:
        image, label_map = pair['img_path'], pair['seg_map_path']
        return _problem(image, label_map, allowed, rule) or _too_small(image, pipeline, least_side)

    problems = [text for text in in_threads(problem, data.data_list, 'checking label maps') if text]
    if problems:
        count = len(data.data_list)
        raise UserError(f'{problems[0]} ({len(problems)} of the {count} label maps of {key} are bad)')


def _allowed_labels(key: str, data: BaseSegDataset, ignored: int) -> tuple[set[int], str]:
    first = int(data.reduce_zero_label)
    # Label maps number the type's own classes, of which the config may choose some.
    last = first + len(data.label_map or data.metainfo['classes']) - 1
    if last >= 255:
        raise UserError(
            f'{key} has labels up to {last}, but MMSegmentation reads label maps as 8 bits, 0 to 254 and 255 where a '
            'pixel does not count: have fewer classes'
        )
    if data.reduce_zero_label and ignored != 255:
        raise UserError(
            f'{key} has reduce_zero_label=True, by which the labels 0 and 255 become 255, but the heads, padding and '
            f'metrics ignore {ignored}: set them to 255'
        )
    left_out = [0, 255] if data.reduce_zero_label else [ignored]
    rule = f'{first} to {last} are classes, {" and ".join(map(str, left_out))} ignored'
    return {*range(first, last + 1), *left_out}, f'{rule} (reduce_zero_label={data.reduce_zero_label})'


def _problem(image: str, label_map: str, allowed: set[int], rule: str) -> str | None:
    try:
        size, labels = image_size(image), read_label_map(label_map)
    except ImageFileError as error:
        lacks_label_map = Path(image).exists() and not Path(label_map).exists()
        return f'{error}, the label map of {image}' if lacks_label_map else str(error)
    if labels.shape != size:
        return '{} has {}x{} pixels (H x W), its image {} {}x{}'.format(label_map, *labels.shape, image, *size)
    unknown = sorted(labels_in(labels) - allowed)
    return f'{label_map} has the labels {few(unknown)}, but {rule}' if unknown else None


def _too_small(image: str, pipeline: Sequence[Any], least_side: int) -> str | None:
    height, width = image_size(image)
    resized_height, resized_width = _resized((height, width), pipeline)
    if min(resized_height, resized_width) >= least_side:
        return None
    return (
        f'{image} of {height}x{width} pixels (H x W) becomes {resized_height}x{resized_width}, and each side must have '
        f'{least_side} or more: leave it out, or make the scale of Resize larger'
    )


def _resized(size: tuple[int, int], pipeline: Sequence[Any]) -> tuple[int, int]:
    """Height and width at least after the steps of a pipeline that resize to one scale, which has MMCV's (w, h)."""
    size = size[::-1]
    for step in pipeline:
        scale = step.get('scale')
        if step['type'].split('.')[-1] in ('Resize', 'RandomResize') and is_seq_of(scale, int):
            factor = step.get('ratio_range', (1, 1))[0]
            scale = tuple(int(side * factor) for side in scale)
            size = rescale_size(size, scale) if step.get('keep_ratio') else scale
    return size[::-1]
