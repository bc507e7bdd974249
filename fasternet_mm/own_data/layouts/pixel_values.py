"""What the values of pixels in label maps mean: labels, indices into a palette, shades of gray or colors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np
from PIL import Image

from ...datasets.image_files import ImageFileError, label_map_of, labels_in, open_image_file
from ...errors import UserError, few
from ...visualization.palette import default_palette
from .annotated_data import Color, SegmentationData, Value
from .class_files import IGNORED, ClassFile
from .data_folder import DataFolder
from .problems import Fault, Problem, UnusableError

UNUSED = 255
"""The label of pixels that do not count: in label maps as they come, and in those that are written."""

MOST_CLASSES = 200
"""Without a file with the classes, labels from here on are taken for gray values: of the data sets that are published
with an index a pixel, COCO-Stuff has the most, 182."""

FAR_APART = 25
"""Without a file with the classes, labels that lie so far apart in the median are shades of gray, for people to see:
numbers of classes lie close together, even where some classes do not occur."""

MOST_COLORS = 1 << 12
"""The most colors that a label map may have: an image that has more is a photograph."""

COLORS = 'RGB colors'

BLENDED = (
    ': values between those of classes come of JPEG, and of resizing that is not by the nearest neighbor; '
    'export the label maps anew as PNG, and resize them by the nearest neighbor'
)


@dataclass(slots=True)
class MapContent:
    """What is in a label map.

    Attributes:
        mode: Pillow's: 'P' has a palette, 'RGB' colors, all others have labels.
        values: the labels or colors in it.
        palette: the color of each label in it, where the file has a palette.
        fits: whether MMSegmentation reads the labels as they are.
    """

    mode: str
    values: set[Value]
    palette: dict[int, Color] = field(default_factory=dict)
    fits: bool = False


Maps = dict[tuple[str, str], MapContent]
"""What is in label maps, by the files of image and label map."""


@dataclass(slots=True)
class PixelClass:
    """A value of pixels with the name of its class; where ``color`` is None, the class may have any color."""

    value: Value
    name: str
    color: Color | None = None


def read_content(folder: DataFolder, image: str, label: str) -> MapContent | Problem:
    """What is in the label map of an image, or the problem with one of them."""
    size = folder.image_size(image)
    if isinstance(size, Problem):
        return size
    try:
        label_map = open_image_file(folder.full_path(label))
        if (label_map.height, label_map.width) != size:
            what = 'has {}x{} pixels (H x W), but its image {} has {}x{}'.format(
                label_map.height, label_map.width, folder.full_path(image), *size
            )
            raise UnusableError(what, Fault.WRONG_SIZE)
        content = _content_of(label_map)
    except ImageFileError as error:
        return Problem(folder.full_path(label), error.problem, Fault.UNREADABLE)
    except UnusableError as error:
        return Problem(folder.full_path(label), str(error), error.kind)
    above = sorted(value for value in content.values if isinstance(value, int) and value > UNUSED)
    if above:
        what = f'has the labels {few(above)}: labels are 0 to 254, and 255 where a pixel does not count'
        return Problem(folder.full_path(label), what, Fault.UNKNOWN_LABEL)
    return content


def _content_of(image: Image.Image) -> MapContent:
    """What is in a file that was opened.

    Raises:
        UnusableError: it is not a label map.
    """
    fits = image.mode in ('L', 'P')
    image = without_alpha(image)
    if image.mode == 'P':
        labels, palette = labels_in(label_map_of(image)), image.getpalette('RGB')
        if 3 * max(labels) + 3 > len(palette):
            what = f'has the label {max(labels)}, but its palette has only {len(palette) // 3} colors'
            raise UnusableError(what, Fault.LABEL_NOTATION)
        return MapContent('P', labels, {label: tuple(palette[3 * label : 3 * label + 3]) for label in labels}, fits)
    if image.mode != 'RGB':
        return MapContent(image.mode, labels_in(gray_values(image)), fits=fits)
    colors = image.getcolors(MOST_COLORS)
    if colors is None:
        raise UnusableError(f'has more than {MOST_COLORS} colors, as no label map has{BLENDED}', Fault.LABEL_NOTATION)
    return MapContent('RGB', {color for _, color in colors})


def gray_values(image: Image.Image) -> np.ndarray:
    """The pixels of a file of one channel; 1 in a file of one bit is white, as PNG has it, the 255 of eight bits."""
    labels = label_map_of(image)
    return labels * np.uint8(255) if image.mode == '1' else labels


def without_alpha(image: Image.Image) -> Image.Image:
    """The image as it is, or, where it has an alpha channel, on black: nobody sees which color an eraser left.

    Raises:
        UnusableError: a pixel is half transparent.
    """
    if image.mode not in ('LA', 'PA', 'RGBA'):
        return image
    alpha = image.getchannel('A')
    if any(alpha.histogram()[1:255]):
        what = 'has pixels that are half transparent, as soft brushes make: save it without transparency'
        raise UnusableError(what, Fault.LABEL_NOTATION)
    opaque = image.convert('L' if image.mode == 'LA' else 'RGB')
    on_black = Image.new(opaque.mode, image.size)
    on_black.paste(opaque, mask=alpha)
    return on_black


def values_in(content: MapContent, layout: str) -> set[Value]:
    """The values in a label map in the notation that all are read in."""
    if layout != COLORS or content.mode == 'RGB':
        return content.values
    return set(content.palette.values()) if content.mode == 'P' else {(label,) * 3 for label in content.values}


def pixel_classes(
    folder: DataFolder, names: ClassFile | None, maps: Maps, ignored: int | None
) -> tuple[str, list[PixelClass]]:
    """The layout, and the class of each value of a pixel, in the order of the classes.

    Args:
        folder: of the data.
        names: the file with the classes, if there is one.
        maps: what is in each label map.
        ignored: a label that does not count, beside 255.

    Raises:
        UserError: nothing says which values are which classes; or palettes contradict each other.
    """
    modes = Counter(content.mode for content in maps.values())
    labels = {label for content in maps.values() if content.mode != 'RGB' for label in content.values}
    if modes['RGB'] or (names and names.colors and (modes['P'] or _are_grays(labels, names))):
        if not names or not names.colors:
            colored = {pair: content for pair, content in maps.items() if content.mode == 'RGB'}
            raise UserError(
                f'{len(colored)} of the {len(maps)} label maps in {folder.root} are RGB, such as '
                f'{_example(folder, colored)}: write a file classes.txt there with a '
                'name and its color a line, as in "road 128 64 128"'
            )
        return COLORS, [PixelClass(color, name, color) for name, color in zip(names.names, names.colors)]
    palette = _palette(folder, maps)
    classes = _named(folder, names, labels) if names else _unnamed(folder, labels - {ignored}, bool(palette))
    classes = [replace(row, color=row.color or palette.get(row.value)) for row in classes]
    return 'palette PNGs' if modes['P'] else 'index PNGs', classes


def _are_grays(labels: set[int], names: ClassFile) -> bool:
    """Whether the values in files without colors are gray colors of the file with the classes, and no labels."""
    numbers = set(names.labels or range(len(names.names)))
    grays = {(label,) * 3 for label in labels}
    return not labels <= numbers and grays <= set(names.colors)


def _are_black_and_white(labels: set[Value]) -> bool:
    return UNUSED in labels and labels <= {0, UNUSED}


def _named(folder: DataFolder, names: ClassFile, labels: set[int]) -> list[PixelClass]:
    count = len(names.names)
    colors = names.colors or [None] * count
    classes = sorted(map(PixelClass, names.labels or range(count), names.names, colors), key=lambda row: row.value)
    if _are_black_and_white(labels) and classes[-1].value == count - 1:
        if count > 2:
            raise UserError(
                f'{names.file} names {count} classes, but the label maps in {folder.root} are black and white, 0 and '
                '255: name the class of 255 there, or those of 0 and 255'
            )
        background = PixelClass(0, 'background') if count == 1 else classes[0]
        return [background, replace(classes[-1], value=UNUSED)]
    return classes


def _unnamed(folder: DataFolder, labels: set[int], palette: bool) -> list[PixelClass]:
    counted = sorted({0, *labels} - {UNUSED})
    if not palette and (_are_black_and_white(labels) or counted[-1] >= MOST_CLASSES):
        return [PixelClass(0, 'background'), PixelClass(UNUSED, 'foreground')]
    if not palette and len(counted) > 1 and median(np.diff(counted)) >= FAR_APART:
        raise UserError(
            f'the label maps in {folder.root} have the values {few(sorted(labels))}, so far apart as shades of gray '
            'are and numbers of classes are not: write a file classes.txt there with a value and its class a line, as '
            f'in "{counted[1]} road"'
        )
    return [PixelClass(label, f'class {label}') for label in range(counted[-1] + 1)]


def number_classes(
    folder: DataFolder, layout: str, classes: list[PixelClass], maps: Maps, ignored: int | None
) -> SegmentationData:
    """The data without its files: classes numbered afresh, in their order, without what does not count.

    Raises:
        UserError: there is no class, or more than 8 bits hold; or ``ignored`` is given, but pixels are colors.
    """
    if ignored is not None and layout == COLORS:
        raise UserError(
            f'--ignore-label {ignored} is for labels, and the label maps in {folder.root} have colors: name the '
            'color void in the file with the classes'
        )
    counted = [row for row in classes if row.name.lower() not in IGNORED and row.value != ignored]
    if not 0 < len(counted) <= UNUSED:
        raise UserError(
            f'{folder.root} has {len(counted)} classes of pixels, and label maps of 8 bits hold 1 to {UNUSED}, since '
            f'{UNUSED} is the label of what does not count: leave some of them out'
        )
    labels: dict[Value, int] = {} if layout == COLORS else {UNUSED: UNUSED}
    labels |= {row.value: UNUSED for row in classes}
    if ignored is not None:
        labels[ignored] = UNUSED
    labels |= {row.value: number for number, row in enumerate(counted)}
    palette = [row.color or color for row, color in zip(counted, default_palette(len(counted)))]
    same = layout != COLORS and all(value == label for value, label in labels.items())
    fits = same and all(content.fits for content in maps.values())
    names = [row.name for row in counted]
    return SegmentationData(layout, folder.root, {}, names, palette, labels, fits, folder.problems)


def check_notation(
    folder: DataFolder, layout: str, names: ClassFile | None, classes: list[PixelClass], maps: Maps
) -> None:
    """Report label maps of two notations, which cannot be read by one rule; and numbers that no label map has."""
    values = {row.value for row in classes}

    def is_other(content: MapContent) -> bool:
        if layout == COLORS:
            return content.mode not in ('P', 'RGB') and not values_in(content, layout) <= values
        return content.values == {0, UNUSED}

    others = {pair: content for pair, content in maps.items() if is_other(content)}
    rest = {pair: content for pair, content in maps.items() if pair not in others}
    kinds = ('labels', 'colors') if layout == COLORS else ('the values 0 and 255 alone', 'labels such as 1')
    # Where 255 is what does not count, it stands beside other labels, too.
    mixed = layout == COLORS or (
        UNUSED not in values
        and any(not content.values <= {0, UNUSED} for content in rest.values())
        and not any(UNUSED in content.values and len(content.values) > 1 for content in rest.values())
    )
    if others and rest and mixed:
        parts = [f'{len(part)} have {kind} ({_example(folder, part)})' for part, kind in zip((others, rest), kinds)]
        folder.report(
            '',
            f'the label maps are in two notations, {" and ".join(parts)}: write all of them in one, or a classes.txt '
            'with a line for each value, as in "255 void"',
            Fault.LABEL_NOTATION,
        )
    if layout != COLORS and not names:
        occurring = {label for content in maps.values() for label in content.values}
        never = [row.value for row in classes if row.value not in occurring]
        if occurring and never and max(values) < UNUSED:
            folder.report(
                '',
                f'no label map has the labels {_ranges(never)}, others have up to {max(values)}: all are classes, '
                f'unless a classes.txt says which are; give --ignore-label {max(values)} if that is not a class',
                Fault.NEVER_THERE,
            )


def _example(folder: DataFolder, maps: Maps) -> str:
    _, label = next(iter(maps))
    return folder.full_path(label)


def _palette(folder: DataFolder, maps: Maps) -> dict[int, Color]:
    """The colors of all palettes together."""
    palette: dict[int, Color] = {}
    for (_, label), content in maps.items():
        for index, color in content.palette.items():
            if palette.setdefault(index, color) != color:
                raise UserError(
                    f'{folder.full_path(label)} has the color {color} for the label {index}, other label maps '
                    f'{palette[index]}: write a file classes.txt in {folder.root} with a name and its color a line, '
                    'as in "road 128 64 128"'
                )
    return palette


def unknown_values(data: SegmentationData, names: ClassFile | None, unknown: set[Value]) -> str:
    """What is wrong with a label map that has these values, which mean nothing."""
    cause = BLENDED if len(unknown) > 8 else ''
    if data.layout == COLORS:
        line = '"void {} {} {}"'.format(*min(unknown))
        cause = cause or f': give each a line there, such as {line} where it does not count'
        return f'has the colors {few(sorted(unknown))}, which {names.file} does not name{cause}'
    ignored = [value for value, label in data.labels.items() if label == UNUSED]
    if not names:
        cause = f'{BLENDED}; where they are classes, name them in a classes.txt'
    elif not cause:
        line = f', as in "{min(unknown)} void"' if names.labels else ''
        cause = f': give each a line in {names.file}{line}, or train with --ignore-label {max(unknown)}'
    return (
        f'has the labels {few(sorted(unknown))}, but {_ranges(data.labels.keys() - {*ignored})} are classes, '
        f'{_ranges(ignored) or "none"} ignored{cause}'
    )


def _ranges(labels: Iterable[int]) -> str:
    """'0 to 4, 7'"""
    runs: list[list[int]] = []
    for label in sorted(labels):
        if runs and label == runs[-1][-1] + 1:
            runs[-1].append(label)
        else:
            runs.append([label])
    return ', '.join(f'{run[0]} to {run[-1]}' if len(run) > 1 else str(run[0]) for run in runs)
