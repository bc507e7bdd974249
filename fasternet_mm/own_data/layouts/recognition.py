"""Which layout a folder of data has."""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from ...datasets import shapes
from ...datasets.coco_json import read_json
from ...errors import UserError, few
from .annotated_data import OwnData
from .coco import is_coco, read_coco
from .data_folder import DataFolder, stem
from .label_maps import find_label_maps, read_label_maps
from .labelme import is_labelme, read_labelme
from .pascal_voc import pascal_voc_files, read_pascal_voc
from .problems import Fault, Problem
from .via import read_via, via_images
from .yolo import read_yolo, yolo_files

READERS = {
    'COCO': read_coco,
    'VIA': read_via,
    'LabelMe': read_labelme,
    'Pascal VOC': read_pascal_voc,
    'YOLO': read_yolo,
}
"""The functions that read objects, by layout. Each takes the folder and what `_annotation_files` has for its layout."""

OBJECT_LAYOUTS = 'COCO, VIA or LabelMe JSON, Pascal VOC XML, or YOLO with its data.yaml'
LABEL_MAP_LAYOUT = 'PNG label maps in a folder such as labels, masks or annotations, named as the images'

REPORTED_BEFORE = 3
"""The number of problems in the message when reading has to end."""

PAGE = 'docs/your-own-data.md shows all layouts'


def read_own_data(folder: str, instances: bool | None = None, ignored: int | None = None) -> OwnData:
    """Recognize the layout of a folder's data and read them.

    Args:
        folder: has images and annotations, in one of the layouts of docs/your-own-data.md.
        instances: True to read objects, False to read label maps. Default: objects, or label maps where there are no
            objects.
        ignored: a label of label maps that does not count, beside 255.

    Returns:
        The data, with the problems that were found. What is wrong is left out.

    Raises:
        UserError: no layout is recognized, or more than one.
    """
    files = DataFolder(folder)
    try:
        return _read(files, instances, ignored)
    except UserError as error:
        raise UserError(f'{error}{_problems_before(files.problems)}') from error


def _read(folder: DataFolder, instances: bool | None, ignored: int | None) -> OwnData:
    layouts = _annotation_files(folder) if instances is not False else {}
    if len(layouts) > 1:
        raise UserError(
            f'{folder.root} has annotations in {len(layouts)} layouts ({", ".join(layouts)}): leave one, or name the '
            'folder of one'
        )
    if layouts:
        ((layout, files),) = layouts.items()
        return READERS[layout](folder, files)
    of_objects, folder.problems = folder.problems, []
    label_maps = find_label_maps(folder)
    if label_maps and not instances:
        return read_label_maps(folder, label_maps, ignored)
    of_label_maps, folder.problems = folder.problems, of_objects
    advice = _advice(folder, instances, bool(label_maps), of_label_maps)
    folder.problems = [problem for problem in of_objects if problem.kind is not Fault.NOT_USED]  # the advice says more
    suffixes = Counter(posixpath.splitext(file)[1].lower() or 'without a suffix' for file in folder.files)
    counts = ', '.join(f'{count} {suffix}' for suffix, count in suffixes.most_common(5))
    needed = {True: OBJECT_LAYOUTS, False: LABEL_MAP_LAYOUT, None: f'{OBJECT_LAYOUTS}, and no {LABEL_MAP_LAYOUT}'}
    raise UserError(
        f'{folder.root} has {len(folder.files)} files ({counts}), but no {needed[instances]}: {advice} ({PAGE})'
    )


def _problems_before(problems: list[Problem]) -> str:
    """The problems that were found before reading had to end, of which one may be the cause."""
    severe = [problem for problem in problems if problem.severe]
    return f' (before that: {few(severe or problems, REPORTED_BEFORE, "; ")})' if problems else ''


