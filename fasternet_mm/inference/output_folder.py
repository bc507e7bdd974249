"""Predictions of many images and videos, written to a folder."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import cv2
from tqdm import tqdm

from ..annotation_formats.annotation_writer import AnnotationWriter
from ..annotation_formats.writing import losses, writing
from ..datasets.image_files import IMAGE_SUFFIXES
from ..datasets.image_reading import is_url
from ..errors import UserError, few
from ..files import appearing, check_writable, is_output, mark_output, write_atomically
from ..visualization.drawing import write_drawing
from .inputs import is_camera, is_stream, is_video, shown
from .prediction import Prediction, labels_of
from .predictor import Predictor, named_error
from .track_files import TrackFiles, tracking_files
from .tracking import CountingLine, Line
from .video import Video, open_video, video_appearing

NAMED = 10
"""How many of the images that could not be predicted a message names."""

CUT_OFF = 0.9
"""A video with less than this share of its frames is called cut off. The number of frames is the file's own, which some
kinds of files only estimate."""

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
    annotation_format: str | None = None,
    track: bool = False,
    count_lines: Sequence[Line] = (),
) -> None:
    """Predict images and videos; write a drawing of each and the predictions to ``out_dir``.

    A segmenter's are ``labels/NAME.png`` for each image, whose pixels are the numbers of classes. A detector's are
    ``results.json``, in COCO's results format with ``file_name`` and, for a frame of a video, its number ``frame``. An
    image whose name is a number, as COCO's are, has it as ``image_id``; other images and frames have the numbers from 1
    that are left. Whatever goes wrong with one image, the others are predicted.

    Args:
        predictor: the model.
        sources: see `find_inputs`.
        out_dir: folder of the results.
        score_thr: detections below it are neither drawn nor cut out. Default: 0.3.
        classes: only objects or labels of these. Default: all.
        save_crops: also write the image in each box to ``crops/CLASS/NAME-N.jpg``. Default: False.
        json_file: the file of the detections. Default: ``results.json`` in ``out_dir``.
        annotation_format: also write the images, with what is drawn as their annotations, to the folder in ``out_dir``
            of this name, which must be new: one of `FORMAT_NAMES`. Videos are left out. Default: None.
        track: number the objects of videos, and write ``tracks.csv`` and ``counts.json``, see `tracking_files`.
            Default: False.
        count_lines: with ``track``, lines at which crossings are counted, see `Tracker`. Default: none.

    Raises:
        UserError: ``out_dir`` cannot be written, or has files of the user's that would be overwritten, or an option is
            not for this model; or, once all others are done and written, some images could not be predicted.
    """
    labels_of(classes, predictor.classes)
    if predictor.is_segmenter and (save_crops or json_file):
        raise UserError('--save-crops and --json are for objects, but this model labels pixels: leave them out')
    if track and (predictor.is_segmenter or not any(map(is_video, sources))):
        option = '--count-line' if count_lines else '--track'
        what = 'this model labels pixels' if predictor.is_segmenter else 'no video is named'
        raise UserError(f'{option} is for objects in videos, but {what}: leave it out')
    for line in count_lines:
        CountingLine(line)
    images = [source for source in sources if not is_video(source)]
    videos = [source for source in sources if is_video(source)]
    check_writable(out_dir)
    _refuse_to_overwrite(Path(out_dir), [*images, *videos], predictor.is_segmenter)
    mark_output(out_dir)
    records_file = Path(json_file or Path(out_dir, 'results.json'))
    check_writable(str(records_file.parent))
    broken: list[UserError] = []
    labels_folder = Path(out_dir, annotation_format or '')
    with (
        _annotations_in(labels_folder, annotation_format, predictor) as annotations,
        nullcontext(None) if predictor.is_segmenter else json_list(records_file) as records,
    ):
        output = _Output(Path(out_dir), score_thr, classes, save_crops, records, images, annotations)
        for prediction in predictor.stream(tqdm(images, unit='image', disable=not images), broken):
            with _left_out(prediction.source, broken):
                output.save_image(prediction)
        with tracking_files(Path(out_dir), count_lines) if track else nullcontext() as tracks:
            for video in videos:
                with _left_out(shown(video), broken):
                    _predict_video(predictor, video, output, tracks)
    print(f'drawings:   {out_dir}')
    if predictor.is_segmenter and images:
        print(f'label maps: {Path(out_dir, "labels")}')
    if save_crops:
        print(f'crops:      {Path(out_dir, "crops")}')
    if not predictor.is_segmenter:
        print(f'detections: {records_file}')
        drawn = f'those from score {score_thr:g} on (--score-thr)' + ', of videos those with a number' * track
        print(f'objects:    {output.detections} found, {output.drawn} drawn: {drawn}')
    if annotations:
        print(f'labels:     {labels_folder} ({annotations.title}, to correct: {annotations.images.total()} images)')
        if videos:
            print(f'            without {len(videos)} videos, which have no labels: give their frames as images')
        for line in losses(annotations):
            print(line)
    if track:
        print(f'tracks:     {Path(out_dir, "tracks.csv")}, {Path(out_dir, "counts.json")}')
    if broken:
        named = few(broken, NAMED, '; ', counted=True)
        what = 'images or videos were left out, at least in part' if videos else 'images were left out'
        raise UserError(f'{len(broken)} of {len(sources)} {what}: {named}') from broken[0].__cause__


def _refuse_to_overwrite(folder: Path, sources: Sequence[str], is_segmenter: bool) -> None:
    """Raise `UserError` where a result would take the place of a file that our commands may not have written."""
    if is_output(folder, os.listdir(folder)):
        return
    stems: set[str] = set()
    names = [_new_name(source, stems) for source in sources]
    results = [folder / name for name in names]
    if is_segmenter:
        results += [(folder / 'labels' / name).with_suffix('.png') for name in names]
    for result in filter(Path.is_file, results):
        raise UserError(
            f'{result} would be overwritten, which may be work of yours: move it away, or name another --out-dir'
        )


def _annotations_in(
    folder: Path, annotation_format: str | None, predictor: Predictor
) -> AbstractContextManager[AnnotationWriter | None]:
    if annotation_format is None:
        return nullcontext(None)
    ids = [] if predictor.is_segmenter else predictor.category_ids
    return writing(annotation_format, folder, predictor.classes, category_ids=ids, of_label_maps=predictor.is_segmenter)


@contextmanager
def _left_out(source: str, broken: list[UserError]) -> Iterator[None]:
    """Add what goes wrong with one image or video to ``broken``.

    Raises:
        UserError: the disk is full or read-only, so that the others would fail, too.
    """
    try:
        yield
    except Exception as error:  # by OpenCV, Pillow, the model, …
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise UserError(
                f'the results of {source} cannot be written ({error.strerror}): make room, or name another --out-dir'
            ) from error
        broken.append(named_error(error, source))


def _predict_video(predictor: Predictor, source: str, output: _Output, tracks: TrackFiles | None) -> None:
    with open_video(source) as video:
        name = _new_name(source, output.stems)
        tracking = tracks.video(name, video.fps, output.score_thr) if tracks else nullcontext()
        with video_appearing(output.folder / name, video.fps, video.is_live) as file, tracking as track:
            frames, number = tqdm(video, total=video.length, unit='frame', desc=name), 0
            try:
                for prediction, number in zip(predictor.stream(frames), video.numbers()):
                    prediction = output.only_classes(prediction)
                    if track:
                        prediction, drawing = track(prediction, number, video.seconds(number))
                    else:  # without a legend, whose height differs from frame to frame
                        drawing = prediction.draw(score_thr=output.score_thr, legend=False)
                    output.save_frame(prediction, name, number)
                    file.write(drawing, number)
            except UserError as error:
                raise UserError(f'{shown(source)}: {error}') from error
            except KeyboardInterrupt:
                if not video.is_live:
                    raise
        _tell_what_is_missing(shown(source), video, number)


def _tell_what_is_missing(source: str, video: Video, number: int) -> None:
    """Tell of frames that could not be decoded; those of a stream may be lost on their way, which is no error.

    Raises:
        UserError: of a file some could not be decoded, or it ends after frame ``number`` and should not.
    """
    problems = []
    if video.length and number < CUT_OFF * video.length:
        read = number - len(video.broken)
        problems.append(
            f'{source} may be cut off: only {read} of its {video.length} frames could be read; these are done'
        )
    if video.broken:
        count = '1 frame' if len(video.broken) == 1 else f'{len(video.broken)} frames'
        numbers = few(sorted(video.broken), NAMED, counted=True)
        problems.append(f'{source}: {count} could not be decoded ({numbers}), the others are done')
    if problems and video.is_live:
        print(problems[0])
    elif problems:
        raise UserError('; '.join(problems))


@dataclass
class _Output:
    """Writes the predictions for each image, under names that nothing else has."""

    folder: Path
    score_thr: float
    classes: Sequence[str]
    save_crops: bool
    add_records: Callable[[Iterable[dict[str, Any]]], None] | None
    images: Sequence[str]
    annotations: AnnotationWriter | None = None

    def __post_init__(self) -> None:
        self.detections = self.drawn = 0
        self.stems: set[str] = set()
        self.used_ids: set[int] = set()
        numbers = {_number(image) for image in self.images}
        self.free_ids = (number for number in count(1) if number not in numbers)

    def save_image(self, prediction: Prediction) -> None:
        name = _new_name(prediction.source, self.stems)
        prediction = self.only_classes(prediction)
        prediction.draw(self.folder / name, self.score_thr)
        if prediction.large:
            reduced, size = ('{}x{}'.format(*sides) for sides in (prediction.image.shape[:2], prediction.size))
            tqdm.write(
                f'{name}: drawn as {reduced} of {size} pixels (H x W); boxes, masks and labels are in all of them'
            )
        if prediction.label_map is not None:
            content = cv2.imencode('.png', prediction.label_map)[1].tobytes()
            write_atomically((self.folder / 'labels' / name).with_suffix('.png'), content)
        if self.annotations:
            is_file = not is_url(prediction.source) and Path(prediction.source).suffix == Path(name).suffix
            source = Path(prediction.source) if is_file else None
            self.annotations.add('train', prediction.above(self.score_thr).to_labeled_image(name, source))
        number = _number(prediction.source)
        image_id = next(self.free_ids) if number is None or number in self.used_ids else number
        self.used_ids.add(image_id)
        self._save_objects(prediction, image_id, Path(name).stem + '-', dict(file_name=name))

    def save_frame(self, prediction: Prediction, name: str, number: int) -> None:
        """Save the objects in a frame of the video ``name``."""
        frame = dict(file_name=name, frame=number)
        self._save_objects(prediction, next(self.free_ids), f'{Path(name).stem}/{number}-', frame)

    def only_classes(self, prediction: Prediction) -> Prediction:
        return prediction.only(*self.classes) if self.classes else prediction

    def _save_objects(self, prediction: Prediction, image_id: int, prefix: str, extra: dict[str, Any]) -> None:
        if self.add_records:
            self.detections += len(prediction)
            self.drawn += len(self._drawn(prediction))
            self.add_records({**record, **extra} for record in prediction.to_coco(image_id))
        if self.save_crops:
            objects = self._drawn(prediction)
            for number, (crop, name) in enumerate(zip(objects.crops(), objects.names), start=1):
                write_drawing(self.folder / 'crops' / _safe(name) / f'{prefix}{number}.jpg', crop)

    def _drawn(self, prediction: Prediction) -> Prediction:
        """The objects that are drawn: a `Tracker` draws those with a number, which keep it down to a low score."""
        return prediction.above(self.score_thr) if prediction.track_ids is None else prediction.numbered()


def _new_name(source: str, stems: set[str]) -> str:
    """A file name for a source, with a stem of its own: a.jpg and a.png would have the same label map."""
    path = Path(source)
    if is_stream(source):
        path = Path(_safe(shown(source).partition('://')[2]) + '.mp4')
    elif is_url(source):
        path = Path(_safe(unquote(urlsplit(source).path).rpartition('/')[2]))
    elif is_camera(source):
        path = Path(_safe(source))
    is_writable = path.suffix.lower() in IMAGE_SUFFIXES  # OpenCV cannot write GIF
    suffix = '.mp4' if is_video(source) else path.suffix if is_writable else '.png'
    stem, number = path.stem, 1
    while stem.lower() in stems:
        number += 1
        stem = f'{path.stem}-{number}'
    stems.add(stem.lower())
    return stem + suffix


def _number(source: str) -> int | None:
    """The number that an image's name is, as COCO's are their ids; None for other names and numbers beyond 64 bits."""
    stem = Path(source).stem
    return int(stem) if stem.isdecimal() and int(stem) < 2**63 else None


def _safe(name: str) -> str:
    """A stranger's name as a name for one file or folder on any system: without separators, and not hidden."""
    return re.sub(r'[^\w .()+-]', '_', name).strip('. ')[:200] or '_'


@contextmanager
def json_list(path: Path) -> Iterator[Callable[[Iterable[dict[str, Any]]], None]]:
    """A function that adds values to a JSON list in a file, which appears when all is well. Memory holds no values.

    Raises:
        UserError: the file cannot be written, which may show only when it is closed.
    """
    try:
        with appearing(path) as partial, open(partial, 'w', encoding='utf-8') as file:
            file.write('[')
            separator = ''

            def add(values: Iterable[dict[str, Any]]) -> None:
                nonlocal separator
                for value in values:
                    file.write(separator + json.dumps(value))
                    separator = ',\n'

            yield add
            file.write(']')
    except OSError as error:
        raise UserError(f'{path} cannot be written ({error.strerror}): make room, or name another file') from error
