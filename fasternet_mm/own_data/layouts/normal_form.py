"""One form for the objects of all layouts: equal annotations give equal COCO content, wherever they come from."""

from __future__ import annotations

import posixpath
import reprlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from ...errors import UserError
from ...parallel import in_threads
from .annotated_data import DetectionData
from .box_notation import NumbersAsRead, notation_question
from .data_folder import DataFolder
from .image_matching import composed
from .outlines import BadOutlineError, are_four_numbers, reaches_over, read_outline, repeats_box
from .problems import Fault, Problem, Report, UnusableError

Record = TypeVar('Record')


@dataclass(slots=True)
class AnnotatedObject:
    """An object as an annotation file has it, nothing checked.

    Attributes:
        name: its class.
        place: where in its file it is, for messages: 'line 3'.
        box: x, y, width, height; None where its polygons give it.
        segmentation: polygons, each x, y, x, y, …, or an RLE mask; None or an empty list where there is only a box.
        crowd: a region that is neither trained nor scored.
    """

    name: str
    place: str
    box: list[float] | None = None
    segmentation: list[Any] | dict[str, Any] | None = None
    crowd: bool = False


@dataclass(slots=True)
class AnnotatedImage:
    """An image with its objects as an annotation file has them, nothing checked.

    Attributes:
        file: path in the data's folder.
        source: the file in the data's folder that names the image, or has its objects.
        objects: in the order of the file.
        size: height and width, where the source states them.
        relative: whether coordinates are fractions of the image's size.
    """

    file: str
    source: str
    objects: list[AnnotatedObject] = field(default_factory=list)
    size: tuple[int, int] | None = None
    relative: bool = False


def usable_objects(
    read_object: Callable[[Record, str], AnnotatedObject], records: Iterable[tuple[str, Record]], report: Report
) -> list[AnnotatedObject]:
    """The objects of records that can be used; what is wrong with the others is reported.

    Each record comes with its place in the file, for messages, before it; ``read_object`` takes record and place.
    """
    objects = []
    for place, record in records:
        try:
            objects.append(read_object(record, place))
        except UnusableError as error:
            report(str(error), error.kind)
    return objects


def truth_value(value: Any) -> bool | None:
    """What tools mean by a yes or no, such as ``iscrowd`` or ``difficult``; None where it is neither.

    Understood are true and false, 1 and 0, also as text; None and empty text are no.
    """
    text = '' if value is None else str(value).strip().lower()
    if text in ('', '0', '0.0', 'false'):
        return False
    return True if text in ('1', '1.0', 'true') else None


def flag(value: Any, name: str, place: str) -> bool:
    """The `truth_value` of a key of an object.

    Raises:
        UnusableError: it is neither.
    """
    truth = truth_value(value)
    if truth is None:
        raise UnusableError(f'{place} has the {name} {reprlib.repr(value)}: 0 or 1, false or true is needed')
    return truth


def to_normal_form(
    layout: str, folder: DataFolder, splits: dict[str, list[AnnotatedImage]], classes: Sequence[str] | None = None
) -> DetectionData:
    """Check what was read, and bring it into the normal form.

    That is the content of a COCO annotation file for each split, with ``images`` (``id``, ``file_name``, ``width``,
    ``height``) numbered from 1 in the order of their file names; ``annotations`` (``id``, ``image_id``,
    ``category_id``, ``bbox``, ``area``, ``iscrowd`` and, where there is one, ``segmentation``) numbered from 1 in the
    order of images and then of the file; and ``categories`` (``id``, ``name``) numbered from 1, the same in all splits.
    Sizes are those that OpenCV reads. Coordinates are pixels, rounded to hundredths as in COCO's own files. Boxes and
    polygons are cut at the image's edges; no side of a box is under a pixel. The area, which is above zero, is the
    polygons', the mask's, or else the box's. So MMDetection's loader leaves out none of the annotations.

    Args:
        layout: its name for people.
        folder: where the images are.
        splits: images as read, in any order.
        classes: the classes in their order. Default: those of the objects, sorted.

    Returns:
        All that is sound. What cannot be used is left out, and is named in the folder's problems.
    """
    objects = [obj for images in splits.values() for image in images for obj in image.objects]
    _unify_names(folder, {*(classes or ()), *(obj.name for obj in objects)})
    for obj in objects:
        obj.name = _plain_name(obj.name)
    names = sorted({obj.name for obj in objects}) if classes is None else dict.fromkeys(map(_plain_name, classes))
    categories = {name: number for number, name in enumerate(names, start=1)}
    content = {split: _split_content(layout, folder, split, images, categories) for split, images in splits.items()}
    return DetectionData(layout, folder.root, content, folder.problems)


