"""Objects that keep their number from frame to frame of a video, how many there were, and which crossed a line."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import UserError
from ..extras import require
from ..visualization.drawing import draw_counting_line
from .prediction import Prediction

LOWEST_SCORE = 0.1
"""Detections below it do not even prolong a track: that of the paper."""

NEAR_LINE = 0.1
"""The share of its box's shorter side by which the center of an object must leave a line for a side to be known. A box
shakes by a few percent of its size, and an object that waits on the line is not to cross it with each shake."""

Line = tuple[float, float, float, float]
"""Both ends of a line: x1, y1, x2, y2."""


class Tracker:
    """Gives the objects of a video numbers that they keep from frame to frame.

    It is ByteTrack (Zhang et al., ECCV 2022, https://arxiv.org/abs/2110.06864) of the package trackers: objects are
    found again by where they are and how they moved, whatever their class. An object has its number from the second
    frame on in which it is seen. One that moves further than its own size between two frames gets a new number.

    Args:
        fps: frames per second of the video.
        score_thr: an object with such a score gets a number, which it then keeps down to 0.1. Default: 0.3.
        lost_seconds: how long an object may be unseen and have its number again. Default: 1.
        lines: lines at which crossings are counted, each x1, y1, x2, y2 in pixels; or, where none of the four is above
            1, in fractions of the image's width and height. Default: none.

    Raises:
        UserError: the package trackers is missing, or a line has no length.
    """

    def __init__(
        self, fps: float, score_thr: float = 0.3, lost_seconds: float = 1.0, lines: Sequence[Line] = ()
    ) -> None:
        self.fps, self.score_thr = fps, score_thr
        self.tracker = require('trackers', 'tracking').ByteTrackTracker(
            # In frames of 1/30 s. Less than a frame of the video would lose every object before the next one.
            lost_track_buffer=round(30 * max(lost_seconds, 1.5 / fps)),
            frame_rate=fps,
            track_activation_threshold=score_thr,
            high_conf_det_threshold=score_thr,
        )
        self.lines = [CountingLine(line) for line in lines]
        self.time = -1 / fps
        self.votes: dict[int, Counter[str]] = defaultdict(Counter)

    def __call__(self, prediction: Prediction, time: float | None = None) -> Prediction:
        """The same prediction of the next frame with ``track_ids``, int64 ``(n,)``: numbers from 1, 0 for none yet.

        Args:
            prediction: of the frame.
            time: of the frame in seconds, later than that of the one before. Default: a frame later.
        """
        self.time = self.time + 1 / self.fps if time is None else time
        track_ids = self._track_ids(prediction)
        prediction = replace(prediction, track_ids=track_ids)
        numbered, numbers = prediction.numbered(), track_ids[track_ids > 0].tolist()
        for number, name, score in zip(numbers, numbered.names, numbered.scores.tolist()):
            self.votes[number][name] += score
        for line in self.lines:
            line.update(numbered, numbers)
        return prediction

    def _track_ids(self, prediction: Prediction) -> np.ndarray:
        track_ids = np.zeros(len(prediction), np.int64)
        places = np.flatnonzero(prediction.scores >= min(LOWEST_SCORE, self.score_thr))
        detections = require('supervision', 'tracking').Detections(
            xyxy=prediction.boxes[places], confidence=prediction.scores[places], data=dict(place=places)
        )
        tracked = self.tracker.update(detections, timestamp=self.time)
        if len(tracked):
            track_ids[tracked.data['place']] = tracked.tracker_id + 1
        return track_ids

    def classes(self) -> dict[int, str]:
        """The class of each object by its number: the one that it was found as most, scores added up."""
        return {track_id: votes.most_common(1)[0][0] for track_id, votes in self.votes.items()}

    def counts(self) -> dict[str, int]:
        """The number of distinct objects of each class so far, the most frequent first."""
        return dict(Counter(self.classes().values()).most_common())

    def crossings(self) -> list[dict[str, dict[str, int]]]:
        """For each line how many objects of each class crossed it so far 'to_left' and 'to_right'.

        Left and right are those of somebody who walks from the line's first end to its second. An object that crosses
        again counts again.
        """
        classes, result = self.classes(), []
        for line in self.lines:
            counts: dict[str, dict[str, int]] = {}
            for track_id, side in line.crossings:
                counts.setdefault(classes[track_id], dict(to_left=0, to_right=0))[side] += 1
            result.append(counts)
        return result

    def draw(self, prediction: Prediction) -> np.ndarray:
        """The image, uint8 RGB, with the objects that have a number, and the lines with what crossed them so far.

        Args:
            prediction: what the tracker made of the frame.
        """
        image = prediction.image
        for line in self.lines:
            totals = Counter(side for _, side in line.crossings)
            image = draw_counting_line(image, line.in_pixels(image), totals['to_left'], totals['to_right'])
        return replace(prediction.numbered(), image=image).draw(score_thr=0, legend=False)


@dataclass
class CountingLine:
    """A line, and the objects whose box's center crossed it.

    Attributes:
        ends: x1, y1, x2, y2 in pixels, or in fractions where none is above 1.
        crossings: the number of each object that crossed it, and 'to_left' or 'to_right', in order.

    Raises:
        UserError: it has no length, or its ends are no numbers.
    """

    ends: Line
    crossings: list[tuple[int, str]] = field(default_factory=list)
    clear_of_line: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.ends)) or self.ends[:2] == self.ends[2:]:
            shown = ' '.join(f'{end:g}' for end in self.ends)
            raise UserError(f'{shown} is not a line: give two different points, X1 Y1 X2 Y2, in pixels or fractions')

    def in_pixels(self, image: np.ndarray) -> Line:
        """Its ends in pixels of an image ``(H, W, 3)``.

        Raises:
            UserError: it is outside of the image.
        """
        height, width = image.shape[:2]
        scale = (1, 1, 1, 1) if max(self.ends) > 1 else (width, height, width, height)
        x1, y1, x2, y2 = (end * size for end, size in zip(self.ends, scale))
        if max(x1, x2) < 0 or max(y1, y2) < 0 or min(x1, x2) > width or min(y1, y2) > height:
            shown = ' '.join(f'{end:g}' for end in self.ends)
            raise UserError(f'the line {shown} is outside of the image of {height}x{width} pixels (H x W): move it')
        return x1, y1, x2, y2

    def update(self, prediction: Prediction, track_ids: Sequence[int]) -> None:
        """Count what crossed the line since the frame before; each object has a number."""
        line = np.reshape(self.in_pixels(prediction.image), (2, 2))
        centers = (prediction.boxes[:, :2] + prediction.boxes[:, 2:]) / 2
        nearness = NEAR_LINE * (prediction.boxes[:, 2:] - prediction.boxes[:, :2]).min(axis=1)
        for track_id, center, near in zip(track_ids, centers, nearness):
            if _distance(center, *line) <= near:
                continue
            before = self.clear_of_line.get(track_id, center)
            self.clear_of_line[track_id] = center
            if (
                _side(before, *line) * _side(center, *line) < 0
                and _side(line[0], before, center) * _side(line[1], before, center) <= 0
            ):
                self.crossings.append((track_id, 'to_right' if _side(center, *line) > 0 else 'to_left'))


def _side(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """Above 0 right of the line through two points, since y grows downwards, and below 0 left of it."""
    (dx, dy), (x, y) = end - start, point - start
    return dx * y - dy * x


def _distance(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """From a point to the nearest one between two others."""
    along = end - start
    share = np.clip((point - start) @ along / (along @ along), 0, 1)
    return float(np.linalg.norm(point - start - share * along))
