"""What a model finds in an image or short video that a stranger sent, kept so that it can be shown in other ways."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from hotcoco import mask as rle

from ..datasets.image_files import VIDEO_SUFFIXES
from ..errors import UserError, few
from ..evaluation.coco_results import encode_masks
from ..files import write_atomically
from ..inference.prediction import Prediction
from ..inference.predictor import Predictor
from ..inference.video import Video, open_video, video_appearing
from .answers import as_json, label_map_png
from .uploads import Limits, UploadTooLarge, check_bytes, read_upload

VIDEO_MEGAPIXELS = 300
"""The most pixels of all frames of a video, in units of 10^6: some ten seconds of 720 lines. The model has one video or
image at a time, and others wait for it."""

VIDEO_SIGNATURES = ((4, b'ftyp'), (4, b'moov'), (4, b'mdat'), (4, b'wide'), (8, b'AVI '), (0, b'\x1a\x45\xdf\xa3'))
"""Where in a video's first bytes stands what: MP4 and MOV, AVI, MKV and WebM. A playlist, which names other files, has
none of them, and is not opened."""

SMALLEST_DRAWING, LARGEST_DRAWING = 640, 1600
"""Pixels of the longer side of a drawing. On smaller ones texts would cover the objects; larger ones no screen shows,
and they take too long while somebody moves the threshold."""

NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, eq=False)
class PredictedUpload:
    """An upload, and what the model predicted for it.

    Attributes:
        file: the upload, in a folder that is removed with this object.
        fps: frames per second of a video; None of an image.
        predictions: of the image, or of each frame, without the pixels: the file has them.
        to_draw: the same for images of the size of the drawings.
        seconds: that the model took for all of them.
    """

    file: Path
    fps: float | None
    predictions: Sequence[Prediction]
    to_draw: Sequence[Prediction]
    seconds: float


@dataclass(frozen=True)
class UploadView:
    """A predicted upload as it is shown for one threshold and choice of classes.

    Attributes:
        drawing: the image (PNG) or the video (WebM) with what was found drawn in; small ones are enlarged, large
            ones reduced.
        description: a JSON file of what the server answers, see `as_json`; of a video for each frame.
        exact: a JSON file in COCO's results format; of a segmenter the label map (PNG), whose pixels are the numbers of
            classes, or None for a video.
        summary: what was found and how long it took, in two sentences.
    """

    drawing: Path
    description: Path
    exact: Path | None
    summary: str


def predict_upload(predictor: Predictor, upload: Path, folder: Path, limits: Limits) -> PredictedUpload:
    """Predict an image, or all frames of a video.

    Args:
        predictor: the model.
        upload: the file; it stays.
        folder: the file is copied to a new one in it.
        limits: what is accepted.

    Raises:
        UserError: the file is neither an image nor a video, or too large.
    """
    with ExitStack() as stack:
        own_folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='upload-', dir=folder))
        file = Path(shutil.copy(upload, own_folder))
        predictions, to_draw, seconds = [], [], 0.0
        try:
            with _open_upload(file, limits) as (frames, fps):
                for frame in frames:
                    start = time.perf_counter()
                    prediction = predictor(frame)
                    seconds += time.perf_counter() - start
                    predictions.append(replace(prediction, image=NO_PIXELS))
                    to_draw.append(_scaled(prediction, *_drawing_size(*frame.shape[:2])))
        except UserError as error:
            # Folders of this machine are not a stranger's to know; nor is there a second image.
            raise UserError(str(error).replace(f'{own_folder}{os.sep}', '').removeprefix('image 1: ')) from error
        if not predictions:
            raise UserError(f'{file.name} has no frame that can be read: send another video')
        predicted = PredictedUpload(file, fps, predictions, to_draw, seconds)
        weakref.finalize(predicted, stack.pop_all().close)
        return predicted


@contextmanager
def _open_upload(file: Path, limits: Limits) -> Iterator[tuple[Iterable[np.ndarray], float | None]]:
    """The image, or the frames of the video, uint8 ``(H, W, 3)``, BGR; and the video's frames per second."""
    if file.suffix.lower() not in VIDEO_SUFFIXES:
        yield [read_upload(file.read_bytes(), limits)], None
        return
    check_bytes(file.stat().st_size, limits)
    with open(file, 'rb') as content:
        start = content.read(16)
    if not any(start.startswith(signature, place) for place, signature in VIDEO_SIGNATURES):
        raise UserError(f'{file.name} is not a video that can be read: use MP4, AVI, MOV, MKV or WebM')
    with open_video(str(file)) as video:
        yield _frames(video, file.name), video.fps


