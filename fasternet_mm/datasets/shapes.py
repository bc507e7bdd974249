"""The embedded data set "shapes": generated images of overlapping shapes with instance masks and label maps.

It stands in for COCO and ADE20K where neither is at hand: small enough to learn in minutes on two cores, and with the
difficulties of real images (occlusion, rotation, texture, clutter, noise). The same seed gives the same bytes.
"""

from __future__ import annotations

import colorsys
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

NAME = 'fasternet_mm shapes'
"""What ``recipe.json`` beside the data set calls it."""

CLASSES = ('circle', 'square', 'triangle', 'star', 'cross', 'ring')
PALETTE = [(230, 60, 60), (60, 120, 230), (250, 190, 40), (70, 190, 90), (170, 80, 210), (40, 190, 200)]
"""RGB, for drawings; it has nothing to do with the colors in the images."""

SIZE = 160
"""Height and width of every image, in pixels."""

SPLITS = {'train': 800, 'val': 100, 'test': 100}
"""Images per split."""

VERSION = 1
"""Raised whenever the generator would draw other pixels."""

HUE_SPREAD = 20
"""Standard deviation of a shape's hue around its class's usual one, in degrees; classes lie 60 degrees apart."""

MIN_VISIBLE = 0.45
"""At least this much of every shape's area stays visible under the shapes above it."""

Rng = np.random.Generator


def ensure_shapes(root: str | os.PathLike, seed: int = 0) -> Path:
    """Make the data set at ``root`` unless it is there already, whole and of this version and seed.

    The folder appears in one step, when all of it is written, so an interruption leaves nothing that looks finished,
    and processes that make it at the same time do not disturb one another.

    Returns:
        The folder, with ``annotations/{split}.json`` (COCO instances), ``images/{split}/*.png`` and
        ``labels/{split}/*.png`` (0 is background, ``i + 1`` is ``CLASSES[i]``).

    Raises:
        FileExistsError: ``root`` exists and is something else than this data set.
    """
    root = Path(root)
    recipe = dict(data=NAME, version=VERSION, seed=seed, size=SIZE, splits=SPLITS)
    if _recipe_of(root) == recipe:
        return root
    if root.exists() and _recipe_of(root) is None:
        raise FileExistsError(f'{root} exists but is not the shapes data set: move it away, or set another data_root')
    root.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f'.{root.name}-', dir=root.parent))
    try:
        made.chmod(0o755)
        for number, (split, count) in enumerate(SPLITS.items()):
            _write_split(made, split, count, (seed, number))
        (made / 'recipe.json').write_text(json.dumps(recipe))
        if root.exists() and _recipe_of(root) != recipe:
            root.rename(made / 'outdated')
        try:
            made.rename(root)
        except OSError:
            if _recipe_of(root) != recipe:  # else another process was faster, with the same bytes
                raise
        shutil.rmtree(root / 'outdated', ignore_errors=True)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return root


def _recipe_of(root: Path) -> dict[str, Any] | None:
    try:
        return json.loads((root / 'recipe.json').read_text())
    except (OSError, ValueError):
        return None


def _write_split(root: Path, split: str, count: int, seed: tuple[int, int]) -> None:
    from pycocotools import mask as rle

    images, annotations = [], []
    for folder in ('images', 'labels'):
        (root / folder / split).mkdir(parents=True)
    (root / 'annotations').mkdir(exist_ok=True)
    for index in range(count):
        image, objects = draw_image(np.random.default_rng((*seed, index)))
        name = f'{index:04d}.png'
        labels = np.zeros((SIZE, SIZE), np.uint8)
        images.append(dict(id=index + 1, file_name=name, height=SIZE, width=SIZE))
        for category, mask in objects:
            labels[mask] = category + 1
            encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index + 1,
                    category_id=category + 1,
                    segmentation=dict(size=encoded['size'], counts=encoded['counts'].decode()),
                    bbox=rle.toBbox(encoded).tolist(),
                    area=int(mask.sum()),
                    iscrowd=0,
                )
            )
        cv2.imwrite(str(root / 'images' / split / name), image[..., ::-1])
        cv2.imwrite(str(root / 'labels' / split / name), labels)
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))


