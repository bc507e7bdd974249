"""Videos and cameras, frame by frame."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import UserError
from ..files import appearing
from .inputs import is_camera

DEFAULT_FPS = 25.0
"""Frames per second of a video or camera that does not tell its own rate: that of European television."""

CODECS = {'.mp4': 'mp4v', '.webm': 'VP80'}
"""The codec of videos that are written, by suffix. Browsers play WebM alone of these two."""


@dataclass(frozen=True)
class Video:
    """An open video file or camera.

    Attributes:
        fps: frames per second.
        length: the number of frames that the file tells; None where it tells none, and of a camera.
        is_live: whether it is a camera.
    """

    capture: cv2.VideoCapture
    fps: float
    length: int | None
    is_live: bool

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each frame, uint8 ``(H, W, 3)``, BGR, turned as the file says; of a camera until Ctrl-C."""
        while True:
            is_read, frame = self.capture.read()
            if not is_read:
                return
            yield frame


@contextmanager
def open_video(source: str) -> Iterator[Video]:
    """Open a video file, 'camera' or 'camera:N'.

    Raises:
        UserError: that cannot be opened.
    """
    is_live = is_camera(source)
    with _quiet():
        capture = _open_camera(source) if is_live else _open_file(source)
    try:
        if not capture.isOpened():
            if is_live:
                raise UserError(
                    f'{source} cannot be opened: there is no such camera, or it is in use; connect or free it'
                )
            raise UserError(f'{source} is not a video that can be read: use MP4, AVI, MOV, MKV or WebM')
        fps, length = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if not (math.isfinite(fps) and 1 <= fps <= 1000):
            fps = DEFAULT_FPS
        yield Video(capture, fps, int(length) if length > 0 and not is_live else None, is_live)
    finally:
        capture.release()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence OpenCV, which reports every way to open a video that it tries."""
    logging = getattr(cv2.utils, 'logging', cv2)  # OpenCV 4 has these two at the top
    level = logging.getLogLevel()
    logging.setLogLevel(0)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _open_camera(source: str) -> cv2.VideoCapture:
    return cv2.VideoCapture(int(source.partition(':')[2] or 0))


def _open_file(source: str) -> cv2.VideoCapture:
    # A playlist may look like a video. Restricted to files, FFmpeg does not follow it to other hosts.
    os.environ.setdefault('OPENCV_FFMPEG_CAPTURE_OPTIONS', 'protocol_whitelist;file')
    return cv2.VideoCapture(str(Path(source).resolve()), cv2.CAP_FFMPEG)


class VideoFile:
    """Writes a video of frames of one size.

    Args:
        path: the file to write, .mp4 or .webm.
        fps: frames per second.
        is_live: whether frames are written at the times when they come, each repeated until the next one, so that a
            camera's video keeps time however long predictions take.
    """

    def __init__(self, path: Path, fps: float, is_live: bool) -> None:
        self.path, self.fps, self.is_live = path, fps, is_live
        self.writer: cv2.VideoWriter | None = None
        self.written = 0

    def write(self, frame: np.ndarray) -> None:
        """Add a frame, uint8 ``(H, W, 3)``, RGB."""
        if self.writer is None:
            self.writer = cv2.VideoWriter(
                str(self.path),
                cv2.VideoWriter_fourcc(*CODECS[self.path.suffix]),
                self.fps,
                (frame.shape[1], frame.shape[0]),
            )
            if not self.writer.isOpened():
                raise UserError(f'{self.path.name}: this OpenCV cannot write it; install opencv-python from PyPI')
            self.start = time.monotonic()
        due = self.written + 1
        if self.is_live:
            due = round((time.monotonic() - self.start) * self.fps) + 1
        for _ in range(due - self.written):
            self.writer.write(np.ascontiguousarray(frame[..., ::-1]))
            self.written += 1


@contextmanager
def video_appearing(path: Path, fps: float, is_live: bool) -> Iterator[VideoFile]:
    """A `VideoFile` that appears as ``path`` when all is well.

    Raises:
        UserError: no frame was written.
    """
    with appearing(path) as partial:
        video = VideoFile(partial, fps, is_live)
        try:
            yield video
        finally:
            if video.writer is not None:
                video.writer.release()
        if not video.written:
            raise UserError(f'no frame could be read for {path.name}')
