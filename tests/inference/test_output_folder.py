"""What is found on a command line, and what is written for it, with a model that finds one box everywhere."""

import errno
import itertools
import json
import os
import resource
import signal
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fasternet_mm.datasets.image_reading import read_image
from fasternet_mm.datasets.image_search import find_files
from fasternet_mm.errors import UserError
from fasternet_mm.files import MARKER
from fasternet_mm.inference import Prediction, video
from fasternet_mm.inference.inputs import find_inputs
from fasternet_mm.inference.output_folder import json_list, predict_to_folder


class Stub:
    """In the place of a `Predictor`: a box of each class, or a map of one label."""

    classes, palette, category_ids = ('cat', '../../dog'), [(250, 0, 0), (0, 250, 0)], [17, 18]

    def __init__(self, is_segmenter=False):
        self.is_segmenter = is_segmenter

    def stream(self, images, broken=None):
        for source in images:
            try:
                pixels = read_image(source)
            except UserError as error:
                if broken is None:
                    raise
                broken.append(error)
                continue
            boxes = [] if self.is_segmenter else [[4, 4, 20, 16], [6, 10, 30, 30]]
            yield Prediction(
                image=pixels[..., ::-1],
                source='' if isinstance(source, np.ndarray) else str(source),
                classes=self.classes,
                palette=self.palette,
                category_ids=self.category_ids,
                boxes=np.array(boxes, np.float32).reshape(-1, 4),
                scores=np.array([0.9, 0.2], np.float32)[: len(boxes)],
                labels=np.arange(len(boxes)),
                label_map=np.ones(pixels.shape[:2], np.uint8) if self.is_segmenter else None,
            )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paint(*paths, size=(40, 32)):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.full((*size[::-1], 3), 99, np.uint8))


def film(path, frames=5, fps=12.5, size=(64, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), fps, size)
    for number in range(frames):
        writer.write(np.full((*size[::-1], 3), 40 * number % 256, np.uint8))
    writer.release()


def written(folder):
    """Files, without the mark that a folder is no data."""
    files = [path for path in folder.rglob('*') if path.is_file()]
    assert MARKER in [file.name for file in files]
    return sorted(str(file.relative_to(folder)) for file in files if file.name != MARKER)


def records(path):
    return json.loads(path.read_text())


# What is named


def test_files_folders_and_patterns_are_found_in_order(folder):
    paint(folder / 'b/2.PNG', folder / 'b/deep/1.jpg', folder / 'a.webp', folder / 'c1.jpg', folder / 'c2.jpg')
    film(folder / 'b/clip.avi')
    (folder / 'b/notes.txt').touch()
    (folder / 'c3.txt').touch()
    url = 'https://example.org/a.jpg?size=large'
    actual = find_inputs(['a.webp', 'b', 'c*', url, 'b/**/*.jpg', 'camera:2', 'a.webp'], 'out')
    assert actual == ['a.webp', 'b/2.PNG', 'b/clip.avi', 'b/deep/1.jpg', 'c1.jpg', 'c2.jpg', url, 'camera:2']
    assert find_files(['b']) == ['b/2.PNG', 'b/deep/1.jpg']


@pytest.mark.parametrize(
    ('paths', 'message'),
    [
        (['nowhere.jpg'], 'nowhere.jpg does not exist'),
        (['empty'], 'no images in empty: looked for .avi'),
        (['*.tga'], r'no images match \*.tga'),
        (['fine/a.jpg', '*.tga', 'fine'], r'no images match \*.tga: looked for .avi'),
        (['fine', 'empty'], 'no images in empty'),
        (['fine', 'fine/*.txt'], r'no images match fine/\*.txt'),
        (['out/a.jpg'], 'is in the folder of the results'),
        (['out'], 'is in the folder of the results'),
        (['elsewhere/../out/crops/a.jpg'], 'is in the folder of the results'),
    ],
)
def test_what_is_not_there_or_would_be_overwritten_is_refused(folder, paths, message):
    paint(folder / 'out/a.jpg', folder / 'out/crops/a.jpg', folder / 'fine/a.jpg')
    (folder / 'fine/notes.txt').touch()
    (folder / 'empty').mkdir()
    (folder / 'elsewhere').mkdir()
    with pytest.raises(UserError, match=message):
        find_inputs(paths, 'out')


