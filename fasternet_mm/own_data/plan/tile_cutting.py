"""Large images cut into tiles for training, with their annotations."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hotcoco import mask as rle

from ...datasets.image_files import labels_in, names_below, read_label_map
from ...datasets.image_reading import read_image
from ...files import write_atomically
from ...inference.tiles import Tile, Tiling
from ...parallel import in_threads
from ..layouts.annotated_data import DetectionData, OwnData, SegmentationData
from ..layouts.outlines import BadOutlineError, extent, read_outline
from ..layouts.pixel_values import UNUSED
from .validation_split import WHOLE_IMAGES

LEAST_SHARE = 0.25
"""The share of an object that a tile must have for it to be trained there: that of one which is cut in four where four
tiles meet. Less of it is an ignored region, as a crowd is: nobody could tell what it is, but background it is not.
Another tile has the whole object, unless it is larger than the overlap."""

CUT_SPLITS = ('train', 'val')
"""The splits of which networks see tiles. Tests are of whole images, whose tiles are put together."""


def cut_into_tiles(data: OwnData, tiling: Tiling, folder: Path) -> tuple[OwnData, str]:
    """Cut the images of train and val that are larger than a tile, and their annotations.

    Tiles are PNG files in ``folder/tiles``, named as their image with the row and the column in it where they begin:
    ``street.y512.x1024.png``. Images that are no larger stay where they are. In training an image has as many tiles
    without objects as with some, one at least, spread evenly: of most large images they would be nearly all.

    Args:
        data: with train and val, label maps as `write_label_maps` makes them.
        tiling: how images are cut.
        folder: the ``data`` folder of the work directory; the split of the images is written there, too.

    Returns:
        The data, whose test split, if there was none, is val of whole images; and what was cut, for people.
    """
    paths = data.image_paths
    listed = {split: [str(path.relative_to(data.root).as_posix()) for path in paths[split]] for split in CUT_SPLITS}
    write_atomically(folder / WHOLE_IMAGES, json.dumps(listed).encode())
    names = names_below([path for part in paths.values() for path in part])
    cut = _cut_objects if isinstance(data, DetectionData) else _cut_label_maps
    tiled = cut(data, tiling, {Path(path): str(folder / 'tiles' / name) for path, name in names.items()})
    counts = [f'{len(tiled.image_paths[split]):,} from {len(paths[split]):,} images of {split}' for split in CUT_SPLITS]
    text = (
        f'{{}}x{{}} (H x W), overlapping by {tiling.overlap:g} at least: {", ".join(counts)}; evaluated on tiles, '
        'tested in whole images'
    )
    return tiled, text.format(*tiling.size)


def _cut_objects(data: DetectionData, tiling: Tiling, names: Mapping[Path, str]) -> DetectionData:
    splits = {**data.splits, 'test': data.splits.get('test', data.splits['val'])}
    for split in CUT_SPLITS:
        content = data.splits[split]
        of_image = defaultdict(list)
        for annotation in content['annotations']:
            of_image[annotation['image_id']].append(annotation)
        cut = partial(_tiles_with_objects, data.root, tiling, names, split == 'train', of_image)
        images, annotations = [], []
        for tiles in in_threads(cut, content['images'], f'cutting images of {split}'):
            for image, objects in tiles:
                images.append({**image, 'id': len(images) + 1})
                for obj in objects:
                    annotations.append({**obj, 'id': len(annotations) + 1, 'image_id': len(images)})
        splits[split] = {**content, 'images': images, 'annotations': annotations}
    return replace(data, splits=splits)


def _tiles_with_objects(
    root: Path,
    tiling: Tiling,
    names: Mapping[Path, str],
    is_training: bool,
    of_image: Mapping[int, Sequence[dict[str, Any]]],
    image: dict[str, Any],
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The tiles of an image as COCO has images, each with its annotations; the image itself where it is no larger."""
    path, size, annotations = root / image['file_name'], (image['height'], image['width']), of_image[image['id']]
    if not tiling.divides(size):
        return [(image, list(annotations))]
    tiles = tiling.tiles(size)
    objects = [[obj for obj in map(partial(_in_tile, tile), annotations) if obj] for tile in tiles]
    if is_training:
        useful = [any(not obj['iscrowd'] for obj in part) for part in objects]
        chosen = _with_some_empty(useful)
        tiles, objects = [tiles[number] for number in chosen], [objects[number] for number in chosen]
    pixels, result = read_image(path), []
    for tile, part in zip(tiles, objects):
        height, width = (span.end - span.start for span in tile)
        file = _write_tile(names[path], tile, pixels)
        result.append((dict(file_name=str(file), height=height, width=width), part))
    return result


