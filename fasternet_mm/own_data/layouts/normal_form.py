"""One form for the objects of all layouts: equal annotations give equal COCO content, wherever they come from."""

from __future__ import annotations

import posixpath
import re
import reprlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...datasets.image_files import ImageFileError, image_size
from ...errors import UserError
from ...parallel import in_threads
from .content import Instances, Kind, Problem, Report
from .data_folder import DataFolder, folder_splits, named_splits, stem
from .folder_words import file_kind, split_of
from .matching import composed
from .notation import NumbersAsRead, notation_question
from .outlines import BadOutlineError, Outline, are_four_numbers, reaches_over, read_outline, repeats_box


@dataclass(slots=True)
class AnnotatedObject:
    """An object as an annotation file has it, nothing checked.

    Attributes:
        name: its class.
        place: where in its file it is, for messages: 'line 3'.
        box: x, y, width, height; None where its polygons give it.
        segmentation: polygons, each x, y, x, y, …, or an RLE mask; None or nothing in it where there is only a box.
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
        size: width and height, where the source states them.
        relative: whether coordinates are fractions of the image's size.
    """

    file: str
    source: str
    objects: list[AnnotatedObject] = field(default_factory=list)
    size: tuple[int, int] | None = None
    relative: bool = False


def to_instances(
    layout: str,
    folder: DataFolder,
    splits: dict[str, list[AnnotatedImage]],
    classes: Sequence[str] | None,
    problems: list[Problem],
) -> Instances:
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
        classes: the classes in their order; None for those of the objects, sorted.
        problems: what was found wrong so far; more is added.

    Returns:
        All that is sound. What is not is left out and named in its ``problems``.
    """
    classes = _strip_names(folder, splits, classes, problems)
    if classes is None:
        classes = sorted({obj.name for annotated in splits.values() for image in annotated for obj in image.objects})
    categories = {name: number for number, name in enumerate(classes, start=1)}
    content = {}
    for split, annotated in splits.items():
        annotated = _once_each(folder, annotated, problems)
        images, annotations, numbers = [], [], NumbersAsRead(relative=any(image.relative for image in annotated))
        for image, size in zip(annotated, _sizes(folder, annotated)):
            problem = size if isinstance(size, Problem) else _wrong_size(folder, image, size)
            if problem:
                problems.append(problem)
                continue
            images.append(dict(id=len(images) + 1, file_name=image.file, width=size[0], height=size[1]))
            for obj in image.objects:
                report = folder.reporter(image.source, problems, f'{obj.place} ')
                numbers.add(obj.box, obj.segmentation, size)
                annotation = _annotation(obj, size, image.relative, report)
                if annotation:
                    ids = dict(id=len(annotations) + 1, image_id=len(images), category_id=categories[obj.name])
                    annotations.append({**ids, **annotation})
        question = notation_question(layout, numbers)
        if question:
            sources = {image.source for image in annotated}
            place = folder.shown(sources.pop()) if len(sources) == 1 else str(folder.root)
            problems.append(Problem(place, question.format(split=split), Kind.NOTATION))
        content[split] = dict(
            images=images,
            annotations=annotations,
            categories=[dict(id=number, name=name) for name, number in categories.items()],
        )
    return Instances(layout, folder.root, content, problems)


def _strip_names(
    folder: DataFolder,
    splits: dict[str, list[AnnotatedImage]],
    classes: Sequence[str] | None,
    problems: list[Problem],
) -> list[str] | None:
    """Names of classes without spaces at their ends, accents composed; where that makes two one, the user is told."""
    objects = [obj for images in splits.values() for image in images for obj in image.objects]
    by_name: dict[str, set[str]] = defaultdict(set)
    for name in {*(classes or ()), *(obj.name for obj in objects)}:
        by_name[composed(name.strip())].add(name)
    for obj in objects:
        obj.name = composed(obj.name.strip())
    for name, spellings in by_name.items():
        if len(spellings) > 1:
            what = (
                f'the classes {", ".join(map(repr, sorted(spellings)))} differ in spaces, or in how accents are '
                f'encoded, alone: they count as {name!r}'
            )
            problems.append(Problem(str(folder.root), what, Kind.NAMES_CHANGED))
    return classes and list(dict.fromkeys(composed(name.strip()) for name in classes))


def rectangles_are_boxes(images: Iterable[AnnotatedImage]) -> None:
    """Drop the polygons where all that was drawn in a data set is rectangles: these are boxes, not outlines.

    Objects that are drawn as rectangles have ``box`` as well as ``segmentation``. Among other shapes, a rectangle is
    the outline of something rectangular.
    """
    objects = [obj for image in images for obj in image.objects]
    if all(obj.box is not None for obj in objects):
        for obj in objects:
            obj.segmentation = None


def locate_images(
    folder: DataFolder, annotated: list[AnnotatedImage], problems: list[Problem], stem_first: bool
) -> None:
    """Find the image of each annotation file that is of one: it has its name, or the one that is in it.

    Args:
        folder: with the data.
        annotated: whose ``file`` is the name that is in the annotation file; it becomes the path in the data's folder.
            Those whose names lead out of it are dropped.
        problems: to add to.
        stem_first: whether the annotation file's own name counts more than the one in it.

    Raises:
        UserError: there are none, no image is there, or two fit equally well.
    """
    if not annotated:
        raise UserError(f'{folder.root} has no annotation file that can be read: export the annotations again')
    names, sources = [image.file for image in annotated], [image.source for image in annotated]
    paths = folder.images_of(sources, names, problems, stem_first)
    for image, path in zip(annotated, paths):
        if path is None:
            what = f'is of {image.file}, which is not in the folder'
            problems.append(Problem(folder.shown(image.source), what, Kind.OUTSIDE_FOLDER))
        else:
            image.file = path
    annotated[:] = [image for image, path in zip(annotated, paths) if path is not None]
    if not any(image.file in folder.all for image in annotated):
        raise folder.no_image_of(sources[0] if len(sources) == 1 else posixpath.dirname(sources[0]), names)


def split_by_folders(
    folder: DataFolder, images: Iterable[AnnotatedImage], problems: list[Problem]
) -> dict[str, list[AnnotatedImage]]:
    """Splits as folders' names say, with the images without annotations in the same folders, which are background.

    The image's folder counts more than that of its annotation file. Label maps and drawings of the images, such as
    0001_mask.png, are no background.

    Raises:
        UserError: there are several splits, but none to train.
    """
    images = list(images)
    named = {image.file for image in images}
    places = {posixpath.dirname(file) for file in named}
    stems = {posixpath.splitext(file)[0] for file in named}
    background = [
        file
        for file in folder.images
        if file not in named and posixpath.dirname(file) in places and not _is_made_of(file, stems)
    ]
    images += [AnnotatedImage(file, file) for file in background]
    pairs = [(image.file, image.source) for image in images]
    splits = defaultdict(list)
    for image, split in zip(images, folder_splits(folder, pairs, 'annotation files', problems)):
        splits[split].append(image)
    return named_splits(folder, splits)


def split_of_one_file(
    folder: DataFolder, splits: dict[str, list[AnnotatedImage]], file: str
) -> dict[str, list[AnnotatedImage]]:
    """Splits as the folders of images say, where the only annotation file says none; else those of the files.

    Args:
        folder: with the data.
        splits: of the annotation files.
        file: the first of them.

    Raises:
        UserError: there are several splits, but none to train.
    """
    if len(splits) > 1 or split_of(file):
        return splits
    found = defaultdict(list)
    for image in splits['train']:
        found[split_of(posixpath.dirname(image.file)) or 'train'].append(image)
    return named_splits(folder, found) if found else splits


def _is_made_of(file: str, stems: set[str]) -> bool:
    """Whether an image is a label map or drawing of another, by its name."""
    path = posixpath.splitext(file)[0]
    return path in stems or (
        file_kind(stem(file)) is not None
        and any(path[: match.start()] in stems for match in re.finditer('[_.-]', path))
    )


def _once_each(folder: DataFolder, images: Iterable[AnnotatedImage], problems: list[Problem]) -> list[AnnotatedImage]:
    """Images sorted by their file names; none of those named twice, of which nobody knows which is right."""
    found: dict[str, list[AnnotatedImage]] = defaultdict(list)
    for image in images:
        found[image.file].append(image)
    for file, same in found.items():
        if len(same) > 1:
            sources = ' and '.join(dict.fromkeys(folder.shown(image.source) for image in same))
            what = f'is named {len(same)} times in {sources}'
            problems.append(Problem(folder.shown(file), what, Kind.DUPLICATE))
    return [found[file][0] for file in sorted(found) if len(found[file]) == 1]


def _sizes(folder: DataFolder, images: Sequence[AnnotatedImage]) -> Iterable[tuple[int, int] | Problem]:
    def size(image: AnnotatedImage) -> tuple[int, int] | Problem:
        shown = folder.shown(image.file)
        if image.file not in folder.all:
            return Problem(shown, f'does not exist, but {folder.shown(image.source)} names it', Kind.MISSING_IMAGE)
        try:
            height, width = image_size(shown)
        except ImageFileError as error:
            return Problem(shown, error.problem, Kind.UNREADABLE)
        return width, height

    return in_threads(size, images, "reading images' sizes")


def _wrong_size(folder: DataFolder, image: AnnotatedImage, size: tuple[int, int]) -> Problem | None:
    if image.size is None or tuple(image.size) == size:
        return None
    stated = '{}x{}'.format(*image.size)
    what = 'has {}x{} pixels, but {} says {}'.format(*size, folder.shown(image.source), stated)
    if image.size == size[::-1]:
        what += ' (as if it were not turned, which its EXIF orientation asks for, or width and height were swapped)'
    return Problem(folder.shown(image.file), what, Kind.WRONG_SIZE)


def _annotation(obj: AnnotatedObject, size: tuple[int, int], relative: bool, report: Report) -> dict[str, Any] | None:
    """The checked object without ids, or None where nothing of it can be used.

    A box or an outline that cannot be used is named, and the other one taken. Where an outline cannot be used and there
    is no box, the place of its points is ignored: it is no object, but no background either.
    """
    scale = size if relative else (1, 1)
    box, outline, ignored = _in_pixels(obj.box, scale, report), _outline(obj, scale, size, report), obj.crowd
    if isinstance(outline, Outline):
        if box is None or min(box[2:]) < 1:
            if obj.box is not None:
                report(f'has the box {reprlib.repr(obj.box)}: that of its outline is taken', Kind.BAD_BOX)
            box = outline.box
    elif box is None and obj.box is not None:
        what = f'has the box {reprlib.repr(obj.box)}: four numbers are needed, up to a million'
        return report(what, Kind.NOT_A_NUMBER)
    elif box is None and outline is None:
        return report('has neither a box nor an outline', Kind.MALFORMED)
    elif box is None:
        if outline.box is None or min(outline.box[2:]) < 1:
            return report(str(outline), Kind.EMPTY if outline.box else outline.kind)
        report(f'{outline}: its place is neither trained nor background', Kind.BAD_OUTLINE)
        box, ignored = outline.box, True
    elif outline is not None:
        report(f'{outline}: its box alone is kept', Kind.BAD_OUTLINE)
    box = _box(box, size, report)
    if box is None:
        return None
    annotation = dict(bbox=box, area=round(box[2] * box[3], 2), iscrowd=int(ignored))
    if isinstance(outline, Outline):
        annotation.update(area=outline.area, segmentation=outline.segmentation)
    return annotation


def _outline(
    obj: AnnotatedObject, scale: tuple[int, int], size: tuple[int, int], report: Report
) -> Outline | BadOutlineError | None:
    """The outline, or what is wrong with it; None where there is none."""
    if repeats_box(obj.segmentation, obj.box):
        return None
    try:
        return read_outline(obj.segmentation, scale, size, report)
    except BadOutlineError as error:
        return error


def _in_pixels(box: Any, scale: tuple[int, int], report: Report) -> list[float] | None:
    """A box in pixels, its corners sorted; None where it is not four numbers."""
    if not are_four_numbers(box):
        return None
    x, y, width, height = (value * side for value, side in zip(box, (*scale, *scale)))
    if width < 0 or height < 0:
        what = f'has a width or height below zero ({_shown([x, y, width, height])}): its corners were swapped'
        report(what, Kind.SWAPPED)
    return [min(x, x + width), min(y, y + height), abs(width), abs(height)]


def _box(box: Sequence[float], size: tuple[int, int], report: Report) -> list[float] | None:
    """A box x, y, width, height cut at the image's edges, in hundredths; None where less than a pixel of it is left.

    MMDetection's `CocoDataset` leaves out boxes of which a side is under a pixel.
    """
    x, y, width, height = box
    if round(min(width, height), 2) < 1:
        return report(f'is under a pixel wide or high: its {_shown(box)}', Kind.EMPTY)
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, size[0]), min(y + height, size[1])
    image = 'the image of {}x{} pixels'.format(*size)
    if not (left < right and top < bottom):
        return report(f'is outside of {image}: its {_shown(box)}', Kind.OUTSIDE_IMAGE)
    if reaches_over(box, size):
        report(f'reaches over the edge of {image}: its {_shown(box)}', Kind.OVER_EDGE)
    cut = [round(value + 0.0, 2) for value in (left, top, right - left, bottom - top)]
    return cut if min(cut[2:]) >= 1 else report(f'has less than a pixel in {image}: its {_shown(box)}', Kind.EMPTY)


def _shown(box: Sequence[float]) -> str:
    return 'box x={:g} y={:g} width={:g} height={:g}'.format(*box)
