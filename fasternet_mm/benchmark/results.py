"""What a benchmark found, as a JSON file and as tables."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from terminaltables import GithubFlavoredMarkdownTable

from ..errors import UserError
from ..files import write_atomically

FORMAT_VERSION = 1

KINDS = ('networks', 'detectors', 'layers', 'training')


def new_results(kind: str, machine: Mapping[str, Any], rounds: int, seconds: float) -> dict[str, Any]:
    """Results without any comparison yet.

    Returns:
        ``format_version``, ``kind`` (one of `KINDS`), ``machine``: see `describe_machine`; ``rounds`` and ``seconds``
        of a turn; ``comparisons``, to be filled with what `compare` returns.
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
        version, kind, rows = results['format_version'], results['kind'], results['comparisons'][0]['rows']
        whole = version == FORMAT_VERSION and kind in KINDS and all(map(len, rows)) and results['machine']['processor']
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f'{path} has no results of tools/benchmark.py: give what its --out wrote') from error
    if not whole:
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
        for precision, speeds in comparison['peaks'].items()
    ]
    return f'GEMM peak: {", ".join(parts)}' if parts else ''


def table(kind: str, comparison: Mapping[str, Any]) -> str:
    """A table, one line per candidate, in GitHub's Markdown."""
    columns = {name: cell for name, cell in COLUMNS[kind].items() if any(map(cell, comparison['rows']))}
    rows = [[cell(row) or '–' for cell in columns.values()] for row in comparison['rows']]
    drawn = GithubFlavoredMarkdownTable([list(columns), *rows])
    drawn.justify_columns = dict.fromkeys(range(TEXT_COLUMNS[kind], len(columns)), 'right')
    return drawn.table


def _seconds(key: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: f'{row[key] * 1e3:.1f} ms'


def _ratio(row: Mapping[str, Any]) -> str:
    ratio = row['ratio']
    return f'{ratio["median"]:.2f} ({ratio["low"]:.2f}–{ratio["high"]:.2f})' if ratio else ''


def _bytes(key: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: f'{row[key] / 1e6:.0f} MB' if row.get(key) else ''


def _speed(row: Mapping[str, Any]) -> str:
    return f'{row["flops"] / 1e9:.1f}' if row['flops'] else ''


def _of_peak(row: Mapping[str, Any]) -> str:
    return f'{row["of_peak"]:.2f}' if row['of_peak'] else ''


_TIME = {'p50': _seconds('p50'), 'p95': _seconds('p95')}
_IMAGES = {'images/s': lambda row: f'{row["images_per_second"]:.1f}'}
_SPEED = {'GFLOP/s': _speed, 'of peak': _of_peak}
_RATIO = {'× baseline': _ratio}
_MEMORY = {'memory': _bytes('memory')}

COLUMNS: dict[str, dict[str, Callable[[Mapping[str, Any]], str]]] = {
    'networks': {
        'network': lambda row: row['name'],
        'engine': lambda row: row['engine'],
        'images': lambda row: f'{row["images"]} × {row["height"]}×{row["width"]}',
        **_TIME,
        **_IMAGES,
        **_SPEED,
        **_RATIO,
        **_MEMORY,
    },
    'detectors': {
        'detector': lambda row: row['name'],
        'engine': lambda row: row['engine'],
        'found': lambda row: str(row['found']),
        **_TIME,
        **_RATIO,
        **_MEMORY,
    },
    'layers': {
        'operator': lambda row: row['name'],
        'maps': lambda row: f'{row["images"]} × {row["channels"]} × {row["side"]}²',
        **_TIME,
        **_SPEED,
        **_RATIO,
    },
    'training': {
        'backbone': lambda row: row['name'],
        'mode': lambda row: row['engine'],
        **_TIME,
        **_RATIO,
        'peak': _bytes('peak'),
    },
}
"""By kind of benchmark, the columns of its table: from a row to a cell, '' where nothing is known."""

TEXT_COLUMNS = dict(networks=2, detectors=2, layers=1, training=2)
"""How many of them are words."""