def _with_some_empty(useful: Sequence[bool]) -> list[int]:
    """The numbers of the tiles that are useful, and of as many others, one at least, spread evenly."""
    empty = [number for number, is_useful in enumerate(useful) if not is_useful]
    count = min(len(empty), max(1, sum(useful)))
    spread = [empty[number * len(empty) // count] for number in range(count)]
    return sorted([*spread, *(number for number, is_useful in enumerate(useful) if is_useful)])


def _write_tile(name: str, tile: Tile, pixels: np.ndarray, kind: str = '') -> Path:
    rows, columns = tile
    file = Path(f'{name}{kind}.y{rows.start}.x{columns.start}.png')
    part = pixels[rows.start : rows.end, columns.start : columns.end]
    write_atomically(file, cv2.imencode('.png', part, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes())
    return file.absolute()


def _in_tile(tile: Tile, annotation: dict[str, Any]) -> dict[str, Any] | None:
    """An annotation cut at the borders of a tile, in pixels of that; None where less than a pixel is left."""
    (top, bottom), (left, right) = (span[:2] for span in tile)
    x, y, width, height = annotation['bbox']
    x0, y0, x1, y1 = max(x, left), max(y, top), min(x + width, right), min(y + height, bottom)
    if min(x1 - x0, y1 - y0) < 1:
        return None
    box, area = [x0 - left, y0 - top, x1 - x0, y1 - y0], (x1 - x0) * (y1 - y0)
    share, outline = area / (width * height), {}
    if 'segmentation' in annotation:
        try:
            outline = _outline_in_tile(annotation['segmentation'], (top, left, bottom, right))
        except BadOutlineError:
            return None
        area = outline['area']
        share = area / annotation['area']
        if [x1 - x0, y1 - y0] != [width, height]:
            box = outline.pop('extent')
        outline.pop('extent', None)
    if min(box[2:]) < 1:
        return None
    ignored = annotation['iscrowd'] or share < LEAST_SHARE
    numbers = dict(bbox=[round(value, 2) for value in box], area=round(area, 2), iscrowd=int(ignored))
    return {**annotation, **numbers, **outline}


def _outline_in_tile(segmentation: Any, area: tuple[int, int, int, int]) -> dict[str, Any]:
    """The part of polygons or of a mask in a tile, its area, and the box x, y, width, height around it.

    Raises:
        BadOutlineError: there is none.
    """
    top, left, bottom, right = area
    if isinstance(segmentation, dict):
        mask = rle.decode(rle.fr_py_objects(segmentation, *segmentation['size']))[top:bottom, left:right]
        encoded = rle.encode(np.asfortranarray(mask))
        segmentation = dict(size=list(encoded['size']), counts=encoded['counts'].decode())
    else:
        segmentation = [
            [value - (top if place % 2 else left) for place, value in enumerate(polygon)] for polygon in segmentation
        ]
    outline = read_outline(segmentation, (1, 1), (bottom - top, right - left), lambda what, kind: None)
    box = outline.box if isinstance(segmentation, dict) else extent(outline.segmentation)
    return dict(segmentation=outline.segmentation, area=outline.area, extent=box)


def _cut_label_maps(data: SegmentationData, tiling: Tiling, names: Mapping[Path, str]) -> SegmentationData:
    splits, classes_in = {**data.splits, 'test': data.splits.get('test', data.splits['val'])}, dict(data.classes_in)
    for split in CUT_SPLITS:
        cut = partial(_tiles_with_labels, tiling, names)
        splits[split] = []
        for tiles in in_threads(cut, data.splits[split], f'cutting images of {split}'):
            for image, labels, classes in tiles:
                if classes or split != 'train':
                    splits[split].append((image, labels))
                    classes_in.setdefault(image, classes)
    return replace(data, splits=splits, classes_in=classes_in)


def _tiles_with_labels(
    tiling: Tiling, names: Mapping[Path, str], pair: tuple[Path, Path]
) -> list[tuple[Path, Path, set[int]]]:
    """The tiles of an image, their label maps and the classes in these."""
    path, labels = pair
    label_map = read_label_map(labels)
    if not tiling.divides(label_map.shape):
        return [(path, labels, labels_in(label_map) - {UNUSED})]
    pixels = read_image(path)
    return [
        (
            _write_tile(names[path], tile, pixels),
            _write_tile(names[path], tile, label_map, '.labels'),
            labels_in(label_map[slice(*tile.rows[:2]), slice(*tile.columns[:2])]) - {UNUSED},
        )
        for tile in tiling.tiles(label_map.shape)
    ]
