"""The objects of tracked videos in files: where each one is in each frame, how many there are, what crossed lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import numpy as np

from ..files import appearing, write_atomically
from .prediction import Prediction
from .tracking import Line, Tracker

COLUMNS = ('video', 'frame', 'time', 'id', 'class', 'score', 'x', 'y', 'w', 'h')
"""The columns of ``tracks.csv``: frame and id from 1, time in seconds, the box's upper left corner and size
in pixels."""

Track: TypeAlias = Callable[[Prediction, int, float], tuple[Prediction, np.ndarray]]
"""Of a frame's prediction, number and time in seconds makes the tracked prediction and its drawing."""


class TrackFiles:
    """Writes the tracks of videos one after the other.

    Attributes:
        counts: of each video that is done: its frames, its objects by class, and the crossings of each line by class.
    """

    def __init__(self, table: TextIO, lines: Sequence[Line]) -> None:
        self.table, self.lines = csv.writer(table), lines
        self.counts: dict[str, dict[str, Any]] = {}
        self.table.writerow(COLUMNS)

    @contextmanager
    def video(self, name: str, fps: float, score_thr: float) -> Iterator[Track]:
        """A function that tracks the objects of the video ``name``, and writes where they are, frame by frame."""
        tracker, frames = Tracker(fps, score_thr, lines=self.lines), 0

        def track(prediction: Prediction, number: int, seconds: float) -> tuple[Prediction, np.ndarray]:
            nonlocal frames
            frames += 1
            prediction = tracker(prediction, seconds)
            objects = prediction.numbered()
            for track_id, label, score, (left, top, right, bottom) in zip(
                objects.track_ids, objects.names, objects.scores, objects.boxes.tolist()
            ):
                box = (f'{value:.2f}' for value in (left, top, right - left, bottom - top))
                self.table.writerow([name, number, f'{seconds:.3f}', track_id, label, f'{score:.3f}', *box])
            return prediction, tracker.draw(prediction)

        try:
            yield track
        finally:
            lines = [dict(line=line, crossings=crossings) for line, crossings in zip(self.lines, tracker.crossings())]
            self.counts[name] = dict(frames=frames, objects=tracker.counts(), lines=lines)


@contextmanager
def tracking_files(folder: Path, lines: Sequence[Line]) -> Iterator[TrackFiles]:
    """Writes ``tracks.csv``, see `COLUMNS`, and ``counts.json``, see `TrackFiles`, which appear when all is well.

    A row of ``tracks.csv`` has the class that the object was found as in that frame, and ``counts.json`` the one that
    it was found as most.

    Args:
        folder: where.
        lines: at which crossings are counted, see `Tracker`.
    """
    with appearing(folder / 'tracks.csv') as draft, open(draft, 'w', newline='', encoding='utf-8') as table:
        files = TrackFiles(table, lines)
        yield files
    write_atomically(folder / 'counts.json', json.dumps(files.counts, indent=2).encode())
