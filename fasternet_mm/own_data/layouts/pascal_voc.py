"""Pascal VOC's XML files of boxes, also as LabelImg, CVAT, Roboflow and Label Studio write them."""

from __future__ import annotations

import posixpath
import re
import reprlib
from collections import defaultdict
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from .annotated_data import DetectionData, Fault, Problem, Report, truth_value
from .data_folder import DataFolder, named_splits, stem
from .image_sets import OF_OBJECTS, split_by_lists
from .normal_form import AnnotatedImage, AnnotatedObject, locate_images, split_by_folders, to_instances

SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


def is_pascal_voc(folder: DataFolder) -> bool:
    """Whether XML files are there, one of the first of which describes an image."""
    files = folder.ending('.xml')[:20]
    return any(re.search(rb'<annotation[\s>]', (folder.root / file).read_bytes()[:1000]) for file in files)


def read_pascal_voc(folder: DataFolder, problems: list[Problem]) -> DetectionData:
    """Read Pascal VOC's boxes.

    ``ImageSets/Main`` says what is train, val and test (see `image_sets.split_by_lists`), or else the folders' names
    do. Beside XML files, and where XML files lie in other folders than images, in those of their images, images
    without an XML file are background; where there are lists, those that these name.

    An object that is ``difficult`` becomes a crowd, which is neither trained nor scored: the challenge's evaluation
    leaves these out (table 1 of the VOC2012 development kit), and MMDetection does.

    The challenge's own files count pixels from 1 and include the last (their predecessors of 2006 state "Top left pixel
    co-ordinates : (1, 1)"), so xmin=1 and xmax=width are the whole width. Labeling tools write the same elements with
    the coordinates of edges, so there xmin=0 and xmax=width are. Files whose ``source`` names PASCAL VOC count as the
    challenge's.

    Args:
        folder: with the data.
        problems: to add to.

    Raises:
        UserError: no XML file has an image, or one has two; or no part is to train on.
    """
    annotated = [image for file in folder.ending('.xml') if (image := _image(folder, file, problems))]
    locate_images(folder, annotated, problems, stem_first=True)
    by_file = defaultdict(list)
    for image in annotated:
        by_file[image.file].append(image)
    places = {posixpath.dirname(file) for file in by_file}
    paths = {*by_file, *(file for file in folder.images if posixpath.dirname(file) in places)}
    lists = split_by_lists(folder, OF_OBJECTS, paths, paths, problems)
    splits = {
        split: [image for file in files for image in by_file.get(file) or [AnnotatedImage(file, file)]]
        for split, files in lists.items()
    }
    splits = named_splits(folder, splits) if splits else split_by_folders(folder, annotated, problems)
    return to_instances('Pascal VOC', folder, splits, None, problems)


def _image(folder: DataFolder, file: str, problems: list[Problem]) -> AnnotatedImage | None:
    """What is in an XML file, with the name that it gives its image."""

    report = folder.reporter(file, problems)
    try:
        root = fromstring((folder.root / file).read_bytes())
    except DefusedXmlException:
        return report('declares entities, which can hide what is read')
    except (ParseError, OSError, ValueError, LookupError) as error:
        return report(f'is not XML ({error})')
    if root.tag != 'annotation':
        return report(f'is no Pascal VOC annotation: its root is <{root.tag}>, not <annotation>', Fault.NOT_USED)
    name = (root.findtext('filename') or '').strip() or stem(file)
    try:
        size = int(root.findtext('size/width') or 0), int(root.findtext('size/height') or 0)
    except ValueError:
        return report('has a size that is not of whole numbers')
    # Counting from 1: see read_pascal_voc.
    origin = 1 if 'PASCAL VOC' in (root.findtext('source/annotation') or '') else 0
    objects = [_object(obj, f'object {number}', origin, report) for number, obj in enumerate(root.findall('object'), 1)]
    # Zeros are common for a size that the tool did not know.
    return AnnotatedImage(name, file, [obj for obj in objects if obj], size if all(size) else None)


def _object(element: Element, place: str, origin: int, report: Report) -> AnnotatedObject | None:
    name, box = element.findtext('name') or '', element.find('bndbox')
    if not name.strip():
        return report(f'{place} has no name')
    if box is None:
        return report(f'{place} ({name}) has no bndbox')
    texts = [box.findtext(side) for side in SIDES]
    try:
        left, top, right, bottom = map(float, texts)
    except (TypeError, ValueError):
        return report(f'{place} ({name}) has the box {dict(zip(SIDES, texts))}', Fault.NOT_A_NUMBER)
    (left, right), (top, bottom) = _edges(left, right, origin), _edges(top, bottom, origin)
    text = element.findtext('difficult')
    difficult = truth_value(text)
    if difficult is None:
        return report(f'{place} ({name}) has the difficult {reprlib.repr(text)}: 0 or 1 is needed')
    return AnnotatedObject(name, f'{place} ({name})', [left, top, right - left, bottom - top], crowd=difficult)


def _edges(first: float, last: float, origin: int) -> tuple[float, float]:
    """Where pixels begin and end that are counted from ``origin``, the last included, in whatever order."""
    return (first - origin, last) if first <= last else (first, last - origin)
