"""A folder of images and annotations in any of the formats, which appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError
from . import FORMAT_NAMES
from .annotation_writer import AnnotationWriter
from .coco_writer import CocoWriter
from .label_map_writer import LabelMapWriter
from .labelme_writer import LabelMeWriter
from .pascal_voc_writer import PascalVocWriter
from .yolo_writer import YoloWriter

WRITERS: dict[str, type[AnnotationWriter]] = dict(
    zip(FORMAT_NAMES, (CocoWriter, YoloWriter, PascalVocWriter, LabelMeWriter, LabelMapWriter), strict=True)
)
"""What writes each of `FORMAT_NAMES`."""


def refuse_full(folder: Path) -> None:
    """Raise `UserError` unless a folder is empty or not there: what is in it may have been corrected by hand."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f'{folder} has something in it, which may be work of yours: move it away, or name another')


@contextmanager
def writing(annotation_format: str, folder: Path, classes: Sequence[str], **options: Any) -> Iterator[AnnotationWriter]:
    """A writer of a format. What it writes appears as ``folder`` in one step, when all went well.

    Args:
        annotation_format: one of `FORMAT_NAMES`.
        folder: new or empty.
        classes: the names of all classes, by label.
        options: further arguments of `AnnotationWriter`.

    Raises:
        UserError: there is something in the folder, or it cannot be written.
    """
    refuse_full(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f'.{folder.name}-', dir=folder.parent))
    except OSError as error:
        raise UserError(f'{folder} cannot be written ({error.strerror}): name another folder') from error
    try:
        draft.chmod(0o755)
        writer = WRITERS[annotation_format](draft, classes, **options)
        yield writer
        writer.finish()
        refuse_full(folder)
        if folder.exists():
            folder.rmdir()
        os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def losses(writer: AnnotationWriter) -> list[str]:
    """A line for each thing that the format could not hold, with how often it was there."""
    return [f'not kept:   {what} ({count})' for what, count in writer.not_kept.items() if count]
