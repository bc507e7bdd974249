"""Finding what is wrong with data before a long run starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset

from ..errors import UserError, few
from ..models.backbone import MIN_INPUT_SIZE
from .coco_checks import check_objects
from .coco_json import read_annotations
from .label_map_checks import build_seg_dataset, check_label_maps, ignored_label, scoped_type


def check_data(cfg: Config, splits: Sequence[str]) -> None:
    """Check the folders, annotation files and classes that ``{split}_dataloader`` of a config would read.

    Raises:
        UserError: the first thing that is missing or does not fit.
    """
    for split in splits:
        for key, dataset in _datasets(cfg.get(f'{split}_dataloader', {}).get('dataset'), f'{split}_dataloader.dataset'):
            _check_dataset(cfg, split, key, dataset)


def _datasets(dataset: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The data sets that read files, out of wrappers (repeated, concatenated, mixed)."""
    if isinstance(dataset, (list, tuple)):
        for number, part in enumerate(dataset):
            yield from _datasets(part, f'{key}.{number}')
    elif dataset and 'dataset' in dataset:
        yield from _datasets(dataset['dataset'], f'{key}.dataset')
    elif dataset and 'datasets' in dataset:
        yield from _datasets(dataset['datasets'], f'{key}.datasets')
    elif dataset:
        yield key, dataset


def _check_dataset(cfg: Config, split: str, key: str, dataset: Any) -> None:
    root = Path(dataset.get('data_root') or '')
    annotations = dataset.get('ann_file')
    places = [value for value in (dataset.get('data_prefix') or {}).values() if isinstance(value, str)] + [annotations]
    for path in [root / place for place in places if place]:
        if not path.exists():
            raise UserError(
                f'{path} does not exist, which {key} reads: put or link the data at {root}, or name its folder with '
                f'--cfg-options {key}.data_root=FOLDER (configs/shapes need no data: they make their own)'
            )
    kind = scoped_type(cfg, dataset)
    segmentation = isinstance(DATASETS.get(kind), type) and issubclass(DATASETS.get(kind), BaseSegDataset)
    if not segmentation and annotations and annotations.endswith('.json'):
        _check_classes(cfg, key, dataset, root / annotations)
    if segmentation:
        data = build_seg_dataset(key, kind, dataset)
        if data is not None:
            check_heads(cfg, key, data.metainfo['classes'])
            ignored = ignored_label(cfg, split, key, dataset.pipeline)
            check_label_maps(key, data, ignored, dataset.pipeline, _least_side(cfg, split))


def _least_side(cfg: Config, split: str) -> int:
    """The least height and width, in pixels, of an image after it is resized: in training it is padded to more."""
    model = cfg.get('model', {})
    padded = split == 'train' or (model.get('data_preprocessor') or {}).get('test_cfg')
    is_ours = str((model.get('backbone') or {}).get('type')).endswith('FasterNet')
    return MIN_INPUT_SIZE if is_ours and not padded else 1


def _check_classes(cfg: Config, key: str, dataset: Any, path: Path) -> None:
    content = read_annotations(path)
    check_objects(path, content)
    names = [category['name'] for category in content['categories']]
    classes = dataset_meta(cfg, dataset).get('classes')
    if classes is None:
        return
    classes = [classes] if isinstance(classes, str) else list(classes)
    advice = f"set metainfo=dict(classes=(…)) of {key} to the file's, and num_classes of the heads to their number"
    missing = [name for name in classes if name not in names]
    if missing:
        raise UserError(
            f'{path} has the classes {few(names)}, but {key} expects {len(missing)} that it lacks: '
            f'{few(missing)}; {advice}'
        )
    # MMDetection numbers classes in the file's order, whatever the config's.
    in_file_order = [name for name in names if name in classes]
    if in_file_order != classes:
        raise UserError(
            f'{path} lists the classes in another order ({few(in_file_order)}) than {key} ({few(classes)}): {advice}'
        )
    check_heads(cfg, key, classes)


