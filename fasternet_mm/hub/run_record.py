"""What a training says of itself for its model card: data, figures, recipe. It says no path and no machine's name."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from ..datasets.checks import dataset_of, learns_masks
from ..datasets.label_map_checks import scoped_type
from ..engine.recorded_config import values_of
from ..errors import UserError
from ..inference.tiled_testing import use_tiles
from ..report.training_log import read_training_logs
from ..weights.catalog import CATALOG
from ..weights.hugging_face import is_on_hub
from .published_files import TrainedRun

NAMES = {
    'MaskRCNN': 'Mask R-CNN',
    'FasterRCNN': 'Faster R-CNN',
    'RTMDet': 'RTMDet',
    'UPerHead': 'UPerNet',
    'FPNHead': 'Semantic FPN',
    'FCNHead': 'FCN',
}
"""How people call detectors, and segmenters by their heads."""

RANDOM = 'random weights'
"""What trainings start from that start from no weights."""

TESTED = 'fasternet-mm test WORK_DIR'
TRAINED = 'fasternet-mm train'
"""The commands that compute figures."""


@dataclass(frozen=True)
class CountedSplit:
    """A part of the data.

    Attributes:
        images: how many.
        objects: how many of each class; None of label maps.
    """

    images: int
    objects: Counter[str] | None


@dataclass(frozen=True)
class Figures:
    """What was measured of exactly the weights that are published.

    Attributes:
        metrics: by MMEngine's names.
        split: 'val' or 'test', as the config has them.
        command: what computed them.
    """

    metrics: dict[str, float]
    split: str
    command: str


def model_name(cfg: Config) -> str:
    """'RTMDet-Ins', 'UPerNet', …."""
    model = cfg.model
    head = _bare((model.get('bbox_head') or {}).get('type'))
    if head.startswith('RTMDetIns'):
        return 'RTMDet-Ins'
    kind = _bare((model.get('decode_head') or {}).get('type')) or _bare(model.type)
    return NAMES.get(kind, kind)


def task_of(run: TrainedRun) -> str:
    """'semantic-segmentation', 'instance-segmentation' or 'object-detection'."""
    if run.is_segmenter:
        return 'semantic-segmentation'
    return 'instance-segmentation' if learns_masks(run.cfg) else 'object-detection'


def splits_of(run: TrainedRun) -> dict[str, CountedSplit]:
    """What is in the data, by split, as far as it is at hand; a test set that is the validation set is left out."""
    init_default_scope(run.cfg.default_scope)
    datasets = {name: dataset_of(run.cfg, name) for name in ('train', 'val', 'test')}
    if _same_data(datasets['val'], datasets['test']):
        del datasets['test']
    splits = {name: _split(run.cfg, dataset) for name, dataset in datasets.items() if dataset}
    return {name: split for name, split in splits.items() if split}


def figures_of(run: TrainedRun) -> Figures | None:
    """The figures of the last test of the published checkpoint, else of its evaluation in training; None without both.

    A test counts if it was of the config's own test set, in float32, after the checkpoint was written.
    """
    test_is_val = _same_data(dataset_of(run.cfg, 'val'), dataset_of(run.cfg, 'test'))
    for file in sorted(run.work_dir.glob('*/*.json'), reverse=True):
        if file.stem == file.parent.name and _is_test_of(run, file):
            metrics = _numbers(file)
            if metrics:
                return Figures(metrics, 'val' if test_is_val else 'test', TESTED)
    try:
        (log,) = read_training_logs([run.work_dir])
    except UserError:
        return None
    for line in reversed(log.validation):
        at = {'epoch': line['epoch']} if 'epoch' in line else {'iter': line['step']}
        if at == run.done:
            return Figures({name: value for name, value in line.items() if _is_metric(name)}, 'val', TRAINED)
    return None


def recipe_of(run: TrainedRun) -> dict[str, str]:
    """How the model was trained, as rows of a table."""
    cfg = run.cfg
    loop, optimizer = cfg.get('train_cfg') or {}, (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    length = [
        f'{count:,} {"epochs" if unit == "epoch" else "steps"} of {loop.get(f"max_{unit}s", count):,}'
        for unit, count in run.done.items()
    ]
    hooks = {_bare(hook.get('type')) for hook in cfg.get('custom_hooks') or []}
    rows = {
        'started from': start_of(cfg),
        'length': ', '.join(length),
        'images per step and process': (cfg.get('train_dataloader') or {}).get('batch_size'),
        'optimizer': f'{_bare(optimizer.get("type"))}, learning rate {optimizer.get("lr")}' if optimizer else '',
        'weights': 'an exponential moving average over the training'
        if 'EMAHook' in hooks
        else 'those of the last step',
        'size of images': _size(run.description['config']['resize']),
        'seed': run.seed,
    }
    return {name: str(value) for name, value in rows.items() if value not in (None, '')}


def start_of(cfg: Config) -> str:
    """The weights that a training started from: published ones by name, others without their place."""
    if cfg.get('resume'):
        return 'weights that are not known, since the training was resumed'
    initial = (cfg.model.get('backbone') or {}).get('init_cfg') or {}
    source, place = cfg.get('load_from'), ''
    if not source and _bare(initial.get('type')) == 'Pretrained':
        source, place = initial.get('checkpoint'), ', in the backbone'
    if not source:
        return RANDOM
    is_public = source in CATALOG or is_on_hub(source)
    return f'{source}{place}' if is_public else f'weights of a file{place}'


def _size(resize: dict[str, Any]) -> str:
    if not resize:
        return 'their own'
    width, height = resize['scale']
    return f'resized to {"fit " if resize["keep_ratio"] else ""}{height} x {width} (H x W)'


def _split(cfg: Config, config: dict[str, Any]) -> CountedSplit | None:
    if not Path(config.get('data_root') or '.').exists():
        return None
    try:
        with redirect_stdout(StringIO()):  # where pycocotools tells what it does
            dataset = DATASETS.build(dict(copy.deepcopy(config), type=scoped_type(cfg, config), pipeline=[]))
    except (OSError, ValueError, TypeError, LookupError, AssertionError):  # of data that have gone
        return None
    if cfg.default_scope == 'mmseg':
        return CountedSplit(len(dataset), None)
    classes, objects = dataset.metainfo['classes'], Counter()
    for number in range(len(dataset)):
        objects.update(
            classes[instance['bbox_label']]
            for instance in dataset.get_data_info(number)['instances']
            if not instance.get('ignore_flag')
        )
    return CountedSplit(len(dataset), objects)


def _same_data(one: dict[str, Any], other: dict[str, Any]) -> bool:
    keys = 'type', 'data_root', 'ann_file', 'data_prefix', 'split', 'indices'
    return all(one.get(key) == other.get(key) for key in keys)


def _is_test_of(run: TrainedRun, file: Path) -> bool:
    """Whether a file of metrics is of the published checkpoint, as the config that the test wrote beside it says."""
    try:
        values = values_of(Path(file.parent, 'vis_data', 'config.py').read_text())
        expected = copy.deepcopy(run.cfg)
        if expected.get('tile'):
            use_tiles(expected, **expected.tile)
        return (
            file.stat().st_mtime >= run.checkpoint.stat().st_mtime
            and Path(values['load_from']).resolve() == run.checkpoint.resolve()
            and not values.get('load_options', {}).get('allow_mismatch')
            and not any(hook.get('dtype') for hook in values.get('custom_hooks') or [])
            and _what_is_tested(values) == _what_is_tested(expected)
        )
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _what_is_tested(cfg: Mapping[str, Any]) -> str:
    """The parts of a config that figures depend on, as text in which lists and tuples are the same."""
    tiles = [hook for hook in cfg.get('custom_hooks') or [] if _bare(hook['type']) == 'TilesHook']
    return json.dumps([cfg['model'], cfg['test_dataloader']['dataset'], tiles], default=str, sort_keys=True)


def _numbers(file: Path) -> dict[str, float]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    content = content if isinstance(content, dict) else {}
    return {name: value for name, value in content.items() if isinstance(value, float) and _is_metric(name)}


def _is_metric(name: str) -> bool:
    return name not in ('step', 'epoch', 'time', 'data_time', 'memory') and 'loss' not in name


def _bare(kind: object) -> str:
    """A type without its scope."""
    return str(kind or '').rpartition('.')[2]
