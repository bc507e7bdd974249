"""Tables of data that were read, and lists of their problems, for the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from terminaltables import AsciiTable

from ..layouts.annotated_data import DetectionData, OwnData
from ..layouts.problems import Fault, Problem


def summary_table(data: OwnData) -> str:
    """The number of images of each split, and for each class that of the objects that are trained, or of label maps.

    Objects that are neither trained nor scored, and images without annotations, have rows of their own.
    """
    rows: dict[str, dict[str, int]] = {'images': {split: len(paths) for split, paths in data.image_paths.items()}}
    counted = 'label maps with'
    if isinstance(data, DetectionData):
        counted = 'class'
        rows['images without annotations'] = data.without_annotations
        objects = data.objects
        outlined = {split: sum('segmentation' in obj for obj in part) for split, part in objects.items()}
        boxed = {split: len(part) - outlined[split] for split, part in objects.items()}
        if any(outlined.values()):
            rows['objects with outlines'] = outlined
        if any(boxed.values()) or not any(outlined.values()):
            rows['objects with boxes'] = boxed
        ignored = {split: len(part) for split, part in data.ignored_regions.items()}
        if any(ignored.values()):
            rows['crowds or difficult, neither trained nor scored'] = ignored
    class_counts = data.class_counts
    for number, name in enumerate(data.classes):
        rows[f'{counted} {name}'] = {split: counts[number] for split, counts in class_counts.items()}
    cells = [[title, *(str(counts[split]) for split in data.splits)] for title, counts in rows.items()]
    return AsciiTable([[data.layout, *data.splits], *cells]).table


def problem_list(problems: Iterable[Problem], limit: int) -> str:
    """Problems by kind, those that must be mended first: for each kind their number and the first ``limit`` of them."""
    by_kind: dict[Fault, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_kind[problem.kind].append(problem)
    if not by_kind:
        return 'no problems'
    lines = []
    for kind in sorted(by_kind, key=lambda kind: not kind.severe):
        same = by_kind[kind]
        lines.append(f'{kind.title} ({len(same)}, {"to be mended" if kind.severe else "a warning"})')
        lines += [f'  {problem}' for problem in same[:limit]]
        if len(same) > limit:
            lines.append(f'  … and {len(same) - limit} more')
    return '\n'.join(lines)