def test_earlier_results_are_no_input(folder):
    paint(folder / 'a.jpg', folder / 'out/a.jpg', folder / 'out/crops/cat/a-1.jpg')
    assert find_inputs(['.', '**/*.jpg'], 'out') == ['a.jpg']


def test_results_of_another_earlier_run_are_no_input_unless_they_are_named(folder, logged_warnings):
    paint(folder / 'a.jpg', folder / 'of_detector/a.jpg', folder / 'predictions/a.jpg', folder / 'mine/b.jpg')
    paint(folder / 'of_segmenter/a.jpg')
    (folder / 'of_detector/results.json').touch()
    (folder / 'of_segmenter/.fasternet_mm_output').touch()
    (folder / 'predictions/labels').mkdir()
    (folder / 'mine/labels').mkdir()
    assert find_inputs(['.'], 'out') == ['a.jpg', 'mine/b.jpg']
    assert sorted(warning.partition(':')[0] for warning in logged_warnings()) == [
        'of_detector has the results of an earlier run',
        'of_segmenter has the results of an earlier run',
        'predictions has the results of an earlier run',
    ]
    assert find_inputs(['of_detector'], 'out') == ['of_detector/a.jpg']


def test_links_are_followed_once_even_in_a_circle(folder):
    paint(folder / 'photos/a.jpg', folder / 'elsewhere/b.jpg')
    (folder / 'photos/more').symlink_to(folder / 'elsewhere')
    (folder / 'photos/again').symlink_to(folder / 'photos')
    (folder / 'photos/nothing.txt').symlink_to('nothing.txt')
    expected = ['photos/a.jpg', 'photos/more/b.jpg']
    assert find_inputs(['photos'], 'out') == expected
    assert find_inputs(['photos/**/[ab].jpg', 'photos'], 'out') == expected


def test_a_link_that_leads_nowhere_is_an_image_that_cannot_be_read(folder):
    paint(folder / 'photos/a.jpg')
    (folder / 'photos/b.jpg').symlink_to('moved.jpg')
    sources = find_inputs(['photos'], 'out')
    with pytest.raises(UserError, match=r'1 of 2 images were left out: photos/b.jpg cannot be read'):
        predict_to_folder(Stub(), sources, 'out')


