"""Numbers that objects keep, and lines that they cross, in made films whose truth is known."""

import csv
import json
import os
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fasternet_mm.cli import main
from fasternet_mm.errors import UserError
from fasternet_mm.inference.output_folder import predict_to_folder
from fasternet_mm.inference.prediction import Prediction

pytest.importorskip('trackers')

from fasternet_mm.inference.tracking import CountingLine, Tracker

HEIGHT, WIDTH, FRAMES = 240, 320, 60
SIDE = 24

PATHS = {
    # class, x and y of the center in the first frame, and how far it moves from frame to frame
    'car to the right': ('car', 10, 40, 5, 0),
    'car to the left': ('car', 310, 90, -5, 0),
    'person to the right': ('person', 20, 140, 4, 0),
    'person that turns back': ('person', 130, 190, 1.5, 0),
    'car that stays': ('car', 40, 220, 0, 0),
}
"""Squares in rows of their own, so that they never overlap, as wide as they are high. The line is x = 160."""


def center(path, frame):
    _, x, y, dx, dy = PATHS[path]
    if path == 'person that turns back':
        frame = min(frame, FRAMES - frame)
    return x + dx * frame, y + dy * frame


def prediction(boxes, scores=None, labels=None, size=(HEIGHT, WIDTH)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Prediction(
        image=np.full((*size, 3), 90, np.uint8),
        source='',
        classes=('car', 'person'),
        palette=[(250, 0, 0), (0, 250, 0)],
        category_ids=[1, 2],
        boxes=boxes,
        scores=np.full(len(boxes), 0.9, np.float32) if scores is None else np.array(scores, np.float32),
        labels=np.zeros(len(boxes), np.int64) if labels is None else np.array(labels),
    )


def square(x, y, side=SIDE):
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


def truth(frame):
    """The boxes of a frame in an order that changes, so that nothing can be known from it."""
    order = np.random.default_rng(frame).permutation(list(PATHS)).tolist()
    labels = [('car', 'person').index(PATHS[path][0]) for path in order]
    return order, prediction([square(*center(path, frame)) for path in order], labels=labels)


def test_objects_that_do_not_overlap_keep_their_numbers_to_the_end():
    tracker, numbers = Tracker(fps=25), {path: set() for path in PATHS}
    for frame in range(FRAMES):
        order, found = truth(frame)
        tracked = tracker(found)
        np.testing.assert_array_equal(tracked.boxes, found.boxes)
        for path, number in zip(order, tracked.track_ids.tolist()):
            numbers[path].add(number)
    assert [len(of_path - {0}) for of_path in numbers.values()] == [1] * 5
    assert set.union(*numbers.values()) == {0, 1, 2, 3, 4, 5}
    assert tracker.counts() == {'car': 3, 'person': 2}


def test_crossings_are_counted_for_each_direction_and_class():
    # From the upper end down, left is where x is large.
    tracker = Tracker(fps=25, lines=[(160, 0, 160, 240), (1, 0.5, 0, 0.5), (0.5, 0, 0.5, 0.25)])
    for frame in range(FRAMES):
        tracker(truth(frame)[1])
    assert tracker.crossings() == [
        {
            'car': dict(to_left=1, to_right=1),
            'person': dict(to_left=2, to_right=1),
        },
        {},
        {'car': dict(to_left=1, to_right=0)},
    ]


@pytest.mark.parametrize('fps', [0.05, 0.5, 1, 7.5, 240])
def test_an_object_has_its_number_from_the_second_frame_on_at_any_rate(fps):
    tracker = Tracker(fps)
    ids = [tracker(prediction([square(50 + frame, 50)])).track_ids.tolist() for frame in range(4)]
    assert ids == [[0], [1], [1], [1]]


def test_an_object_that_is_hidden_for_less_than_the_limit_keeps_its_number():
    for hidden, expected in ((10, {1}), (40, {1, 2})):
        tracker, numbers = Tracker(fps=25, lost_seconds=1), set()
        for frame in range(80):
            is_hidden = 20 <= frame < 20 + hidden
            tracked = tracker(prediction([] if is_hidden else [square(20 + 3 * frame, 100)]))
            numbers |= set(tracked.track_ids.tolist()) - {0}
        assert numbers == expected


def test_a_crossing_while_hidden_counts_once():
    tracker = Tracker(fps=25, lines=[(0.5, 0, 0.5, 1)])
    for frame in range(60):
        tracker(prediction([] if 24 <= frame < 32 else [square(20 + 5 * frame, 100)]))
    assert tracker.crossings() == [{'car': dict(to_left=1, to_right=0)}]


def test_weak_detections_prolong_tracks_and_begin_none():
    tracker = Tracker(fps=25, score_thr=0.5)
    for frame in range(10):
        boxes = [square(50 + frame, 50), square(250, 200), square(150, 100)]
        tracked = tracker(prediction(boxes, scores=[0.9 if frame < 5 else 0.2, 0.4, 0.05]))
    assert tracked.track_ids.tolist() == [1, 0, 0]
    assert tracker.counts() == {'car': 1}


def test_an_object_counts_as_the_class_that_it_was_found_as_most():
    tracker = Tracker(fps=25, lines=[(0, 100, 320, 100)])
    for frame in range(30):
        tracker(prediction([square(50, 60 + 3 * frame)], labels=[int(frame % 3 == 0)]))
    assert tracker.counts() == {'car': 1}
    assert tracker.crossings() == [{'car': dict(to_left=0, to_right=1)}]


def crossings_of(line, centers, side=SIDE):
    counting = CountingLine(line)
    for x, y in centers:
        counting.update(prediction([square(x, y, side)]), [7])
    return counting.crossings


def test_who_goes_around_the_end_of_a_line_does_not_cross_it():
    around = [(140, 50), (140, 110), (140, 140), (160, 140), (180, 140), (180, 110), (180, 50)]
    assert crossings_of((160, 0, 160, 120), around) == []
    assert crossings_of((160, 0, 160, 160), around) == [(7, 'to_left')]


def test_who_waits_on_a_line_does_not_cross_it_with_each_shake():
    shakes = [(50, 100 + shake) for shake in (-20, -2, 1, -1, 2, -2, 1)]
    assert crossings_of((0, 100, 320, 100), [*shakes, (50, 120)]) == [(7, 'to_right')]
    assert crossings_of((0, 100, 320, 100), [*shakes, (50, 80)]) == []


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ((3, 4, 3, 4), '3 4 3 4 is not a line: give two different points'),
        ((0, 0, float('nan'), 1), 'is not a line'),
        ((400, 0, 400, 100), r'the line 400 0 400 100 is outside of the image of 240x320 pixels'),
    ],
)
def test_a_line_that_cannot_be_crossed_is_refused(line, message):
    with pytest.raises(UserError, match=message):
        Tracker(25, lines=[line])(prediction([]))


