"""Which layout a folder of data has."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...datasets.coco_json import read_json
from ...errors import UserError, few
from .annotated_data import DetectionData, Fault, Problem, SegmentationData
from .coco import is_coco, read_coco
from .data_folder import DataFolder, stem
from .label_maps import find_label_maps, read_label_maps
from .labelme import is_labelme, read_labelme
from .pascal_voc import is_pascal_voc, read_pascal_voc
from .via import read_via, via_images
from .yolo import read_yolo, yolo_files

LAYOUTS = {
    True: 'COCO, VIA or LabelMe JSON, Pascal VOC XML, or YOLO with its data.yaml',
    False: 'PNG label maps in a folder such as labels, masks or annotations, named as the images',
}
LAYOUTS[None] = f'{LAYOUTS[True]}, and no {LAYOUTS[False]}'
"""What is looked for: for objects, for label maps, and where both will do."""

SHOWN_BEFORE = 3
"""Problems that are shown where reading has to end."""

PAGE = 'docs/your-own-data.md shows all layouts'


def read_own_data(
    folder: str, instances: bool | None = None, ignored: int | None = None
) -> DetectionData | SegmentationData:
    """Recognize the layout of a folder's data and read them.

    Args:
        folder: has images and annotations, in one of the layouts of docs/your-own-data.md.
        instances: True where objects are needed, False where label maps are. Default: what there is, objects first.
        ignored: a label of label maps that does not count, beside 255.

    Returns:
        What was read, with the problems that were found. What is wrong is left out.

    Raises:
        UserError: no layout is recognized, or more than one.
    """
    files, problems = DataFolder(folder), []
    try:
        return _read(files, instances, problems, ignored)
    except UserError as error:
        raise UserError(f'{error}{_before(problems)}') from error


def _read(
    folder: DataFolder, instances: bool | None, problems: list[Problem], ignored: int | None
) -> DetectionData | SegmentationData:
    readers = _instance_readers(folder, problems) if instances is not False else {}
    if len(readers) > 1:
        raise UserError(
            f'{folder.root} has annotations in {len(readers)} layouts ({", ".join(readers)}): leave one, or name the '
            'folder of one'
        )
    for read in readers.values():
        return read()
    of_label_maps: list[Problem] = []
    label_maps = find_label_maps(folder, of_label_maps)
    if label_maps and not instances:
        problems[:] = of_label_maps
        return read_label_maps(folder, label_maps, problems, ignored)
    nearest = _nearest(folder, instances, bool(label_maps), problems, of_label_maps)
    problems[:] = [problem for problem in problems if problem.kind is not Fault.NOT_USED]  # what is nearest says more
    raise UserError(_not_recognized(folder, instances, nearest))


def _before(problems: list[Problem]) -> str:
    """What was found wrong before reading had to end, which may be its cause."""
    severe = [problem for problem in problems if problem.severe]
    return f' (before that: {few(severe or problems, SHOWN_BEFORE, "; ")})' if problems else ''


@dataclass
class _JsonFiles:
    """The content of JSON files by their layout."""

    coco: dict[str, Any] = field(default_factory=dict)
    via: dict[str, dict[str, Any]] = field(default_factory=dict)
    labelme: dict[str, dict[str, Any]] = field(default_factory=dict)


def _instance_readers(folder: DataFolder, problems: list[Problem]) -> dict[str, Callable[[], DetectionData]]:
    """What reads each layout that is there; what is wrong with files that may be of any is added to the problems."""
    json_files, yolo = _json_files(folder, problems), yolo_files(folder)
    readers = {
        'COCO': json_files.coco and (lambda: read_coco(folder, json_files.coco, problems)),
        'VIA': json_files.via and (lambda: read_via(folder, json_files.via, problems)),
        'LabelMe': json_files.labelme and (lambda: read_labelme(folder, json_files.labelme, problems)),
        'Pascal VOC': is_pascal_voc(folder) and (lambda: read_pascal_voc(folder, problems)),
        'YOLO': yolo and (lambda: read_yolo(folder, yolo, problems)),
    }
    present = {layout: reader for layout, reader in readers.items() if reader}
    if present or not (yolo := yolo_files(folder, with_splits=False)):
        return present
    return {'YOLO': lambda: read_yolo(folder, yolo, problems)}


def _json_files(folder: DataFolder, problems: list[Problem]) -> _JsonFiles:
    files = _JsonFiles()
    for file in _of_instances(folder.ending('.json')):
        try:
            content = read_json(folder.root / file, 'annotations in JSON')
        except UserError as error:
            what = str(error).removeprefix(f'{folder.shown(file)} ')
            problems.append(Problem(folder.shown(file), what, Fault.MALFORMED))
            continue
        via = via_images(content)
        if is_coco(content):
            files.coco[file] = content
        elif via is not None:
            files.via[file] = via
        elif is_labelme(content):
            content.pop('imageData', None)  # a whole image in text
            files.labelme[file] = content
        else:
            problems.append(Problem(folder.shown(file), 'is JSON of no known layout', Fault.NOT_USED))
    return files


def _of_instances(files: list[str]) -> list[str]:
    """Where JSON files are named as COCO's instances, no others of their folder: captions and keypoints are there."""
    instances = {file for file in files if posixpath.basename(file).startswith('instances_')}
    places = {posixpath.dirname(file) for file in instances}
    return [file for file in files if file in instances or posixpath.dirname(file) not in places]