def check_heads(cfg: Config, key: str, classes: Sequence[str]) -> None:
    """Raise `UserError` unless each head of the config's model tells as many classes as the data set ``key`` has."""
    for head, number in _class_counts(cfg.get('model', {})):
        if number != len(classes):
            raise UserError(
                f'{head}={number}, but {key} has {len(classes)} classes ({few(classes)}): '
                f'set it with --cfg-options {head}={len(classes)}'
            )


def set_class_count(model: Any, count: int) -> None:
    """Let each head of a model's config tell ``count`` classes."""
    for path, _ in list(_class_counts(model)):
        node = model
        *parents, name = path.removeprefix('model.').split('.')
        for part in parents:
            node = node[int(part)] if isinstance(node, (list, tuple)) else node[part]
        node[name] = count


def dataset_meta(cfg: Config, dataset: Any) -> dict[str, Any]:
    """Classes and palette of a data set's config: its type's own, and over them its ``metainfo``."""
    kind = DATASETS.get(scoped_type(cfg, dataset))
    return {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}


def dataset_of(cfg: Config, split: str) -> ConfigDict:
    """The config of a split's data set, of the first one out of wrappers; empty where there is none."""
    datasets = _datasets((cfg.get(f'{split}_dataloader') or {}).get('dataset'), '')
    return next((dataset for _, dataset in datasets), ConfigDict())


def dataset_of_test(cfg: Config) -> ConfigDict:
    """`dataset_of` the split 'test'."""
    return dataset_of(cfg, 'test')


def meta_of_test_set(cfg: Config) -> dict[str, Any]:
    """`dataset_meta` of the test data set, of the first one out of wrappers.

    Raises:
        UserError: it has no classes; or its ``classes`` are text, which MMEngine takes for the path of a file of names,
            and there is no such file.
    """
    dataset = dataset_of_test(cfg)
    meta = dataset_meta(cfg, dataset) if dataset else {}
    if isinstance(meta.get('classes'), str):
        path = Path(meta['classes'])
        if not path.is_file():
            raise UserError(
                f'the test data set of the config has classes={str(path)!r}, which MMEngine takes for a file of names, '
                f'and there is none: give a tuple, such as ({str(path)!r},)'
            )
        meta['classes'] = list_from_file(path)
    if not meta.get('classes'):
        raise UserError(
            'the config has no test data set with classes: set metainfo=dict(classes=(…)) of its '
            'test_dataloader.dataset'
        )
    return meta


def learns_masks(cfg: Config) -> bool:
    """Whether a config trains on masks: a step that loads annotations for ``train_dataloader`` loads them, too."""
    return _loads_masks((cfg.get('train_dataloader') or {}).get('dataset'))


def _loads_masks(node: Any) -> bool:
    """Whether masks are loaded in a data set's config, its wrappers and pipelines, or in a part of these."""
    if isinstance(node, (list, tuple)):
        return any(_loads_masks(part) for part in node)
    if not isinstance(node, dict):
        return False
    if str(node.get('type')).endswith('LoadAnnotations') and node.get('with_mask'):
        return True
    return any(_loads_masks(part) for part in node.values())


def classes_of(cfg: Config, split: str) -> list[str] | None:
    """The classes of a split's data set, of the first one out of wrappers; None where its config does not say them."""
    for _, dataset in _datasets(cfg.get(f'{split}_dataloader', {}).get('dataset'), ''):
        classes = dataset_meta(cfg, dataset).get('classes')
        return list(classes) if isinstance(classes, (list, tuple)) else None  # MMEngine takes text for a file of names
    return None


def _class_counts(model: Any) -> Iterator[tuple[str, int]]:
    for path in (
        'bbox_head',
        'mask_head',
        'roi_head.bbox_head',
        'roi_head.mask_head',
        'decode_head',
        'auxiliary_head',
    ):
        node = model
        for part in path.split('.'):
            node = node.get(part) if hasattr(node, 'get') else None
        heads = (
            {f'{path}.{i}': head for i, head in enumerate(node)} if isinstance(node, (list, tuple)) else {path: node}
        )
        for place, head in heads.items():
            # STDCHead tells edges from the rest, whatever the classes.
            if hasattr(head, 'get') and isinstance(head.get('num_classes'), int) and head.get('type') != 'STDCHead':
                yield f'model.{place}.num_classes', head['num_classes']