def draw_image(rng: Rng) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """One image and its objects.

    Returns:
        RGB ``(SIZE, SIZE, 3)`` uint8, and for each object its class index and visible mask ``(SIZE, SIZE)`` bool.
    """
    canvas = _background(rng)
    objects: list[tuple[int, np.ndarray]] = []
    areas: list[int] = []
    for _ in range(rng.integers(2, 7)):
        category = int(rng.integers(len(CLASSES)))
        mask = _shape_mask(rng, CLASSES[category])
        hidden = [old & ~mask for _, old in objects]
        if any(rest.sum() < MIN_VISIBLE * area for rest, area in zip(hidden, areas)) or mask.sum() < 80:
            continue
        objects = [(old_category, rest) for (old_category, _), rest in zip(objects, hidden)] + [(category, mask)]
        areas.append(int(mask.sum()))
        canvas[mask] = _texture(rng, category)[mask]
    canvas += rng.normal(0, rng.uniform(2, 10), canvas.shape)
    return canvas.clip(0, 255).astype(np.uint8), objects


def _background(rng: Rng) -> np.ndarray:
    """Smooth color noise with strokes across it that belong to no class."""
    coarse = rng.uniform(50, 205, (rng.integers(2, 6), rng.integers(2, 6), 3)).astype(np.float32)
    coarse = 0.4 * coarse + 0.6 * coarse.mean(-1, keepdims=True)  # paler than the shapes
    canvas = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(1, 6)):
        start, end = rng.integers(0, SIZE, (2, 2)).tolist()
        cv2.line(canvas, start, end, rng.uniform(0, 255, 3).tolist(), int(rng.integers(1, 4)))
    return canvas


def _shape_mask(rng: Rng, name: str) -> np.ndarray:
    """A rotated, slightly stretched shape, as ``(SIZE, SIZE)`` bool; part of it may lie outside the image."""
    angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(15, 42)
    center = rng.uniform(0.06 * SIZE, 0.94 * SIZE, 2)
    stretch = np.diag([1.0, rng.uniform(0.75, 1.0)])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for outline, value in _OUTLINES[name]():
        points = outline @ stretch @ rotation.T * radius + center
        # Four fractional bits: corners lie between pixels.
        cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], value, shift=4)
    return mask.astype(bool)


def _polar(radii: list[float], points: int) -> np.ndarray:
    angle = np.arange(points) * 2 * np.pi / points
    return np.tile(radii, points // len(radii))[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1)


def _cross() -> np.ndarray:
    arm = np.array([(1, -0.32), (1, 0.32), (0.32, 0.32)])
    turn = np.array([[0, 1], [-1, 0]])
    return np.concatenate([arm @ np.linalg.matrix_power(turn, quarter) for quarter in range(4)])


_OUTLINES: dict[str, Callable[[], list[tuple[np.ndarray, int]]]] = {
    'circle': lambda: [(_polar([1], 48), 1)],
    'square': lambda: [(_polar([1], 4), 1)],
    'triangle': lambda: [(_polar([1], 3), 1)],
    'star': lambda: [(_polar([1, 0.42], 10), 1)],
    'cross': lambda: [(_cross(), 1)],
    'ring': lambda: [(_polar([1], 48), 1), (_polar([0.55], 48), 0)],
}


def _texture(rng: Rng, category: int) -> np.ndarray:
    """Two colors in a plain, striped, chequered, dotted or graded pattern over the whole image.

    As with things in the world, a class has a usual color, but the color alone does not tell: neighbors overlap.
    """
    hue = 360 / len(CLASSES) * category + rng.normal(0, HUE_SPREAD)
    first = np.array(colorsys.hsv_to_rgb(hue / 360 % 1, rng.uniform(0.4, 1), rng.uniform(0.45, 1))) * 255
    second = (first * rng.uniform(0.5, 1.3) + rng.uniform(-30, 30, 3)).clip(0, 255)
    angle, wave = rng.uniform(0, np.pi), 2 * np.pi / rng.uniform(5, 14)
    y, x = np.mgrid[:SIZE, :SIZE]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    patterns = (
        lambda: np.zeros((SIZE, SIZE)),
        lambda: np.sin(along * wave) > 0,
        lambda: np.sin(along * wave) * np.sin(across * wave) > 0,
        lambda: np.sin(along * wave) + np.sin(across * wave) > 1,
        lambda: (along - along.min()) / (along.max() - along.min()),
    )
    share = patterns[rng.integers(len(patterns))]()[..., None]
    return (first * (1 - share) + second * share).astype(np.float32)