def _not_recognized(folder: DataFolder, instances: bool | None, nearest: str) -> str:
    """What is in the folder, what was looked for, and what is nearest."""
    suffixes = Counter(posixpath.splitext(file)[1].lower() or 'without a suffix' for file in folder.files)
    kinds = ', '.join(f'{count} {suffix}' for suffix, count in suffixes.most_common(5))
    return f'{folder.root} has {len(folder.files)} files ({kinds}), but no {LAYOUTS[instances]}: {nearest} ({PAGE})'


def _nearest(
    folder: DataFolder,
    instances: bool | None,
    has_label_maps: bool,
    problems: list[Problem],
    of_label_maps: list[Problem],
) -> str:
    if not folder.images:
        return 'put the images there too, or name the folder that has them'
    if has_label_maps:
        return 'it has label maps, for which there are the UPerNet and Semantic FPN configs'
    readers = _instance_readers(folder, []) if instances is False else {}
    if readers:
        return f'it has {next(iter(readers))} annotations of objects, for which there are the R-CNN configs'
    severe = [problem for problem in problems if problem.severe]
    if severe:
        return f'mend {severe[0].file}'
    if of_label_maps and not instances:
        label = of_label_maps[0].file
        return f'{label} seems to be a label map, but no image has its name: name each label map as its image'
    if instances is False:
        return 'name the folder of label maps labels, and each of them as its image'
    if any(map(_is_yolo, [folder.root / file for file in folder.ending('.txt')[:20]])):
        if named := [file for file in folder.ending('.yaml', '.yml') if stem(file) in ('data', 'dataset')]:
            return (
                f'{folder.shown(named[0])} lacks names or train: add "train: FOLDER OF IMAGES" and "names: [FIRST '
                'CLASS, SECOND CLASS]"'
            )
        return (
            'the .txt files look like YOLO labels, so write a data.yaml with "train: FOLDER OF IMAGES" and '
            '"names: [FIRST CLASS, SECOND CLASS]"'
        )
    if folder.ending('.json'):
        return (
            f'{folder.shown(folder.ending(".json")[0])} is JSON of another kind: export the annotations as COCO, which '
            'has the lists images, annotations and categories'
        )
    if folder.ending('.xml'):
        return (
            f'{folder.shown(folder.ending(".xml")[0])} is XML of another kind: export the annotations as Pascal VOC, '
            'which has a file <annotation> for each image, or as COCO'
        )
    return 'export the annotations from your labeling tool as COCO, the nearest for all others'


def _is_yolo(path: Any) -> bool:
    lines = [line.split() for line in path.read_text('utf-8-sig', 'replace').splitlines()[:5] if line.strip()]
    number = re.compile(r'-?\d*\.?\d+(e-?\d+)?')
    return bool(lines) and all(len(line) >= 5 and all(map(number.fullmatch, line)) for line in lines)
