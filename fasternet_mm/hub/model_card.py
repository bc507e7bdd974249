"""The page of a published model, written from its training."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UserError
from ..evaluation.table import COCO_COLUMNS, format_figure
from ..version import __version__
from ..weights.catalog import CATALOG
from ..weights.checkpoint_layouts import arch_name, recognize
from .published_files import TrainedRun
from .run_record import (
    RANDOM,
    TESTED,
    CountedSplit,
    Figures,
    figures_of,
    model_name,
    recipe_of,
    splits_of,
    start_of,
    task_of,
)

PIPELINES = {
    'object-detection': 'object-detection',
    'instance-segmentation': 'image-segmentation',
    'semantic-segmentation': 'image-segmentation',
}
"""What the hub calls each task."""

INDEXED = {
    'coco/bbox_mAP': ('map', 'box AP'),
    'coco/bbox_mAP_50': ('map_50', 'box AP50'),
    'coco/segm_mAP': ('map', 'mask AP'),
    'coco/segm_mAP_50': ('map_50', 'mask AP50'),
    'mIoU': ('mean_iou', 'mIoU'),
    'aAcc': ('accuracy', 'pixel accuracy'),
}
"""Metrics that the hub shows beside the model: MMEngine's name, the hub's kind of metric, and ours."""

UNNAMED = 'data of its own'
"""What data are called that nobody named."""

COLUMN = {task: title for task, title in (('bbox', 'boxes'), ('segm', 'masks'))}


def model_card(run: TrainedRun, repository: str, license: str | None = None, data_name: str | None = None) -> str:
    """The text of a ``README.md`` as the hub wants it.

    Args:
        run: see `read_run`.
        repository: 'user/name'.
        license: of the model, by the hub's names, such as 'apache-2.0'. Default: the card says that none is stated.
        data_name: what to call the data. Default: 'shapes' for the embedded data, else no name.

    Raises:
        UserError: the license is no name of one.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    if license is not None and not re.fullmatch(r'[a-z0-9][a-z0-9.-]*', license):
        raise UserError(f'--license {license}: write the name that the hub has for it, such as apache-2.0 or other')
    is_embedded = 'Shapes' in str(run.cfg.train_dataloader.dataset.get('type'))
    data_name = data_name or ('shapes, embedded in fasternet-mm' if is_embedded else UNNAMED)
    task, figures = task_of(run), figures_of(run)
    results = [
        EvalResult(
            task_type=PIPELINES[task],
            dataset_type=re.sub(r'[^a-z0-9]+', '-', data_name.lower()).strip('-') or 'data',
            dataset_name=data_name,
            dataset_split=figures.split,
            metric_type=kind,
            metric_name=name,
            metric_value=round(figures.metrics[key], 3),
        )
        for key, (kind, name) in INDEXED.items()
        if figures and _is_number(figures.metrics.get(key))
    ]
    data = ModelCardData(
        library_name='fasternet-mm',
        pipeline_tag=PIPELINES[task],
        tags=['fasternet', 'mmsegmentation' if run.is_segmenter else 'mmdetection', task],
        license=license,
        model_name=repository.partition('/')[2],
        eval_results=results or None,
    )
    if not results:
        del data.model_name  # which belongs to the figures
    text = '\n'.join(
        [
            *_beginning(run, repository, task),
            *_data_section(run, splits_of(run), data_name),
            *_figures_section(run, figures),
            *_training_section(run),
            *_license_section(run, license),
            *_limits_section(data_name),
        ]
    )
    return str(ModelCard(f'---\n{data.to_yaml()}\n---\n\n{text}'))


