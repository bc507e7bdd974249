"""Videos, cameras and streams, frame by frame."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from urllib.parse import urlsplit

import cv2
import numpy as np

from ..errors import UserError
from ..files import appearing
from .inputs import is_camera, is_stream, shown

DEFAULT_FPS = 25.0
"""Frames per second of a video or camera that does not tell its own rate: that of European television."""

LEAST_FPS = 0.01
"""The least that is believed. A frame in 100 seconds is what slow cameras take; less is what damaged files tell."""

CODECS = {'.mp4': 'mp4v', '.webm': 'VP80'}
"""The codec of videos that are written, by suffix. Browsers play WebM alone of these two."""

PATIENCE_FRAMES = 250
"""So many frames in a row that cannot be decoded are the end, where a file does not tell that there are more: 10 s."""

PATIENCE_SECONDS = 10
"""A camera or stream that sends no frame for so long has ended."""

PROTOCOLS = {
    'rtsp': 'rtsp,rtp,tcp,udp',
    'rtsps': 'rtsps,rtsp,rtp,tls,tcp',
    'http': 'http,https,tls,tcp,crypto',
    'https': 'https,http,tls,tcp,crypto',
}
"""What FFmpeg may use for an address: never files, which a playlist from a stranger could name. An http address may
lead to an https one and back, and parts of HLS are encrypted, which is crypto."""


@dataclass(frozen=True)
class Video:
    """An open video file, camera or stream.

    Attributes:
        fps: frames per second.
        length: the number of frames that the file tells; None where it tells none, and of a camera or stream.
        is_live: whether frames come as they happen.
        broken: the numbers, from 1, of the frames that could not be decoded, of those read so far.
    """

    capture: cv2.VideoCapture | _NewestFrames
    fps: float
    length: int | None
    is_live: bool
    broken: set[int] = field(default_factory=set)
    start: float = field(default_factory=time.monotonic)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each frame that can be decoded, uint8 ``(H, W, 3)``, BGR, turned as the file says."""
        number, seconds = 0, -1 / self.fps
        unplaced = in_a_row = 0
        while True:
            is_read, frame = self.capture.read()
            if not is_read:
                unplaced, in_a_row = unplaced + 1, in_a_row + 1
                if in_a_row == 1:
                    failing_since = time.monotonic()
                if self._has_ended(number, in_a_row, failing_since):
                    self.broken.update(range(number + 1, number + 1 + unplaced - in_a_row))
                    return
                continue
            in_a_row = 0
            before = seconds
            if not self.is_live:
                seconds = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if unplaced:
                # Decoders hand out frames late, so that the gap between two time stamps tells which one was broken.
                gap = max(round((seconds - before) * self.fps) - 1, 0)
                placed = min(unplaced, gap) if seconds > before else unplaced
                self.broken.update(range(number + 1, number + 1 + placed))
                number, unplaced = number + placed, unplaced - placed
            number += 1
            yield frame

    def _has_ended(self, number: int, in_a_row: int, failing_since: float) -> bool:
        """Whether this many frames in a row that cannot be read, after frame ``number``, are the end."""
        if self.is_live:
            return in_a_row >= PATIENCE_FRAMES or time.monotonic() - failing_since >= PATIENCE_SECONDS
        return in_a_row >= max(PATIENCE_FRAMES, (self.length or 0) - number)

    def numbers(self) -> Iterator[int]:
        """The number of each frame that is read, to be asked for after it; frames that are broken have numbers, too."""
        return (number for number in count(1) if number not in self.broken)

    def seconds(self, number: int) -> float:
        """When frame ``number`` is shown, from the beginning; of a camera or stream the time until now."""
        return time.monotonic() - self.start if self.is_live else (number - 1) / self.fps


@contextmanager
def open_video(source: str) -> Iterator[Video]:
    """Open a video file, 'camera' or 'camera:N', or a stream's address, see `is_stream`.

    Raises:
        UserError: that cannot be opened.
    """
    with _quiet():
        if is_camera(source):
            capture, reason = _open_camera(source), 'there is no such camera, or it is in use; connect or free it'
        elif is_stream(source):
            capture, reason = _open_stream(source), 'nothing answers there, or not with a video; try it in a player'
        else:
            capture, reason = _open_file(source), ''
        try:
            if not capture.isOpened():
                if reason:
                    raise UserError(f'{shown(source)} cannot be opened: {reason}')
                raise UserError(f'{source} is not a video that can be read: use MP4, AVI, MOV, MKV or WebM')
            fps, length = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
            if not (math.isfinite(fps) and LEAST_FPS <= fps <= 1000):
                fps = DEFAULT_FPS
            is_live = is_camera(source) or (is_stream(source) and length <= 0)
            if is_live and is_stream(source):
                capture = _NewestFrames(capture)
            yield Video(capture, fps, int(length) if length > 0 and not is_live else None, is_live)
        finally:
            capture.release()


class _NewestFrames:
    """Reads a stream all the time and hands out its newest frame: what works slower than frames come drops some.

    Else it would fall further and further behind, until the sender gives up. Cameras drop frames by themselves.
    """

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self.capture, self.frames, self.is_done = capture, Queue(maxsize=1), Event()
        self.thread = Thread(target=self._read_all, daemon=True)
        self.thread.start()

    def _read_all(self) -> None:
        is_read = False
        while not self.is_done.is_set():
            was_read, (is_read, frame) = is_read, self.capture.read()
            if is_read and was_read:  # what cannot be decoded is counted, and not dropped
                self._drop()
            self.frames.put((is_read, frame))

    def _drop(self) -> None:
        with suppress(Empty):
            self.frames.get_nowait()

    def read(self) -> tuple[bool, np.ndarray | None]:
        return self.frames.get()

    def release(self) -> None:
        self.is_done.set()
        self._drop()
        self.thread.join()
        self.capture.release()


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
    # A playlist may look like a video. Restricted to files, FFmpeg does not follow it to other hosts. At level -8 it
    # does not tell of each broken frame: they are counted.
    with _environment(OPENCV_FFMPEG_CAPTURE_OPTIONS='protocol_whitelist;file', OPENCV_FFMPEG_LOGLEVEL='-8'):
        return cv2.VideoCapture(str(Path(source).resolve()), cv2.CAP_FFMPEG)


def _open_stream(source: str) -> cv2.VideoCapture:
    address = source.removeprefix('stream:')
    wait = 500 * PATIENCE_SECONDS  # milliseconds: half of it, so that it ends with the second time
    times = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait]
    options = f'rtsp_flags;prefer_tcp|protocol_whitelist;{PROTOCOLS[urlsplit(address).scheme]}'
    with _environment(OPENCV_FFMPEG_CAPTURE_OPTIONS=options):
        return cv2.VideoCapture(address, cv2.CAP_FFMPEG, times)


@contextmanager
def _environment(**settings: str) -> Iterator[None]:
    """Settings for FFmpeg, which OpenCV reads in the environment when it opens a video; the user's own come first."""
    ours = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


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

    def write(self, frame: np.ndarray, number: int) -> None:
        """Add a frame, uint8 ``(H, W, 3)``, RGB, also in the places of those missing before its number, from 1."""
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
        due = number
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