def _annotation_files(folder: DataFolder) -> dict[str, Any]:
    """For each layout of objects that is there, its annotation files, or their content by file."""
    layouts = _json_files(folder)
    xml_files = pascal_voc_files(folder)
    if xml_files:
        layouts['Pascal VOC'] = xml_files
    yaml_files = yolo_files(folder, splits_needed=bool(layouts))
    if yaml_files:
        layouts['YOLO'] = yaml_files
    return layouts


def _json_files(folder: DataFolder) -> dict[str, Any]:
    """The content of JSON files, by layout and file."""
    layouts: dict[str, Any] = defaultdict(dict)
    for file in _without_captions(folder.ending('.json')):
        try:
            content = read_json(folder.root / file, 'annotations in JSON')
        except UserError as error:
            folder.report(file, str(error).removeprefix(f'{folder.full_path(file)} '))
            continue
        via = via_images(content)
        if is_coco(content):
            layouts['COCO'][file] = content
        elif via is not None:
            layouts['VIA'][file] = via
        elif is_labelme(content):
            content.pop('imageData', None)  # a whole image in text
            layouts['LabelMe'][file] = content
        elif not (isinstance(content, dict) and content.get('data') == shapes.NAME):  # its recipe.json
            folder.report(file, 'is JSON of no known layout', Fault.NOT_USED)
    return dict(layouts)


def _without_captions(files: list[str]) -> list[str]:
    """JSON files without COCO's captions and keypoints, which lie in the folders of files named instances_…"""
    instances = {file for file in files if posixpath.basename(file).startswith('instances_')}
    places = {posixpath.dirname(file) for file in instances}
    return [file for file in files if file in instances or posixpath.dirname(file) not in places]


def _advice(
    folder: DataFolder, instances: bool | None, has_label_maps: bool, problems_of_label_maps: list[Problem]
) -> str:
    """What to do with a folder in which no layout is recognized, by what is most like one."""
    if not folder.images:
        return 'put the images there too, or name the folder that has them'
    if has_label_maps:
        return 'it has label maps, for which there are the UPerNet and Semantic FPN configs'
    if instances is False:
        layouts = _annotation_files(folder)
        folder.problems.clear()  # those of other layouts matter to nobody who has label maps
        if layouts:
            return (
                f'it has {next(iter(layouts))} annotations of objects, for which there are the RTMDet and R-CNN configs'
            )
    elif any(problem.severe for problem in folder.problems):
        return f'mend {next(problem.file for problem in folder.problems if problem.severe)}'
    if problems_of_label_maps and not instances:
        label = problems_of_label_maps[0].file
        return f'{label} seems to be a label map, but no image has its name: name each label map as its image'
    if instances is False:
        return 'name the folder of label maps labels, and each of them as its image'
    if any(_looks_like_yolo(folder.root / file) for file in folder.ending('.txt')[:20]):
        entries = '"train: FOLDER OF IMAGES" and "names: [FIRST CLASS, SECOND CLASS]"'
        for file in folder.ending('.yaml', '.yml'):
            if stem(file) in ('data', 'dataset'):
                return f'{folder.full_path(file)} lacks names or train: add {entries}'
        return f'the .txt files look like YOLO labels, so write a data.yaml with {entries}'
    json_files, xml_files = folder.ending('.json'), folder.ending('.xml')
    if json_files:
        return (
            f'{folder.full_path(json_files[0])} is JSON of another kind: export the annotations as COCO, which has the '
            'lists images, annotations and categories'
        )
    if xml_files:
        return (
            f'{folder.full_path(xml_files[0])} is XML of another kind: export the annotations as Pascal VOC, which has '
            'a file <annotation> for each image, or as COCO'
        )
    return 'export the annotations from your labeling tool as COCO, which most tools write'


def _looks_like_yolo(path: Path) -> bool:
    lines = [line.split() for line in path.read_text('utf-8-sig', 'replace').splitlines()[:5] if line.strip()]
    number = re.compile(r'-?\d*\.?\d+(e-?\d+)?')
    return bool(lines) and all(len(line) >= 5 and all(map(number.fullmatch, line)) for line in lines)
