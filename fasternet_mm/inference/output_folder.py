"""Predictions of many images and videos, written to a folder."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import cv2
from tqdm import tqdm

from ..datasets.image_files import IMAGE_SUFFIXES
from ..datasets.image_reading import is_url
from ..errors import UserError, few
from ..files import appearing, check_writable, mark_output, write_atomically
from ..visualization.drawing import write_drawing
from .inputs import is_camera, is_video
from .prediction import Prediction, labels_of
from .predictor import Predictor, named_error
from .video import open_video, video_appearing

NAMED = 10
"""Images that could not be predicted and are named."""

CUT_OFF = 0.9
"""Of a video's frames, by the file's own count, which some kinds of files only estimate."""

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of the system after which no other file can be written either."""


def predict_to_folder(
    predictor: Predictor,
    sources: Sequence[str],
    out_dir: str,
    score_thr: float = 0.3,
    classes: Sequence[str] = (),
    save_crops: bool = False,
    json_file: str | None = None,
) -> None:
    """Predict images and videos; write a drawing of each and what was found to ``out_dir``.

    Of a segmenter that is ``labels/NAME.png`` per image, each pixel the number of its class; of a detector
    ``results.json``, in COCO's results format plus ``file_name``, and of a video's frames their number, ``frame``. A
    image named by a number alone, as COCO's are, has it as ``image_id``; others and frames have the numbers from 1
    that are left. Whatever goes wrong with one image, the others are predicted.

    Args:
        predictor: the model.
        sources: see `find_inputs`.
        out_dir: folder of the results.
        score_thr: detections below it are neither drawn nor cut out. Default: 0.3.
        classes: only these; default: all.
        save_crops: also write what is in each box to ``crops/CLASS/NAME-N.jpg``. Default: False.
        json_file: of detections, instead of ``results.json`` in ``out_dir``.

    Raises:
        UserError: ``out_dir`` cannot be written, an option is not for this model, or, once all is done and written,
            something could not be predicted: the first of them by name.
    """
    labels_of(classes, predictor.classes)
    if predictor.is_segmenter and (save_crops or json_file):
        raise UserError('--save-crops and --json are of objects, and this model labels pixels: leave them out')
    check_writable(out_dir)
    mark_output(out_dir)
    records_file = Path(json_file or Path(out_dir, 'results.json'))
    check_writable(str(records_file.parent))
    images = [source for source in sources if not is_video(source)]
    videos = [source for source in sources if is_video(source)]
    broken: list[UserError] = []
    with nullcontext(None) if predictor.is_segmenter else json_list(records_file) as records:
        output = _Output(Path(out_dir), score_thr, classes, save_crops, records, images)
        for prediction in predictor.stream(tqdm(images, unit='image', disable=not images), broken):
            with _left_out(prediction.source, broken):
                output.save_image(prediction)
        for video in videos:
            with _left_out(video, broken):
                _predict_video(predictor, video, output)
    print(f'drawings:   {out_dir}')
    if predictor.is_segmenter and images:
        print(f'label maps: {Path(out_dir, "labels")}')
    if save_crops:
        print(f'crops:      {Path(out_dir, "crops")}')
    if not predictor.is_segmenter:
        print(f'detections: {records_file} ({output.found})')
    if broken:
        named = few(broken, NAMED, '; ', counted=True)
        raise UserError(f'{len(broken)} of {len(sources)} images were left out: {named}') from broken[0].__cause__


@contextmanager
def _left_out(source: str, broken: list[UserError]) -> Iterator[None]:
    """Add what goes wrong with one image or video to ``broken``; only where nothing can be written, nothing goes on.

    Raises:
        UserError: the disk is full, or the like.
    """
    try:
        yield
    except UserError as error:
        broken.append(error)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise UserError(
                f'the results of {source} cannot be written ({error.strerror}): make room, or name another --out-dir'
            ) from error
        broken.append(named_error(error, source))
    except Exception as error:  # by OpenCV, Pillow, the model, …
        broken.append(named_error(error, source))


def _predict_video(predictor: Predictor, source: str, output: _Output) -> None:
    with open_video(source) as video:
        name = output.new_name(source, '.mp4')
        with video_appearing(output.folder / name, video.fps, video.is_live) as file:
            frames, number = tqdm(video, total=video.length, unit='frame', desc=name), 0
            try:
                for number, prediction in enumerate(predictor.stream(frames), start=1):
                    # A legend's height differs from frame to frame.
                    file.write(
                        output.save_frame(prediction, name, number).draw(score_thr=output.score_thr, legend=False)
                    )
            except UserError as error:
                raise UserError(f'{source}: {error}') from error
            except KeyboardInterrupt:
                if not video.is_live:
                    raise
        if video.length and number < CUT_OFF * video.length:
            raise UserError(
                f'{source} may be cut off: {number} of its {video.length} frames could be read, and are done'
            )