def _plain_name(name: str) -> str:
    return composed(name.strip())


def _unify_names(folder: DataFolder, names: Iterable[str]) -> None:
    """Report names of classes that count as one, since they differ in nothing that people can see."""
    spellings = defaultdict(set)
    for name in names:
        spellings[_plain_name(name)].add(name)
    for name, same in spellings.items():
        if len(same) > 1:
            folder.report(
                '',
                f'the classes {", ".join(map(repr, sorted(same)))} differ only in spaces, or in how accents are '
                f'encoded: they count as {name!r}',
                Fault.NAMES_CHANGED,
            )


def _split_content(
    layout: str, folder: DataFolder, split: str, annotated: Iterable[AnnotatedImage], categories: dict[str, int]
) -> dict[str, Any]:
    annotated = _once_each(folder, annotated)
    images, annotations, numbers = [], [], NumbersAsRead(relative=any(image.relative for image in annotated))
    sizes = in_threads(partial(_size, folder), annotated, "reading images' sizes")
    for size, image in zip(sizes, annotated):
        if isinstance(size, Problem):
            folder.problems.append(size)
            continue
        height, width = size
        images.append(dict(id=len(images) + 1, file_name=image.file, width=width, height=height))
        for obj in image.objects:
            numbers.add(obj.box, obj.segmentation, size)
            report = partial(_report_object, folder, image.source, obj.place)
            try:
                annotation = _annotation(obj, size, image.relative, report)
            except UnusableError as error:
                report(str(error), error.kind)
                continue
            ids = dict(id=len(annotations) + 1, image_id=len(images), category_id=categories[obj.name])
            annotations.append({**ids, **annotation})
    question = notation_question(layout, numbers)
    if question:
        sources = {image.source for image in annotated}
        folder.report(sources.pop() if len(sources) == 1 else '', question.format(split=split), Fault.NOTATION)
    return dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=number, name=name) for name, number in categories.items()],
    )


def _report_object(folder: DataFolder, file: str, place: str, what: str, kind: Fault = Fault.MALFORMED) -> None:
    folder.report(file, f'{place} {what}', kind)


def rectangles_are_boxes(images: Iterable[AnnotatedImage]) -> None:
    """Drop the polygons where all that was drawn in a data set is rectangles: these are boxes, not outlines.

    Objects that are drawn as rectangles have ``box`` as well as ``segmentation``. Among other shapes, a rectangle is
    the outline of something rectangular.
    """
    objects = [obj for image in images for obj in image.objects]
    if all(obj.box is not None for obj in objects):
        for obj in objects:
            obj.segmentation = None


def locate_images(folder: DataFolder, annotated: Sequence[AnnotatedImage], stem_first: bool) -> list[AnnotatedImage]:
    """Find the image of each annotation file that is of one: it has its name, or the one that is in it.

    Args:
        folder: with the data.
        annotated: whose ``file`` is the name that is in the annotation file; it becomes the path in the data's folder.
        stem_first: whether the annotation file's own name counts more than the one in it.

    Returns:
        The images without those whose names lead out of the folder.

    Raises:
        UserError: there are none, no image is there, or two fit equally well.
    """
    if not annotated:
        raise UserError(f'{folder.root} has no annotation file that can be read: export the annotations again')
    names, sources = [image.file for image in annotated], [image.source for image in annotated]
    located = []
    for image, path in zip(annotated, folder.images_of(sources, names, stem_first)):
        if path is None:
            folder.report(image.source, f'is of {image.file}, which is not in the folder', Fault.OUTSIDE_FOLDER)
        else:
            image.file = path
            located.append(image)
    if not any(image.file in folder.all for image in located):
        raise folder.no_image_of(sources[0] if len(sources) == 1 else posixpath.dirname(sources[0]), names)
    return located


def _once_each(folder: DataFolder, images: Iterable[AnnotatedImage]) -> list[AnnotatedImage]:
    """Images sorted by their file names; none of those named twice, of which nobody knows which is right."""
    by_file: dict[str, list[AnnotatedImage]] = defaultdict(list)
    for image in images:
        by_file[image.file].append(image)
    for file, same in by_file.items():
        if len(same) > 1:
            sources = ' and '.join(dict.fromkeys(folder.full_path(image.source) for image in same))
            folder.report(file, f'is named {len(same)} times in {sources}', Fault.DUPLICATE)
    return [by_file[file][0] for file in sorted(by_file) if len(by_file[file]) == 1]


