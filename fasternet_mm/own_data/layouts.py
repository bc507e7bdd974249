"""Which layout a folder of data has."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..data.coco import read_json
from ..errors import UserError
from .coco import is_coco, read_coco
from .content import Instances, Kind, LabelMaps, Problem
from .folder import DataFolder
from .label_maps import find_label_maps, read_label_maps
from .labelme import is_labelme, labelme_picture, to_labelme_instances
from .normal_form import AnnotatedPicture
from .pascal_voc import is_pascal_voc, read_pascal_voc
from .via import read_via, via_pictures
from .yolo import read_yolo, yolo_files

LAYOUTS = {
    True: 'COCO, VIA or LabelMe JSON, Pascal VOC XML, or YOLO with its data.yaml',
    False: 'PNG label maps in a folder such as labels, masks or annotations, named as the pictures',
}
"""What is looked for: for objects, and for label maps."""

PAGE = 'docs/your-own-data.md shows all layouts'


def read_own_data(folder: str, instances: bool | None = None, ignored: int | None = None) -> Instances | LabelMaps:
    """Recognise the layout of a folder's data and read them.

    Args:
        folder: has pictures and annotations, in one of the layouts of docs/your-own-data.md.
        instances: True where objects are needed, False where label maps are. Default: what there is, objects first.
        ignored: a label of label maps that does not count, beside 255.

    Returns:
        What was read, with the problems that were found. What is wrong is left out.

    Raises:
        UserError: no layout is recognised, or more than one.
    """
    files = DataFolder(folder)
    readers, problems = _instance_readers(files) if instances is not False else ({}, [])
    if len(readers) > 1:
        raise UserError(f'{folder} has annotations in {len(readers)} layouts ({", ".join(readers)}): leave one')
    for read in readers.values():
        data = read()
        data.problems[:0] = problems
        return data
    pairs, problems = find_label_maps(files)
    if pairs and not instances:
        return read_label_maps(files, pairs, problems, ignored)
    raise UserError(_not_recognised(files, instances is not False, bool(pairs)))


@dataclass
class _JsonFiles:
    """The content of JSON files by their layout, and what is wrong with others."""

    coco: dict[str, Any] = field(default_factory=dict)
    via: dict[str, dict[str, Any]] = field(default_factory=dict)
    labelme: list[AnnotatedPicture] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _instance_readers(folder: DataFolder) -> tuple[dict[str, Callable[[], Instances]], list[Problem]]:
    """What reads each layout that is there; and what is wrong with files that may be of any."""
    found, yolo = _json_files(folder), yolo_files(folder)
    readers = {
        'COCO': found.coco and (lambda: read_coco(folder, found.coco)),
        'VIA': found.via and (lambda: read_via(folder, found.via)),
        'LabelMe': found.labelme and (lambda: to_labelme_instances(folder, found.labelme, [])),
        'Pascal VOC': is_pascal_voc(folder) and (lambda: read_pascal_voc(folder)),
        'YOLO': yolo and (lambda: read_yolo(folder, yolo)),
    }
    return {layout: reader for layout, reader in readers.items() if reader}, found.problems


def _json_files(folder: DataFolder) -> _JsonFiles:
    found = _JsonFiles()
    for file in _of_instances(folder.ending('.json')):
        try:
            content = read_json(folder.root / file, 'annotations in JSON')
        except UserError as error:
            what = str(error).removeprefix(f'{folder.shown(file)} ')
            found.problems.append(Problem(folder.shown(file), what, Kind.MALFORMED))
            continue
        via = via_pictures(content)
        if is_coco(content):
            found.coco[file] = content
        elif via is not None:
            found.via[file] = via
        elif is_labelme(content):
            picture = labelme_picture(folder, file, content, found.problems)
            found.labelme += [picture] if picture else []
        else:
            found.problems.append(Problem(folder.shown(file), 'is JSON of no known layout', Kind.NOT_USED))
    return found


def _of_instances(files: list[str]) -> list[str]:
    """Where JSON files are named as COCO's instances, no others of their folder: captions and keypoints are there."""
    instances = {file for file in files if posixpath.basename(file).startswith('instances_')}
    places = {posixpath.dirname(file) for file in instances}
    return [file for file in files if file in instances or posixpath.dirname(file) not in places]


def _not_recognised(folder: DataFolder, instances: bool, has_label_maps: bool) -> str:
    """What was found, what was looked for, and what is nearest."""
    suffixes = Counter(posixpath.splitext(file)[1].lower() or 'without a suffix' for file in folder.files)
    kinds = ', '.join(f'{count} {suffix}' for suffix, count in suffixes.most_common(5))
    found = f'{folder.root} has {len(folder.files)} files ({kinds})'
    return f'{found}, but no {LAYOUTS[instances]}: {_nearest(folder, instances, has_label_maps)} ({PAGE})'


def _nearest(folder: DataFolder, instances: bool, has_label_maps: bool) -> str:
    if not folder.pictures:
        return 'put the pictures there too, or name the folder that has them'
    if has_label_maps:
        return 'it has label maps, for which there are the UPerNet and Semantic FPN configs'
    readers, problems = _instance_readers(folder)
    if readers:
        return f'it has {next(iter(readers))} annotations of objects, for which there are the R-CNN configs'
    severe = [problem for problem in problems if problem.severe]
    if severe:
        return f'{severe[0].file} {severe[0].what}'
    if not instances:
        return 'name the folder of label maps labels, and each of them as its picture'
    if any(map(_is_yolo, [folder.root / file for file in folder.ending('.txt')[:20]])):
        return (
            'the .txt files look like YOLO labels, so write a data.yaml with "train: FOLDER OF PICTURES" and '
            '"names: [FIRST CLASS, SECOND CLASS]"'
        )
    if folder.ending('.json'):
        return (
            f'{folder.shown(folder.ending(".json")[0])} is JSON, to which COCO is nearest: it has the lists images, '
            'annotations and categories'
        )
    if folder.ending('.xml'):
        return (
            f'{folder.shown(folder.ending(".xml")[0])} is XML, to which Pascal VOC is nearest: a file <annotation> for '
            'each picture'
        )
    return 'export the annotations from your labelling tool as COCO, the nearest for all others'


def _is_yolo(path: Any) -> bool:
    lines = [line.split() for line in path.read_text('utf-8', 'replace').splitlines()[:5] if line.strip()]
    number = re.compile(r'-?\d*\.?\d+(e-?\d+)?')
    return bool(lines) and all(len(line) >= 5 and all(map(number.fullmatch, line)) for line in lines)
