"""Pascal VOC's XML files of boxes, also as LabelImg, CVAT, Roboflow and Label Studio write them."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from functools import partial
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from .annotated_data import DetectionData
from .data_folder import DataFolder, stem
from .image_sets import OF_OBJECTS, split_by_lists
from .named_splits import named_splits, split_by_folders
from .normal_form import AnnotatedImage, AnnotatedObject, flag, locate_images, to_normal_form, usable_objects
from .problems import Fault, UnusableError

SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


def pascal_voc_files(folder: DataFolder) -> list[str]:
    """All XML files, where one of the first of them describes an image; else none."""
    files = folder.ending('.xml')
    is_voc = any(re.search(rb'<annotation[\s>]', (folder.root / file).read_bytes()[:1000]) for file in files[:20])
    return files if is_voc else []


def read_pascal_voc(folder: DataFolder, files: list[str]) -> DetectionData:
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

    Raises:
        UserError: no XML file has an image, or one has two; or no part is to train on.
    """
    annotated = []
    for file in files:
        try:
            annotated.append(_image(folder, file))
        except UnusableError as error:
            folder.report(file, str(error), error.kind)
    annotated = locate_images(folder, annotated, stem_first=True)
    by_file = defaultdict(list)
    for image in annotated:
        by_file[image.file].append(image)
    places = {posixpath.dirname(file) for file in by_file}
    paths = {*by_file, *(file for file in folder.images if posixpath.dirname(file) in places)}
    splits = {}
    for split, listed in split_by_lists(folder, OF_OBJECTS, paths, paths).items():
        splits[split] = [image for file in listed for image in by_file.get(file) or [AnnotatedImage(file, file)]]
    splits = named_splits(folder, splits) if splits else split_by_folders(folder, annotated)
    return to_normal_form('Pascal VOC', folder, splits)


def _image(folder: DataFolder, file: str) -> AnnotatedImage:
    """The content of an XML file, with the name that it gives its image."""
    try:
        root = fromstring((folder.root / file).read_bytes())
    except DefusedXmlException as error:
        raise UnusableError('declares entities, which can hide what is read') from error
    except (ParseError, OSError, ValueError, LookupError) as error:
        raise UnusableError(f'is not XML ({error})') from error
    if root.tag != 'annotation':
        what = f'is not a Pascal VOC annotation: its root is <{root.tag}>, not <annotation>'
        raise UnusableError(what, Fault.NOT_USED)
    name = (root.findtext('filename') or '').strip() or stem(file)
    try:
        size = int(root.findtext('size/height') or 0), int(root.findtext('size/width') or 0)
    except ValueError as error:
        raise UnusableError('has a size that is not of whole numbers') from error
    # Counting from 1: see read_pascal_voc.
    origin = 1 if 'PASCAL VOC' in (root.findtext('source/annotation') or '') else 0
    elements = [(f'object {number}', element) for number, element in enumerate(root.findall('object'), start=1)]
    objects = usable_objects(partial(_object, origin=origin), elements, partial(folder.report, file))
    # Zeros are common for a size that the tool did not know.
    return AnnotatedImage(name, file, objects, size if all(size) else None)


def _object(element: Element, place: str, origin: int) -> AnnotatedObject:
    name, box = element.findtext('name') or '', element.find('bndbox')
    if not name.strip():
        raise UnusableError(f'{place} has no name')
    place = f'{place} ({name})'
    if box is None:
        raise UnusableError(f'{place} has no bndbox')
    texts = [box.findtext(side) for side in SIDES]
    try:
        left, top, right, bottom = map(float, texts)
    except (TypeError, ValueError) as error:
        raise UnusableError(f'{place} has the box {dict(zip(SIDES, texts))}', Fault.NOT_A_NUMBER) from error
    (left, right), (top, bottom) = _edges(left, right, origin), _edges(top, bottom, origin)
    difficult = flag(element.findtext('difficult'), 'difficult', place)
    return AnnotatedObject(name, place, [left, top, right - left, bottom - top], crowd=difficult)


def _edges(first: float, last: float, origin: int) -> tuple[float, float]:
    """Where pixels begin and end that are counted from ``origin``, the last included, in whatever order."""
    return (first - origin, last) if first <= last else (first, last - origin)