def _beginning(run: TrainedRun, repository: str, task: str) -> list[str]:
    name, arch = model_name(run.cfg), arch_name(recognize(run.tensors, repository).arch)
    finds = {
        'object-detection': 'It finds objects in images, with a box for each.',
        'instance-segmentation': 'It finds objects in images, with a box and a mask for each.',
        'semantic-segmentation': 'It gives each pixel of an image a class.',
    }[task]
    return [
        f'# {name} with {arch}',
        '',
        f'{finds} Its backbone is FasterNet (CVPR 2023, [arXiv 2303.03667](https://arxiv.org/abs/2303.03667)). It was '
        f'trained with fasternet-mm, and published with its version {__version__}.',
        '',
        f'{len(run.classes)} classes: {", ".join(map(_escaped, run.classes))}.',
        '',
        '## How to use it',
        '',
        '```shell',
        "pip install 'fasternet-mm[tested,hub]'",
        f'fasternet-mm predict hf://{repository} images/',
        '```',
        '',
        '```python',
        'import fasternet_mm',
        '',
        f"prediction = fasternet_mm.Predictor('hf://{repository}')('street.jpg')",
        '```',
        '',
        f'`fasternet-mm train --data my_data --start hf://{repository}` trains it further, on images of your own. The '
        'weights and the settings are both in `model.safetensors`, which holds no code.',
        '',
    ]


def _data_section(run: TrainedRun, splits: Mapping[str, CountedSplit], data_name: str) -> list[str]:
    lines = ['## Data', '', f'Name: {_escaped(data_name)}.', '']
    if not splits:
        return [*lines, 'Its images were not counted: they were not at hand when this page was written.', '']
    rows = [['images', *(f'{split.images:,}' for split in splits.values())]]
    if all(split.objects is not None for split in splits.values()):
        rows += [
            [f'objects of class {_escaped(name)}', *(f'{split.objects[name]:,}' for split in splits.values())]
            for name in run.classes
        ]
    return [*lines, *_table(['', *splits], rows), '']


def _figures_section(run: TrainedRun, figures: Figures | None) -> list[str]:
    lines = ['## Figures', '']
    if figures is None:
        return [*lines, 'Nothing was measured: test it on images like yours before you rely on it.', '']
    by_task = [task for task in COLUMN if f'coco/{task}_mAP' in figures.metrics]
    if by_task:
        keys = [key for key in COCO_COLUMNS if any(f'coco/{task}_{key}' in figures.metrics for task in by_task)]
        rows = [
            [COLUMN[task], *(format_figure(figures.metrics.get(f'coco/{task}_{key}', -1)) for key in keys)]
            for task in by_task
        ]
        table = _table(['COCO', *(COCO_COLUMNS[key] for key in keys)], rows)
    else:
        table = _table(['metric', 'value'], [[name, format_figure(value)] for name, value in figures.metrics.items()])
    where = 'of exactly these weights' if figures.command == TESTED else 'when training had come to these weights'
    is_chosen = figures.split == 'val' and run.checkpoint.name.startswith('best_')
    return [
        *lines,
        *table,
        '',
        f'Measured by `{figures.command}` on the part `{figures.split}` of the data, {where}.',
        *(['They were chosen for being the best on that part: expect less on new images.'] if is_chosen else []),
        '',
    ]


def _training_section(run: TrainedRun) -> list[str]:
    return [
        '## Training',
        '',
        *_table(['setting', 'value'], [[name, value] for name, value in recipe_of(run).items()]),
        '',
    ]


def _license_section(run: TrainedRun, license: str | None) -> list[str]:
    stated = f'{license}, as who published the model says.' if license else 'Not stated: ask who published the model.'
    return ['## License', '', ' '.join([stated, license_of_start(run)]).strip(), '']


def license_of_start(run: TrainedRun) -> str:
    """Two sentences on the license of the weights that training started from; '' where they were random."""
    start = start_of(run.cfg)
    if start == RANDOM:
        return ''
    is_published = start.partition(',')[0] in CATALOG
    known = "is stated nowhere by FasterNet's authors" if is_published else 'is not known to fasternet-mm'
    return f'Training started from {start}. The license of those weights {known}.'


def _limits_section(data_name: str) -> list[str]:
    return [
        '## Limits',
        '',
        f'The figures are of images like those of the data ({_escaped(data_name)}), and say nothing of others. What is '
        'of no class of the list is overlooked, or taken for one of them. This page was written by '
        '`fasternet-mm push`; nobody has checked the data for bias.',
        '',
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f'| {" | ".join(row)} |' for row in (head, ['---'] * len(head), *rows)]


def _escaped(text: str) -> str:
    """Text of other people in Markdown: no HTML, no cell of a table, no code."""
    return re.sub(r'([\\`*_\[\]|])', r'\\\1', html.escape(' '.join(text.split()), quote=False))


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and value != -1 and math.isfinite(value)