def _size(folder: DataFolder, image: AnnotatedImage) -> tuple[int, int] | Problem:
    """Height and width of an image; or why it cannot be used, also where its annotation file states another size."""
    path, source = folder.full_path(image.file), folder.full_path(image.source)
    if image.file not in folder.all:
        return Problem(path, f'does not exist, but {source} names it', Fault.MISSING_IMAGE)
    size = folder.image_size(image.file)
    if isinstance(size, Problem) or image.size in (None, size):
        return size
    what = 'has {}x{} pixels (H x W), but {} says {}x{}'.format(*size, source, *image.size)
    if image.size == size[::-1]:
        what += ': it leaves out the turn of the EXIF orientation, or has height and width swapped'
    return Problem(path, what, Fault.WRONG_SIZE)


def _annotation(obj: AnnotatedObject, size: tuple[int, int], relative: bool, report: Report) -> dict[str, Any]:
    """The checked object without ids, in an image of this height and width.

    A box or an outline that cannot be used is reported, and the other one taken. Where an outline cannot be used and
    there is no box, the place of its points is ignored: it is no object, but no background either.

    Raises:
        UnusableError: nothing of it can be used.
    """
    scale = size[::-1] if relative else (1, 1)
    box, ignored = _in_pixels(obj.box, scale, report), obj.crowd
    outline, bad_outline = None, None
    if not repeats_box(obj.segmentation, obj.box):
        try:
            outline = read_outline(obj.segmentation, scale, size, report)
        except BadOutlineError as error:
            bad_outline = error
    if outline:
        if box is None or min(box[2:]) < 1:
            if obj.box is not None:
                report(f'has the box {reprlib.repr(obj.box)}: that of its outline is taken', Fault.BAD_BOX)
            box = outline.box
    elif box is not None:
        if bad_outline:
            report(f'{bad_outline}: its box alone is kept', Fault.BAD_OUTLINE)
    elif obj.box is not None:
        what = f'has the box {reprlib.repr(obj.box)}: four numbers are needed, up to a million'
        raise UnusableError(what, Fault.NOT_A_NUMBER)
    elif bad_outline is None:
        raise UnusableError('has neither a box nor an outline')
    elif bad_outline.box is None:
        raise bad_outline
    elif min(bad_outline.box[2:]) < 1:
        raise UnusableError(str(bad_outline), Fault.EMPTY)
    else:
        report(f'{bad_outline}: its place is neither trained nor background', Fault.BAD_OUTLINE)
        box, ignored = bad_outline.box, True
    box = _cut(box, size, report)
    annotation = dict(bbox=box, area=round(box[2] * box[3], 2), iscrowd=int(ignored))
    if outline:
        annotation.update(area=outline.area, segmentation=outline.segmentation)
    return annotation


def _in_pixels(box: Any, scale: tuple[int, int], report: Report) -> list[float] | None:
    """A box in pixels, its corners sorted; None where it is not four numbers. ``scale`` is that of x and of y."""
    if not are_four_numbers(box):
        return None
    x, y, width, height = (value * factor for value, factor in zip(box, (*scale, *scale)))
    if width < 0 or height < 0:
        description = _description([x, y, width, height])
        report(f'has a width or height below zero ({description}): its corners were swapped', Fault.SWAPPED)
    return [min(x, x + width), min(y, y + height), abs(width), abs(height)]


def _cut(box: Sequence[float], size: tuple[int, int], report: Report) -> list[float]:
    """A box x, y, width, height cut at the image's edges, in hundredths.

    Raises:
        UnusableError: less than a pixel of it is left. MMDetection's `CocoDataset` leaves out such boxes.
    """
    x, y, width, height = box
    if round(min(width, height), 2) < 1:
        raise UnusableError(f'is under a pixel wide or high: its {_description(box)}', Fault.EMPTY)
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, size[1]), min(y + height, size[0])
    image = 'the image of {}x{} pixels (H x W)'.format(*size)
    if not (left < right and top < bottom):
        raise UnusableError(f'is outside of {image}: its {_description(box)}', Fault.OUTSIDE_IMAGE)
    if reaches_over(box, size):
        report(f'reaches over the edge of {image}: its {_description(box)}', Fault.OVER_EDGE)
    rounded = [round(value + 0.0, 2) for value in (left, top, right - left, bottom - top)]
    if min(rounded[2:]) < 1:
        raise UnusableError(f'has less than a pixel in {image}: its {_description(box)}', Fault.EMPTY)
    return rounded


def _description(box: Sequence[float]) -> str:
    return 'box x={:g} y={:g} width={:g} height={:g}'.format(*box)
