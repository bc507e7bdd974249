"""What was read, and what is wrong with it, for the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from terminaltables import AsciiTable

from .content import Instances, Kind, LabelMaps, Problem


def summary_table(data: Instances | LabelMaps) -> str:
    """Pictures, objects and classes of each split: of objects their number, of label maps those that have the class."""
    splits = list(data.splits)
    rows = [[data.layout, *splits], ['pictures', *(str(len(data.pictures[split])) for split in splits)]]
    counted = 'label maps with'
    if isinstance(data, Instances):
        counted = 'objects with outlines' if data.with_masks else 'objects with boxes'
        rows.append([counted, *(str(len(data.splits[split]['annotations'])) for split in splits)])
        counted = 'class'
    for number, name in enumerate(data.classes):
        rows.append([f'{counted} {name}', *(str(data.class_counts[split][number]) for split in splits)])
    return AsciiTable(rows).table


def problem_list(problems: Iterable[Problem], shown: int) -> str:
    """Problems by kind, those that must be mended first; of each kind the first ones and how many there are."""
    by_kind: dict[Kind, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_kind[problem.kind].append(problem)
    if not by_kind:
        return 'no problems'
    lines = []
    for kind in sorted(by_kind, key=lambda kind: not kind.severe):
        found = by_kind[kind]
        lines.append(f'{kind.title} ({len(found)}, {"to be mended" if kind.severe else "a warning"})')
        lines += [f'  {problem}' for problem in found[:shown]]
        lines += [f'  … and {len(found) - shown} more'] if len(found) > shown else []
    return '\n'.join(lines)