def test_a_folder_that_cannot_be_opened_is_named(folder, monkeypatch):
    paint(folder / 'photos/a.jpg', folder / 'photos/closed/b.jpg')
    scandir = os.scandir

    def closing(path):
        if str(path).endswith('closed'):
            raise PermissionError(errno.EACCES, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', closing)
    with pytest.raises(UserError, match=r'photos/closed cannot be opened \(Permission denied\)'):
        find_inputs(['photos'], 'out')


# What is written


@pytest.mark.parametrize(('mine', 'is_segmenter'), [('mine/a.png', False), ('mine/labels/a.png', True)])
def test_files_of_the_users_are_not_overwritten_but_earlier_results_are(mine, is_segmenter, folder):
    paint(folder / 'new/a.png', folder / mine)
    before = (folder / mine).read_bytes()
    with pytest.raises(UserError, match=f'{mine} would be overwritten, .* name another --out-dir'):
        predict_to_folder(Stub(is_segmenter), ['new/a.png'], 'mine')
    assert [path for path in (folder / 'mine').rglob('*') if path.is_file()] == [folder / mine]
    assert (folder / mine).read_bytes() == before
    for _ in range(2):
        predict_to_folder(Stub(is_segmenter), ['new/a.png'], 'out')


@pytest.mark.parametrize(
    ('sources', 'mine'), [(['new/a.gif'], 'a.png'), (['new/a.avi'], 'a.mp4'), (['new/a.png', 'old/a.png'], 'a-2.png')]
)
def test_files_that_drawings_would_overwrite_are_known_by_the_names_of_the_drawings(sources, mine, folder):
    paint(folder / 'mine' / 'b.png')
    (folder / 'mine' / 'b.png').rename(folder / 'mine' / mine)
    with pytest.raises(UserError, match=f'mine/{mine} would be overwritten'):
        predict_to_folder(Stub(), sources, 'mine')


def test_every_image_gets_a_drawing_of_its_own_and_detections_say_whose_they_are(folder):
    names = 'x/a.jpg', 'y/a.jpg', 'y/A.png', 'y/a.gif', 'x/000000000002.png', 'y/a-2.jpg'
    paint(*(folder / name for name in names if name != 'y/a.gif'))
    (folder / 'y/a.gif').write_bytes((folder / 'y/A.png').read_bytes())
    predict_to_folder(Stub(), names, 'out')
    drawings = ['000000000002.png', 'A-3.png', 'a-2-2.jpg', 'a-2.jpg', 'a-4.png', 'a.jpg']
    assert written(folder / 'out') == sorted([*drawings, 'results.json'])
    actual = records(folder / 'out/results.json')
    assert len(actual) == 2 * len(names)
    ids = {record['file_name']: record['image_id'] for record in actual}
    assert ids == {'a.jpg': 1, 'a-2.jpg': 3, 'A-3.png': 4, 'a-4.png': 5, '000000000002.png': 2, 'a-2-2.jpg': 6}
    drawing = cv2.imread('out/A-3.png')
    assert tuple(drawing[16, 10]) == (0, 0, 250)  # the box, in the class's color
    assert (drawing != (0, 250, 0)).any(2).all()  # 0.2 is below the threshold


def test_what_cannot_be_read_is_named_and_the_rest_is_done(folder, capsys):
    paint(folder / 'a.jpg', folder / 'b.jpg')
    (folder / 'broken.jpg').write_bytes(b'no image')
    (folder / 'broken.mp4').write_bytes(b'no video')
    message = r'2 of 4 images or videos were left out, at least in part: broken.jpg is not.*; broken.mp4 is not a video'
    with pytest.raises(UserError, match=message):
        predict_to_folder(Stub(), ['a.jpg', 'broken.jpg', 'broken.mp4', 'b.jpg'], 'out')
    assert written(folder / 'out') == ['a.jpg', 'b.jpg', 'results.json']
    printed = capsys.readouterr().out
    assert 'detections: out/results.json\n' in printed


@pytest.mark.parametrize(('score', 'drawn'), [(0.3, 2), (0.1, 4), (0.95, 0)])
def test_the_numbers_of_found_and_of_drawn_objects_are_told_with_the_threshold(score, drawn, folder, capsys):
    paint(folder / 'a.jpg', folder / 'b.jpg')
    predict_to_folder(Stub(), ['a.jpg', 'b.jpg'], 'out', score)
    line = f'objects:    4 found, {drawn} drawn: those from score {score} on (--score-thr)\n'
    assert line in capsys.readouterr().out


@pytest.mark.parametrize('error', [ValueError('odd'), cv2.error('odd'), OSError(errno.ENAMETOOLONG, 'odd')])
def test_an_image_whose_results_cannot_be_written_is_named_and_the_rest_is_done(error, folder, monkeypatch):
    paint(folder / 'a.jpg', folder / 'b.jpg', folder / 'c.jpg')
    draw = Prediction.draw

    def failing(self, *arguments, **options):
        if self.source == 'b.jpg':
            raise error
        return draw(self, *arguments, **options)

    monkeypatch.setattr(Prediction, 'draw', failing)
    with pytest.raises(UserError, match=r'1 of 3 images were left out: b.jpg failed \(.*odd') as raised:
        predict_to_folder(Stub(), ['a.jpg', 'b.jpg', 'c.jpg'], 'out')
    assert raised.value.__cause__ is error  # for --debug
    assert {record['file_name'] for record in records(folder / 'out/results.json')} == {'a.jpg', 'c.jpg'}


def test_a_full_disk_stops_all(folder, monkeypatch):
    paint(folder / 'a.jpg', folder / 'b.jpg')

    def full(path, content):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('fasternet_mm.visualization.drawing.write_atomically', full)
    message = r'the results of a.jpg cannot be written \(No space left on device\): make room'
    with pytest.raises(UserError, match=message):
        predict_to_folder(Stub(), ['a.jpg', 'b.jpg'], 'out')
    assert written(folder / 'out') == []


def write_until_full(path, limit):
    with json_list(path) as add:
        add([dict(a=1)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, limit[1]))


def test_a_disk_that_is_full_when_the_detections_are_closed_is_said_in_one_sentence(folder):
    """What is written to a file reaches the disk late: in the middle of something else, or at the end."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(UserError, match=r'deep/found.json cannot be written \(File too large\): make room'):
            write_until_full(folder / 'deep/found.json', limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list((folder / 'deep').iterdir()) == []


def test_names_of_19_digits_are_ids_as_they_are(folder):
    """Time stamps in nanoseconds; 2**63 is no 64-bit integer any more."""
    names = [f'{number}.png' for number in (1732600000123456789, 2**63 - 1, 2**63)]
    paint(*(folder / name for name in names))
    predict_to_folder(Stub(), names, 'out')
    ids = {record['file_name']: record['image_id'] for record in records(folder / 'out/results.json')}
    assert list(ids.values()) == [1732600000123456789, 2**63 - 1, 1]


@pytest.mark.parametrize('name', ['new\nline.jpg', 'lone \udce9.jpg', '\N{SNOWMAN}.jpg'])
def test_odd_names_are_kept(name, folder):
    paint(folder / 'a.jpg')
    os.rename('a.jpg', name)
    predict_to_folder(Stub(), [name], 'out')
    assert set(written(folder / 'out')) == {name, 'results.json'}
    assert records(folder / 'out/results.json')[0]['file_name'] == name


def test_classes_crops_and_another_file_of_detections(folder):
    paint(folder / 'a.png')
    predict_to_folder(Stub(), ['a.png'], 'out', 0.1, save_crops=True, json_file='new/found.json')
    assert written(folder / 'out') == ['a.png', 'crops/_.._dog/a-2.jpg', 'crops/cat/a-1.jpg']
    assert cv2.imread('out/crops/cat/a-1.jpg').shape == (12, 16, 3)
    assert {record['category_id'] for record in records(folder / 'new/found.json')} == {17, 18}
    predict_to_folder(Stub(), ['a.png'], 'cats', classes=['cat'])
    assert [record['category_id'] for record in records(folder / 'cats/results.json')] == [17]
    with pytest.raises(UserError, match="no class 'cats'; did you mean 'cat'"):
        predict_to_folder(Stub(), ['a.png'], 'none', classes=['cats'])
    assert not (folder / 'none').exists()


def test_no_detections_are_an_empty_list(folder):
    paint(folder / 'a.png')
    stub = Stub()
    stub.stream = lambda images, broken=None: (prediction.above(1) for prediction in Stub().stream(images))
    predict_to_folder(stub, ['a.png'], 'out')
    assert records(folder / 'out/results.json') == []


def test_labels_are_written_as_they_are(folder, capsys):
    paint(folder / 'a.png')
    film(folder / 'clip.avi')
    predict_to_folder(Stub(is_segmenter=True), ['a.png', 'clip.avi'], 'out')
    assert written(folder / 'out') == ['a.png', 'clip.mp4', 'labels/a.png']
    assert (cv2.imread('out/labels/a.png', cv2.IMREAD_UNCHANGED) == 1).all()
    for options in (dict(save_crops=True), dict(json_file='a.json')):
        with pytest.raises(UserError, match='this model labels pixels'):
            predict_to_folder(Stub(is_segmenter=True), ['a.png'], 'other', **options)
    assert not (folder / 'other').exists()


def test_names_from_the_network_stay_in_the_folder(folder, monkeypatch):
    content = cv2.imencode('.png', np.zeros((40, 40, 3), np.uint8))[1].tobytes()
    monkeypatch.setattr('fasternet_mm.datasets.image_reading.fetch', lambda url, limit: content)
    site = 'https://example.org/'
    predict_to_folder(Stub(), [site + '..%2F..%2Fevil.jpg', site + '%5Cx%00.png', site, site + 'x?a=/b.jpg'], 'out')
    assert written(folder) == ['out/_.png', 'out/_x_.png', 'out/evil.jpg', 'out/results.json', 'out/x.png']


def test_a_run_that_is_broken_off_leaves_no_half_list(folder):
    paint(folder / 'a.jpg', folder / 'b.jpg')
    stub = Stub()

    def stream(images, broken=None):
        yield from itertools.islice(Stub().stream(images), 1)
        raise KeyboardInterrupt

    stub.stream = stream
    with pytest.raises(KeyboardInterrupt):
        predict_to_folder(stub, ['a.jpg', 'b.jpg'], 'out')
    assert written(folder / 'out') == ['a.jpg']


# Videos


def open_written(path):
    capture = cv2.VideoCapture(str(path))
    frames = [frame for _, frame in iter(capture.read, (False, None))]
    return capture.get(cv2.CAP_PROP_FPS), frames


def test_a_video_is_written_back_with_its_size_and_speed(folder):
    paint(folder / 'clip.png')
    film(folder / 'clip.avi')
    predict_to_folder(Stub(), ['clip.avi', 'clip.png'], 'out', save_crops=True)
    fps, frames = open_written('out/clip-2.mp4')
    assert (fps, len(frames), frames[0].shape) == (12.5, 5, (48, 64, 3))
    assert [round(frame[44, 60].mean() / 40) for frame in frames] == [0, 1, 2, 3, 4]
    assert frames[0][10, 4, 2] > 150  # the box
    actual = records(folder / 'out/results.json')
    assert [record.get('frame') for record in actual] == [None] * 2 + [
        number for number in (1, 2, 3, 4, 5) for _ in 'ab'
    ]
    assert [record['image_id'] for record in actual[::2]] == [1, 2, 3, 4, 5, 6]
    assert actual[-1]['file_name'] == 'clip-2.mp4'
    crops = [f'crops/cat/clip-2/{number}-1.jpg' for number in range(1, 6)]
    assert written(folder / 'out') == [
        'clip-2.mp4',
        'clip.png',
        *sorted([*crops, 'crops/cat/clip-1.jpg']),
        'results.json',
    ]


def test_a_video_that_is_cut_off_is_done_as_far_as_it_goes_and_named(folder):
    film(folder / 'clip.avi', frames=40)
    content = (folder / 'clip.avi').read_bytes()
    (folder / 'clip.avi').write_bytes(content[: len(content) // 2])
    with pytest.raises(
        UserError, match=r'clip.avi may be cut off: only (\d+) of its 40 frames could be read'
    ) as raised:
        predict_to_folder(Stub(), ['clip.avi'], 'out')
    frames = int(str(raised.value).partition('cut off: only ')[2].split()[0])
    assert 0 < frames < 30
    assert len(open_written('out/clip.mp4')[1]) == frames
    assert max(record['frame'] for record in records(folder / 'out/results.json')) == frames


def test_a_video_is_turned_as_its_file_says(folder):
    """A phone held upright films across, and writes into the header that players turn it by 90 degrees."""
    film(folder / 'clip.avi')
    predict_to_folder(Stub(), ['clip.avi'], 'flat')
    content = (folder / 'flat/clip.mp4').read_bytes()
    matrix = struct.Struct('>9i')
    flat, turned = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), (0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    place = content.index(matrix.pack(*flat), content.index(b'tkhd'))
    (folder / 'clip.mp4').write_bytes(content[:place] + matrix.pack(*turned) + content[place + matrix.size :])
    predict_to_folder(Stub(), ['clip.mp4'], 'out')
    assert {frame.shape for frame in open_written('out/clip.mp4')[1]} == {(64, 48, 3)}


class Camera:
    """In the place of OpenCV's: a clock that goes on by a second per frame, and Ctrl-C at the third."""

    def __init__(self, number):
        self.read_so_far = 0

    def isOpened(self):
        return True

    def get(self, what):
        return {cv2.CAP_PROP_FPS: 5.0}.get(what, -1)

    def read(self):
        self.read_so_far += 1
        if self.read_so_far == 3:
            raise KeyboardInterrupt
        return True, np.full((48, 64, 3), 100 * self.read_so_far, np.uint8)

    def release(self):
        pass


def test_a_camera_runs_until_interrupted_and_its_video_keeps_time(folder, monkeypatch):
    monkeypatch.setattr(video, '_open_camera', Camera)
    monkeypatch.setattr(video, 'time', SimpleNamespace(monotonic=itertools.count().__next__))
    predict_to_folder(Stub(), ['camera:1'], 'out')
    assert written(folder / 'out') == ['camera_1.mp4', 'results.json']
    fps, frames = open_written('out/camera_1.mp4')
    assert fps == 5
    assert [round(frame[44, 60].mean() / 100) for frame in frames] == [1] * 6 + [2] * 5
    assert len(records(folder / 'out/results.json')) == 4


def test_a_camera_that_is_not_there_is_said(folder):
    with pytest.raises(UserError, match='camera:77 cannot be opened: there is no such camera'):
        predict_to_folder(Stub(), ['camera:77'], 'out')