def _frames(video: Video, name: str) -> Iterator[np.ndarray]:
    height, width = (int(video.capture.get(key)) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
    most = int(VIDEO_MEGAPIXELS * 1e6 / max(height * width, 1))
    too_long = UploadTooLarge(
        f'{name} is too long: of {height}x{width} pixels (H x W) at most {most} frames are accepted, which last '
        f'{most / video.fps:.1f} seconds; send a part of it, or use the command fasternet-mm predict'
    )
    if (video.length or 0) > most:
        raise too_long
    for number, frame in enumerate(video):  # the length that a file tells may be wrong
        if number == most:
            raise too_long
        yield frame


def view_upload(upload: PredictedUpload, threshold: float, classes: Sequence[str], limits: Limits) -> UploadView:
    """Draw and write what was predicted, anew; the model does not run.

    Files of earlier views are removed, but for those of the last one, which a browser may still be loading.

    Args:
        upload: whose predictions are taken.
        threshold: objects with lower scores are left out.
        classes: only these; if empty, all.
        limits: as for `predict_upload`.

    Raises:
        UserError: the model does not know a class.
    """
    for earlier in sorted(upload.file.parent.glob('view-*'))[:-1]:
        shutil.rmtree(earlier, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f'view-{time.monotonic_ns():020}-', dir=upload.file.parent))
    is_image = upload.fps is None
    drawing = folder / f'{upload.file.stem}.{"png" if is_image else "webm"}'
    selected = _selected(upload.predictions, threshold, classes)
    to_draw = _selected(upload.to_draw, threshold, classes)
    images, records = [], []
    with ExitStack() as stack:
        frames, fps = stack.enter_context(_open_upload(upload.file, limits))
        write = None if is_image else stack.enter_context(video_appearing(drawing, fps, is_live=False)).write
        for number, (frame, exact, drawn) in enumerate(zip(frames, selected, to_draw), start=1):
            height, width = _drawing_size(*frame.shape[:2])
            drawn = replace(drawn, image=cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1])
            if is_image:
                drawn.draw(drawing, score_thr=0)
            else:
                write(drawn.draw(score_thr=0, legend=False), number)
            images.append(as_json(replace(exact, image=frame)))
            place = dict(file_name=upload.file.name) if is_image else dict(file_name=upload.file.name, frame=number)
            records += [{**record, **place} for record in exact.to_coco(number)]
    is_segmenter = selected[0].label_map is not None
    description = dict(
        file_name=upload.file.name,
        milliseconds=round(1000 * upload.seconds / len(selected), 1),
        **{} if is_segmenter else dict(threshold=threshold),
        classes=[*(classes or selected[0].classes)],
        **images[0] if is_image else dict(frames_per_second=fps, frames=images),
    )
    exact_file = None
    if not is_segmenter:
        exact_file = folder / f'{upload.file.stem}-coco.json'
        write_atomically(exact_file, json.dumps(records).encode())
    elif is_image:
        exact_file = folder / f'{upload.file.stem}-labels.png'
        write_atomically(exact_file, label_map_png(selected[0]))
    described = folder / f'{upload.file.stem}.json'
    write_atomically(described, json.dumps(description, indent=1).encode())
    return UploadView(drawing, described, exact_file, _summary(upload, selected))


def _selected(predictions: Sequence[Prediction], threshold: float, classes: Sequence[str]) -> list[Prediction]:
    return [(prediction.only(*classes) if classes else prediction).above(threshold) for prediction in predictions]


def _drawing_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the drawing of an image or frame."""
    side = max(height, width)
    scale = SMALLEST_DRAWING // side if side < SMALLEST_DRAWING else min(LARGEST_DRAWING / side, 1)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _scaled(prediction: Prediction, height: int, width: int) -> Prediction:
    """The prediction for an image of another size, without the pixels of any."""
    old_height, old_width = prediction.image.shape[:2]
    prediction = replace(prediction, image=NO_PIXELS)
    if (old_height, old_width) == (height, width):
        return prediction

    def resized(pixels: np.ndarray) -> np.ndarray:
        # By columns, as masks are decoded: thirty times as fast as by rows.
        return cv2.resize(pixels.T, (height, width), interpolation=cv2.INTER_NEAREST).T

    masks, label_map = prediction.encoded_masks, prediction.label_map
    if masks is not None:  # one at a time: together they may take gigabytes
        masks = [encode_masks(resized(rle.decode(mask))[None].astype(bool))[0] for mask in masks]
    return replace(
        prediction,
        boxes=prediction.boxes * np.float32([width / old_width, height / old_height] * 2),
        encoded_masks=masks,
        label_map=None if label_map is None else resized(label_map),
    )


def _summary(upload: PredictedUpload, selected: Sequence[Prediction]) -> str:
    latency = f'The model took {1000 * upload.seconds / len(selected):.0f} ms'
    if upload.fps is not None:
        names = Counter(name for prediction in selected for name in prediction.names)
        details = few([f'{number} {name}' for name, number in names.most_common()], counted=True)
        latency += f' for each of {len(selected)} frames' if len(selected) > 1 else ' for its frame'
    else:
        details = repr(selected[0]).partition(': ')[2]
    if selected[0].label_map is not None:
        return f'{details}. {latency}.' if details else f'{latency}.'
    drawn, found = (sum(map(len, predictions)) for predictions in (selected, upload.predictions))
    return f'{drawn} of {found} objects are drawn{": " if details else ""}{details}. {latency}.'