def test_numbers_and_counts_are_drawn():
    tracker = Tracker(fps=25, lines=[(0, 120, 320, 120)])
    for frame in range(3):
        tracked = tracker(prediction([square(50 + frame, 50), square(200, 200)], scores=[0.9, 0.2]))
    drawn = tracker.draw(tracked)
    assert (drawn[120, 20] == (255, 221, 0)).all()
    assert (drawn[38:62, 40:64] == (250, 0, 0)).all(axis=2).any()
    assert not (drawn == (0, 250, 0)).all(axis=2).any()
    assert (drawn[180:220, 180:220] == 90).all()  # it has no number


# From a film to files


class Truth:
    """In the place of a `Predictor`: reads the number of a frame from its gray, and gives its true boxes."""

    classes, palette, is_segmenter = ('car', 'person'), [(250, 0, 0), (0, 250, 0)], False

    def stream(self, images, broken=None):
        for image in images:
            yield truth(round(float(image[-4:, -4:].mean()) / 4))[1]


@pytest.fixture
def film(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer = cv2.VideoWriter('film.avi', cv2.VideoWriter_fourcc(*'MJPG'), 10, (WIDTH, HEIGHT))
    for frame in range(FRAMES):
        image = np.full((HEIGHT, WIDTH, 3), 4 * frame, np.uint8)
        writer.write(image)
    writer.release()
    return tmp_path / 'film.avi'


def rows(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def test_tracks_and_counts_of_a_film_are_written(film, capsys):
    predict_to_folder(Truth(), ['film.avi'], 'out', save_crops=True, track=True, count_lines=[[160, 0, 160, 240]])
    table = rows('out/tracks.csv')
    assert list(table[0]) == ['video', 'frame', 'time', 'id', 'class', 'score', 'x', 'y', 'w', 'h']
    assert len(table) == 5 * (FRAMES - 1)
    for row in table:
        x, y, width, height = (float(row[name]) for name in 'xywh')
        frame = int(row['frame']) - 1
        assert float(row['time']) == pytest.approx(frame / 10)
        paths = [path for path in PATHS if np.allclose(center(path, frame), (x + width / 2, y + height / 2), atol=0.02)]
        assert [PATHS[path][0] for path in paths] == [row['class']]
        assert (row['video'], row['score']) == ('film.mp4', '0.900')
    assert json.loads((film.parent / 'out/counts.json').read_text()) == {
        'film.mp4': {
            'frames': FRAMES,
            'objects': {'car': 3, 'person': 2},
            'lines': [
                {
                    'line': [160, 0, 160, 240],
                    'crossings': {
                        'car': {'to_left': 1, 'to_right': 1},
                        'person': {'to_left': 2, 'to_right': 1},
                    },
                }
            ],
        }
    }
    records = json.loads((film.parent / 'out/results.json').read_text())
    numbers = {(record['frame'], record['track_id']) for record in records if record['track_id']}
    assert numbers == {(int(row['frame']), int(row['id'])) for row in table}
    printed = capsys.readouterr().out
    assert 'tracks:     out/tracks.csv, out/counts.json' in printed
    assert f'objects:    {5 * FRAMES} found, {len(table)} drawn: ' in printed
    assert len(list((film.parent / 'out/crops').rglob('*.jpg'))) == len(table)


def test_tracking_is_refused_without_a_video_or_objects(tmp_path):
    segmenter, out = SimpleNamespace(is_segmenter=True, classes=()), str(tmp_path / 'out')
    with pytest.raises(UserError, match='--track is for objects in videos, but no video is named'):
        predict_to_folder(Truth(), ['a.jpg'], out, track=True)
    with pytest.raises(UserError, match='--count-line is for objects in videos, but this model labels pixels'):
        predict_to_folder(segmenter, ['a.mp4'], out, track=True, count_lines=[(0, 0, 1, 1)])
    assert not os.listdir(tmp_path)


def test_a_line_that_is_none_is_refused_before_anything_is_predicted(tmp_path):
    with pytest.raises(UserError, match='3 4 3 4 is not a line'):
        predict_to_folder(Truth(), ['film.avi'], str(tmp_path / 'out'), track=True, count_lines=[(3, 4, 3, 4)])
    assert not os.listdir(tmp_path)


def test_a_missing_package_names_its_extra(film, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'trackers', None)
    (film.parent / 'model.onnx').touch()
    with pytest.raises(SystemExit) as raised:
        main(['predict', 'model.onnx', 'film.avi', '--count-line', '0', '0.5', '1', '0.5'])
    assert raised.value.code == 2
    assert "--track needs the package trackers: pip install 'fasternet-mm[track]'" in capsys.readouterr().err
