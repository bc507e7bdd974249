"""What a benchmark measured, as a JSON file and as tables."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from terminaltables import GithubFlavoredMarkdownTable

from ..errors import UserError
from ..files import write_atomically
from .detector_parts import PARTS

FORMAT_VERSION = 2
"""Of the files; 2 tells FLOP/s (``flops_per_second``) from FLOPs, and names the unit of memory (``_bytes``)."""

COLUMNS = {
    'networks': ['network', 'engine', 'images', 'p50', 'p95', 'images/s', 'GFLOP/s', 'of peak', '× baseline', 'memory'],
    'detectors': ['detector', 'engine', 'H × W', 'detections', 'p50', 'p95', '× baseline', 'memory', *PARTS],
    'models': ['model', 'H × W', 'parameters', 'p50', 'p95', 'accuracy'],
    'layers': ['operator', 'maps', 'p50', 'p95', 'GFLOP/s', 'of peak', '× baseline'],
    'training': ['backbone', 'mode', 'precision', 'p50', 'p95', '× baseline', 'activations', 'operators'],
    'detector-training': ['detector', 'heads', 'precision', 'p50', 'p95', '× baseline', 'step', 'operators'],
}
"""By kind of benchmark, the columns of its table. GFLOP/s is a rate: achieved, two operations for each multiply-add."""

TEXT_COLUMNS = {
    *('network', 'detector', 'model', 'operator', 'backbone', 'engine', 'mode', 'precision', 'heads', 'accuracy')
}
"""Those that are aligned at their left."""


def new_results(kind: str, machine: Mapping[str, Any], rounds: int, seconds: float) -> dict[str, Any]:
    """Results without any comparison yet.

    Returns:
        ``format_version``, ``kind`` (a key of `COLUMNS`), ``machine``: see `describe_machine`; ``rounds`` and
        ``seconds`` of a turn; ``comparisons``, to be filled with what `compare` returns.
    """
    return dict(
        format_version=FORMAT_VERSION, kind=kind, machine=machine, rounds=rounds, seconds=seconds, comparisons=[]
    )


def write_results(path: str | os.PathLike, results: Mapping[str, Any]) -> None:
    """As JSON; the file appears whole or not at all."""
    write_atomically(path, json.dumps(results, indent=1).encode())


def read_results(path: str | os.PathLike) -> dict[str, Any]:
    """What `write_results` wrote.

    Raises:
        UserError: the file is something else, or of another version of this package.
    """
    try:
        results = json.loads(Path(path).read_bytes())
        version, kind, _ = results['format_version'], results['kind'], results['comparisons'][0]['rows']
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f'{path} has no results of a benchmark: give what --out wrote') from error
    if version != FORMAT_VERSION or kind not in COLUMNS:
        raise UserError(f'{path} has results of another version: measure again')
    return results


def machine_line(results: Mapping[str, Any]) -> str:
    """One line about the machine and the run."""
    machine = results['machine']
    parts = [
        machine['processor'] if machine['device'] == 'CPU' else f'{machine["device"]}, {machine["processor"]}',
        f'{machine["cores"]} cores',
        f'{machine["threads"]} threads',
        machine['instructions'] + (', bfloat16' if machine['bfloat16'] else ''),
        f'{results["rounds"]} rounds',
        *(f'{name} {version}' for name, version in machine['packages'].items()),
    ]
    return '; '.join(parts)


def peak_line(comparison: Mapping[str, Any]) -> str:
    """What the machine's matrix products reached; empty where they were not measured."""
    parts = [
        f'{precision} {median(speeds) / 1e9:.0f} GFLOP/s ({min(speeds) / 1e9:.0f} to {max(speeds) / 1e9:.0f})'
        for precision, speeds in comparison['peak_flops_per_second'].items()
    ]
    return f'GEMM peak: {", ".join(parts)}' if parts else ''


def table(kind: str, comparison: Mapping[str, Any]) -> str:
    """A table, one line per candidate, in GitHub's Markdown; columns of which nothing is known are left out."""
    lines = [_cells(kind, row) for row in comparison['rows']]
    columns = [column for column in COLUMNS[kind] if any(column in cells for cells in lines)]
    drawn = GithubFlavoredMarkdownTable([columns, *([cells.get(column, '–') for column in columns] for cells in lines)])
    text = TEXT_COLUMNS - {*PARTS} if kind == 'detectors' else TEXT_COLUMNS
    drawn.justify_columns = {i: 'right' for i, column in enumerate(columns) if column not in text}
    return drawn.table


def _cells(kind: str, row: Mapping[str, Any]) -> dict[str, str]:
    """What is known about a candidate, by column."""
    name, engine = COLUMNS[kind][:2]
    cells = {engine: row['engine'], name: row['name'], 'p50': f'{row["p50"] * 1e3:.1f} ms'}
    cells['p95'] = f'{row["p95"] * 1e3:.1f} ms'
    cells['images/s'] = f'{row["images_per_second"]:.1f}'
    if kind == 'networks':
        cells['images'] = f'{row["images"]} × {row["height"]}×{row["width"]}'
    if kind == 'layers':
        cells['maps'] = f'{row["images"]} × {row["channels"]} × {row["side"]}²'
    if kind in ('detectors', 'models'):
        cells['H × W'] = f'{row["height"]}×{row["width"]}'
    if kind == 'models':
        cells['parameters'] = f'{row["parameters"] / 1e6:.1f} M'
        if row['accuracy']:
            cells['accuracy'] = '{data} box AP {box_ap}, {source}'.format(**row['accuracy'])
    if kind == 'detectors':
        if row['detections'] is not None:
            cells['detections'] = str(row['detections'])
        cells |= {part: f'{seconds * 1e3:.1f} ms' for part, seconds in row.get('parts', {}).items()}
    if kind in ('training', 'detector-training'):
        cells['precision'] = row['precision']
    if row.get('operators'):
        cells['operators'] = f'{row["operators"]:,}'
    if row['flops_per_second']:
        cells['GFLOP/s'] = f'{row["flops_per_second"] / 1e9:.1f}'
    if row['share_of_peak']:
        cells['of peak'] = f'{row["share_of_peak"]:.2f}'
    if row['ratio']:
        cells['× baseline'] = '{median:.2f} ({low:.2f}–{high:.2f})'.format(**row['ratio'])
    for column in ('memory', 'activations', 'step'):
        if row.get(f'{column}_bytes'):
            cells[column] = f'{row[f"{column}_bytes"] / 1e6:.0f} MB'
    return cells
