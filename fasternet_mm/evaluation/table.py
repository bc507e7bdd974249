"""Metrics as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from terminaltables import AsciiTable

COCO_COLUMNS = {
    'mAP': 'AP',
    'mAP_50': 'AP50',
    'mAP_75': 'AP75',
    'mAP_s': 'AP small',
    'mAP_m': 'AP medium',
    'mAP_l': 'AP large',
}


def metric_table(metrics: Mapping[str, float]) -> str:
    """COCO metrics ('coco/bbox_mAP', …) one task a row; any others one metric a row. A dash where nothing counts."""
    tasks = [task for task in ('bbox', 'segm') if f'coco/{task}_mAP' in metrics]
    if tasks:
        rows = [['COCO', *COCO_COLUMNS.values()]]
        rows += [[task, *(_format(metrics.get(f'coco/{task}_{key}', -1)) for key in COCO_COLUMNS)] for task in tasks]
    else:
        rows = [['metric', 'value'], *([name, _format(value)] for name, value in metrics.items())]
    return AsciiTable(rows).table


def _format(value: float) -> str:
    return '–' if value == -1 else f'{value:.3f}'