class _Output:
    """Where what was found in each image goes, under names that nothing else has."""

    def __init__(
        self,
        folder: Path,
        score_thr: float,
        classes: Sequence[str],
        save_crops: bool,
        add_records: Callable[[Iterable[dict[str, Any]]], None] | None,
        images: Sequence[str],
    ) -> None:
        self.folder, self.score_thr, self.classes = folder, score_thr, classes
        self.save_crops, self.add_records, self.found = save_crops, add_records, 0
        self.stems: set[str] = set()
        numbers = {_number(image) for image in images}
        self.free_ids = (number for number in count(1) if number not in numbers)
        self.used_ids: set[int] = set()

    def save_image(self, prediction: Prediction) -> None:
        name = self.new_name(prediction.source)
        prediction = self._only(prediction)
        prediction.draw(self.folder / name, self.score_thr)
        if prediction.label_map is not None:
            content = cv2.imencode('.png', prediction.label_map)[1].tobytes()
            write_atomically((self.folder / 'labels' / name).with_suffix('.png'), content)
        number = _number(prediction.source)
        image_id = next(self.free_ids) if number is None or number in self.used_ids else number
        self.used_ids.add(image_id)
        self._save_objects(prediction, image_id, Path(name).stem + '-', dict(file_name=name))

    def save_frame(self, prediction: Prediction, name: str, number: int) -> Prediction:
        """What is to be drawn of a frame of the video that is written as ``name``."""
        prediction = self._only(prediction)
        where = dict(file_name=name, frame=number)
        self._save_objects(prediction, next(self.free_ids), f'{Path(name).stem}/{number}-', where)
        return prediction

    def _only(self, prediction: Prediction) -> Prediction:
        return prediction.only(*self.classes) if self.classes else prediction

    def _save_objects(self, prediction: Prediction, image_id: int, prefix: str, where: dict[str, Any]) -> None:
        if self.add_records:
            self.found += len(prediction)
            self.add_records({**record, **where} for record in prediction.to_coco(image_id))
        if self.save_crops:
            shown = prediction.above(self.score_thr)
            for number, (crop, kind) in enumerate(zip(shown.crops(), shown.names), start=1):
                write_drawing(self.folder / 'crops' / _safe(kind) / f'{prefix}{number}.jpg', crop)

    def new_name(self, source: str, suffix: str | None = None) -> str:
        """A file name for a source, of which no other has the stem: label maps of a.jpg and a.png would be one file."""
        name = unquote(urlsplit(source).path).rpartition('/')[2] if is_url(source) else Path(source).name
        path = Path(_safe(name) if is_url(source) or is_camera(source) else name)
        suffix = suffix or (path.suffix if path.suffix.lower() in IMAGE_SUFFIXES else '.png')  # OpenCV writes no GIF
        free = (stem for stem in _candidates(path.stem) if stem.lower() not in self.stems)
        stem = next(free)
        self.stems.add(stem.lower())
        return stem + suffix


def _candidates(stem: str) -> Iterator[str]:
    """'a', 'a-2', 'a-3', …"""
    yield stem
    yield from (f'{stem}-{number}' for number in count(2))


def _number(source: str) -> int | None:
    """COCO's images are named by their ids."""
    stem = Path(source).stem
    return int(stem) if stem.isdecimal() and int(stem) < 2**63 else None


def _safe(name: str) -> str:
    """A stranger's name as that of one file or folder: without separators, not hidden, on any system."""
    return re.sub(r'[^\w .()+-]', '_', name).strip('. ')[:200] or '_'


@contextmanager
def json_list(path: Path) -> Iterator[Callable[[Iterable[dict[str, Any]]], None]]:
    """A function that adds values to a JSON list in a file, which appears when all is well; none is kept in memory.

    Raises:
        UserError: the file cannot be written, which may show only when it is closed.
    """
    try:
        with appearing(path) as partial, open(partial, 'w', encoding='utf-8') as file:
            separators = iter(['['])

            def add(values: Iterable[dict[str, Any]]) -> None:
                for value in values:
                    file.write(next(separators, ',\n') + json.dumps(value))

            yield add
            file.write(next(separators, '') + ']')
    except OSError as error:
        raise UserError(f'{path} cannot be written ({error.strerror}): make room, or name another file') from error
