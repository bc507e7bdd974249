"""What the names of folders and files say: which split they hold, and whether images, label maps or drawings."""

from __future__ import annotations

import re
from functools import lru_cache

_SPLIT = re.compile(
    '(?:(?P<train>train(?:ing|val)?)|(?P<val>val(?:id(?:ation)?)?|dev)|(?P<test>test(?:ing)?))'
    '(?:set|data|annot|images?|imgs?|labels?|masks?)?'
)
LABEL_WORD = re.compile(
    'label(l?ed|maps?|ids|trainids|edapproved)?s?|masks?|[a-z]*annot|ann(otation)?s?|gt(fine)?|groundtruth|'
    'seg(mentations?|mentationclass)?|stuffthingmaps|l|jsons?|xmls?'
)
"""A word in the name of a folder of annotations or label maps, or the last word in the name of a label map."""

IMAGE_WORD = re.compile('(jpe?g|png)?(image|img|picture|photo|frame)s?|leftimg8bit|rgb')
"""A word in the name of a folder of images."""

DRAWING_WORD = re.compile(
    'segmentationobject|instances?|instanceids|panoptic|visuali[sz]ations?|viz|overlays?|drawings?|'
    'colou?rmaps?|drawn|predictions?|preds?|thumb(nail)?s?|previews?|heatmaps?'
)
"""A word in the name of a folder of drawings of images or label maps, or the last word in the name of a drawing."""

_KINDS = dict(drawing=DRAWING_WORD, label=LABEL_WORD, image=IMAGE_WORD)

REMEMBERED = 1 << 14
"""The number of paths of folders whose meaning is remembered: a data set has far more files than folders."""


@lru_cache(REMEMBERED)
def split_of(path: str) -> str | None:
    """'train', 'val' or 'test', from the last part of a path that says one of them in any usual way; or None."""
    for part in reversed(path.split('/')):
        # "DevKit" is not for validation.
        words = set(re.findall('[a-z]+', part.lower())) | set(_capitalized(part, 3)) - {'dev'}
        splits = {match.lastgroup for match in map(_SPLIT.fullmatch, words) if match}
        if len(splits) == 1:
            return splits.pop()
    return None


def split_named(name: str) -> str | None:
    """'train', 'val' or 'test' where a whole name says it, such as 'Validation', 'train2012' or 'trainval'; or None."""
    match = _SPLIT.fullmatch(name.lower().rstrip('0123456789_-'))
    return match.lastgroup if match else None


@lru_cache(REMEMBERED)
def folder_kind(folder: str) -> str | None:
    """'image', 'label' (label maps, annotations) or 'drawing', from the last part of a path that says it; or None."""
    for part in reversed(folder.split('/')):
        words = {*re.findall('[a-z0-9]+', part.lower()), *re.findall('[a-z]{3,}', part.lower()), *_capitalized(part, 4)}
        for kind, word in _KINDS.items():
            if any(map(word.fullmatch, words)):
                return kind
    return None


@lru_cache(REMEMBERED)
def parts_below(folder: str) -> tuple[str, ...]:
    """The parts of a folder's path that say no kind of file: ('train',) of both images/train and labels/train."""
    return tuple(part for part in folder.split('/') if part and folder_kind(part) is None)


def file_kind(stem: str) -> str | None:
    """'label' or 'drawing' where the last of several words in a file's name says so, as in 0001_mask or 0001_viz."""
    _, *words = re.split('[_.-]', stem.lower())
    for kind in ('drawing', 'label'):
        if words and _KINDS[kind].fullmatch(words[-1]):
            return kind
    return None


def _capitalized(name: str, letters: int) -> list[str]:
    """The words of names such as JPEGImages and testData, in lower case; those of so many letters at least."""
    words = re.findall('[A-Z]+(?![a-z])|[A-Z]?[a-z]+', name)
    return [word.lower() for word in words if len(word) >= letters]
