"""Which layout a folder of data has."""

from __future__ import annotations

import posixpath

from ..data.coco import read_json
from ..errors import UserError
from .coco import is_coco, read_coco
from .content import Instances, LabelMaps
from .folder import DataFolder
from .yolo import read_yolo, yolo_files


def read_own_data(folder: str, instances: bool) -> Instances | LabelMaps:
    """Recognise the layout of a folder's data and read them.

    Args:
        folder: has pictures and annotations, in one of the layouts of docs/your-own-data.md.
        instances: whether objects are needed, else label maps.

    Returns:
        What was read, with the problems that were found. What is wrong is left out.

    Raises:
        UserError: no layout is recognised, or more than one.
    """
    files = DataFolder(folder)
    return _read_instances(files)


def _read_instances(folder: DataFolder) -> Instances:
    yolo = yolo_files(folder)
    if yolo:
        return read_yolo(folder, yolo)
    coco = {}
    for file in _json_files(folder):
        content = read_json(folder.root / file, 'annotations')
        if is_coco(content):
            coco[file] = content
    if coco:
        return read_coco(folder, coco)
    raise UserError('no layout')


def _json_files(folder: DataFolder) -> list[str]:
    """JSON files; where some are named as COCO's instances, those of their folder alone: COCO has captions beside."""
    files = folder.ending('.json')
    instances = [file for file in files if posixpath.basename(file).startswith('instances_')]
    places = {posixpath.dirname(file) for file in instances}
    return [file for file in files if file in instances or posixpath.dirname(file) not in places]
