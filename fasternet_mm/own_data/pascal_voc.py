"""Pascal VOC's XML files of boxes, also as LabelImg, CVAT, Roboflow and Label Studio write them."""

from __future__ import annotations

import posixpath
import re
import reprlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ..errors import UserError
from .content import Instances, Kind, Problem, truth_value
from .folder import DataFolder, named_splits, stem
from .normal_form import AnnotatedObject, AnnotatedPicture, split_by_folders, to_instances

SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


def is_pascal_voc(folder: DataFolder) -> bool:
    """Whether XML files are there, one of the first of which describes a picture."""
    files = folder.ending('.xml')[:20]
    return any(re.search(rb'<annotation[\s>]', (folder.root / file).read_bytes()[:1000]) for file in files)


def read_pascal_voc(folder: DataFolder) -> Instances:
    """Read Pascal VOC's boxes.

    ``ImageSets/Main`` says what is train, val and test, or else the folders' names do. Beside XML files, and where XML
    files lie in other folders than pictures, in those of their pictures, pictures without an XML file are background.

    An object that is ``difficult`` becomes a crowd, which is neither trained nor scored: the challenge's evaluation
    leaves these out (table 1 of the VOC2012 development kit), and MMDetection does.

    The challenge's own files count pixels from 1 and include the last (their predecessors of 2006 state "Top left pixel
    co-ordinates : (1, 1)"), so xmin=1 and xmax=width are the whole width. Labelling tools write the same elements with
    the coordinates of edges, so there xmin=0 and xmax=width are. Files whose ``source`` names PASCAL VOC count as the
    challenge's.

    Raises:
        UserError: no XML file has a picture; or the image sets have no part to train.
    """
    problems: list[Problem] = []
    pictures = {}
    for file in folder.ending('.xml'):
        picture = _picture(folder, file, problems)
        if picture:
            pictures[file] = picture
    there = {picture.file for picture in pictures.values()}
    if not there & folder.all:
        raise UserError(
            f'{folder.root} has {len(folder.ending(".xml"))} XML files, but no picture of the same name as one of them'
        )
    sets = _image_sets(folder)
    splits = _by_image_sets(folder, pictures, sets, problems) if sets else split_by_folders(folder, pictures.values())
    return to_instances('Pascal VOC', folder, splits, None, problems)


def _picture(folder: DataFolder, file: str, problems: list[Problem]) -> AnnotatedPicture | None:
    def report(what: str, kind: Kind = Kind.MALFORMED) -> None:
        problems.append(Problem(folder.shown(file), what, kind))

    try:
        root = fromstring((folder.root / file).read_bytes())
    except DefusedXmlException:
        return report('declares entities, which can hide what is read')
    except (ParseError, OSError, ValueError, LookupError) as error:
        return report(f'is not XML ({error})')
    if root.tag != 'annotation':
        return report(f'is no Pascal VOC annotation: its root is <{root.tag}>, not <annotation>', Kind.NOT_USED)
    picture = folder.picture_beside(file)
    if picture is None:  # few tools give the XML file another name than the picture
        name = root.findtext('filename') or stem(file)
        picture = folder.inside(posixpath.dirname(file), name)
        if picture is None:
            return report(f'has the filename {name}, which is not in the folder', Kind.OUTSIDE_FOLDER)
    try:
        size = int(root.findtext('size/width') or 0), int(root.findtext('size/height') or 0)
    except ValueError:
        return report('has a size that is not of whole numbers')
    # Counting from 1: see read_pascal_voc.
    origin = 1 if 'PASCAL VOC' in (root.findtext('source/annotation') or '') else 0
    objects = [_object(obj, f'object {number}', origin, report) for number, obj in enumerate(root.findall('object'), 1)]
    # Zeros are common for a size that the tool did not know.
    return AnnotatedPicture(picture, file, [obj for obj in objects if obj], size if all(size) else None)


def _object(element: Element, place: str, origin: int, report: Callable[..., None]) -> AnnotatedObject | None:
    name, box = (element.findtext('name') or '').strip(), element.find('bndbox')
    if not name:
        return report(f'{place} has no name')
    if box is None:
        return report(f'{place} ({name}) has no bndbox')
    texts = [box.findtext(side) for side in SIDES]
    try:
        left, top, right, bottom = map(float, texts)
    except (TypeError, ValueError):
        return report(f'{place} ({name}) has the box {dict(zip(SIDES, texts))}', Kind.NOT_A_NUMBER)
    (left, right), (top, bottom) = _edges(left, right, origin), _edges(top, bottom, origin)
    text = element.findtext('difficult')
    difficult = truth_value(text)
    if difficult is None:
        return report(f'{place} ({name}) has the difficult {reprlib.repr(text)}: 0 or 1 is needed')
    return AnnotatedObject(name, f'{place} ({name})', [left, top, right - left, bottom - top], crowd=difficult)


def _edges(first: float, last: float, origin: int) -> tuple[float, float]:
    """Where pixels begin and end that are counted from ``origin``, the last included, in whatever order."""
    return (first - origin, last) if first <= last else (first, last - origin)


def _image_sets(folder: DataFolder) -> dict[str, list[str]]:
    """Lists of pictures by split; 'trainval' is 'train' where that is not there."""
    lists = [file for file in folder.ending('.txt') if posixpath.dirname(file).endswith('ImageSets/Main')]
    found = defaultdict(list)
    for file in lists:
        found[stem(file)].append(file)
    if 'train' not in found and 'trainval' in found:
        found['train'] = found['trainval']
    return {split: found[split] for split in ('train', 'val', 'test') if split in found}


def _by_image_sets(
    folder: DataFolder, pictures: Mapping[str, AnnotatedPicture], sets: dict[str, list[str]], problems: list[Problem]
) -> dict[str, list[AnnotatedPicture]]:
    by_place = {(posixpath.dirname(posixpath.dirname(file)), stem(file)): file for file in pictures}
    splits = {}
    for split, lists in sets.items():
        splits[split] = []
        for file in lists:
            home = posixpath.dirname(posixpath.dirname(posixpath.dirname(file)))
            for line in (folder.root / file).read_text('utf-8', 'replace').splitlines():
                names = [name for name in (line.strip(), line.split(' ')[0]) if (home, name) in by_place]
                if names:
                    splits[split].append(pictures[by_place[home, names[0]]])
                elif line.strip():
                    what = f'names {line.strip()}, of which there is no XML file that can be read'
                    problems.append(Problem(folder.shown(file), what, Kind.MISSING_PICTURE))
    return named_splits(folder, {split: found for split, found in splits.items() if found})
