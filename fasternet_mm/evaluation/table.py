"""Metrics as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from terminaltables import AsciiTable

COCO_COLUMNS = {
    'mAP': 'AP',
    'mAP_50': 'AP50',
    'mAP_75': 'AP75',
    'mAP_s': 'AP small',
    'mAP_m': 'AP medium',
    'mAP_l': 'AP large',
    'AR@1': 'AR1',
    'AR@10': 'AR10',
    'AR@100': 'AR100',
    'AR_s@100': 'ARs',
    'AR_m@100': 'ARm',
    'AR_l@100': 'ARl',
}


def metric_table(metrics: Mapping[str, float]) -> str:
    """COCO metrics ('coco/bbox_mAP', …) one task a row; any others one metric a row. A dash where nothing counts."""
    tasks = [task for task in ('bbox', 'segm', 'proposal') if f'coco/{task}_mAP' in metrics]
    if tasks:
        keys = [key for key in COCO_COLUMNS if any(f'coco/{task}_{key}' in metrics for task in tasks)]
        rows = [['COCO', *(COCO_COLUMNS[key] for key in keys)]]
        rows += [[task, *(format_figure(metrics.get(f'coco/{task}_{key}', -1)) for key in keys)] for task in tasks]
    else:
        rows = [['metric', 'value'], *([name, format_figure(value)] for name, value in metrics.items())]
    return AsciiTable(rows).table


def class_table(task: str, classes: Mapping[str, Sequence[float]]) -> str:
    """The six APs of each class, the best class first."""
    ordered = sorted(classes.items(), key=lambda item: -item[1][0])
    rows = [[name, *map(format_figure, values)] for name, values in ordered]
    return AsciiTable([[task, *list(COCO_COLUMNS.values())[:6]], *rows]).table


def format_figure(value: float) -> str:
    return '–' if value == -1 or math.isnan(value) else f'{value:.3f}'
