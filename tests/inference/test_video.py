"""Frames that cannot be decoded, and films that come over HTTP."""

import os
import threading
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from fasternet_mm.errors import UserError
from fasternet_mm.inference.inputs import find_inputs, is_stream, is_video, shown
from fasternet_mm.inference.output_folder import predict_to_folder
from fasternet_mm.inference.prediction import Prediction
from fasternet_mm.inference.video import _NewestFrames, open_video, video_appearing


class Nothing:
    """In the place of a `Predictor`: finds nothing."""

    classes, is_segmenter = (), False

    def stream(self, images, broken=None):
        none = np.zeros(0, np.float32)
        for image in images:
            yield Prediction(image[..., ::-1], '', (), [], [], none.reshape(0, 4), none, none.astype(int))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def film(path, frames=40, codec='MJPG'):
    """Each frame brighter than the one before."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 12.5, (64, 48))
    for number in range(1, frames + 1):
        writer.write(np.full((48, 64, 3), 6 * number, np.uint8))
    writer.release()
    return path.read_bytes()


def brightness(path):
    """The number that each frame of a film has by its gray."""
    with open_video(str(path)) as video:
        return [round(float(frame.mean()) / 6) for frame in video]


def damage(path, *numbers):
    """Overwrite frames of an AVI film: each is a chunk 00dc, its size in 4 bytes, and its content."""
    content = bytearray(path.read_bytes())
    place = content.index(b'movi') + 4
    for number in range(1, 41):
        assert content[place : place + 4] == b'00dc'
        size = int.from_bytes(content[place + 4 : place + 8], 'little')
        if number in numbers:
            content[place + 8 : place + 8 + size] = bytes(size)
        place += 8 + size + size % 2
    path.write_bytes(content)


def test_frames_that_cannot_be_decoded_are_named_and_the_rest_is_done(folder):
    film(folder / 'clip.avi')
    damage(folder / 'clip.avi', 1, 2, 9, 10, 31)
    with pytest.raises(UserError, match=r'clip.avi: 5 frames could not be decoded \(1, 2, 9, 10, 31\), the others are'):
        predict_to_folder(Nothing(), ['clip.avi'], 'out')
    filled = {1: 3, 2: 3, 9: 11, 10: 11, 31: 32}  # so that the film keeps its time
    expected = [filled.get(number, number) for number in range(1, 41)]
    assert brightness('out/clip.mp4') == pytest.approx(expected, abs=1)


def test_numbers_and_times_count_the_frames_that_cannot_be_decoded(folder):
    film(folder / 'clip.avi')
    damage(folder / 'clip.avi', 1, 2, 9)
    with open_video('clip.avi') as video:
        pairs = [(round(float(frame.mean()) / 6), number) for frame, number in zip(video, video.numbers())]
        assert video.seconds(11) == pytest.approx(0.8)
    assert pairs == [(number, number) for number in range(1, 41) if number not in (1, 2, 9)]


@pytest.mark.parametrize('fps', [0.5, 7.5, 120])
def test_a_video_keeps_its_rate(fps, tmp_path):
    with video_appearing(tmp_path / 'film.mp4', fps, is_live=False) as film:
        for number in (1, 2, 3):
            film.write(np.full((64, 64, 3), 60 * number, np.uint8), number)
    with open_video(str(tmp_path / 'film.mp4')) as video:
        assert (video.fps, video.seconds(3), len(list(video))) == (fps, 2 / fps, 3)


def test_a_long_gap_is_not_the_end_and_ten_numbers_are_named(folder):
    film(folder / 'clip.avi')
    damage(folder / 'clip.avi', *range(5, 37))
    with pytest.raises(UserError, match=r'32 frames could not be decoded \(5, 6, 7, 8, 9, 10, 11, 12, 13, 14, …\)'):
        predict_to_folder(Nothing(), ['clip.avi'], 'out')


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get('Authorization', '').removeprefix('Basic ')
        if self.server.password and b64decode(asked) != f'me:{self.server.password}'.encode():
            self.send_response(401)
            self.send_header('WWW-Authenticate', 'Basic realm="camera"')
            self.end_headers()
            return
        content = self.server.films.get(self.path.partition('?')[0])
        self.send_response(200 if content else 404)
        self.send_header('Content-Length', str(len(content or b'')))
        self.end_headers()
        self.wfile.write(content or b'')

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as result:
        result.films, result.password = {}, ''
        threading.Thread(target=result.serve_forever, daemon=True).start()
        yield result
        result.shutdown()


def test_a_film_over_http_is_predicted_as_a_file_and_its_password_is_nowhere(folder, server, capfd):
    server.films['/secret-path/clip.avi'] = film(folder / 'clip.avi')
    server.password = 'hush-hush'
    url = f'http://me:hush-hush@127.0.0.1:{server.server_port}/secret-path/clip.avi?token=t0ken'
    predict_to_folder(Nothing(), find_inputs([url], 'out'), 'out')
    name = f'127.0.0.1_{server.server_port}.mp4'
    assert brightness(f'out/{name}') == pytest.approx(range(1, 41), abs=1)
    wrong = url.replace('hush-hush@', 'oh-hush-hush@')
    with pytest.raises(UserError) as raised:
        predict_to_folder(Nothing(), [wrong], 'out')
    told = str(raised.value)
    assert f'http://127.0.0.1:{server.server_port} cannot be opened: nothing answers there' in told
    everything = [*map(str, folder.rglob('*')), told, *capfd.readouterr()]
    everything += [file.read_bytes().decode(errors='replace') for file in (folder / 'out').iterdir()]
    for secret in ('hush', 't0ken', 'secret'):
        assert not [text for text in everything if secret in text]
    assert 'OPENCV_FFMPEG_CAPTURE_OPTIONS' not in os.environ


def test_a_stream_reads_no_file(folder, server):
    """A playlist may name anything."""
    film(folder / 'clip.ts', codec='mp4v')
    server.films['/list.m3u8'] = (
        f'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3.2,\nfile://{folder}/clip.ts\n#EXT-X-ENDLIST\n'.encode()
    )
    with (
        pytest.raises(UserError, match='cannot be opened'),
        open_video(f'http://127.0.0.1:{server.server_port}/list.m3u8'),
    ):
        pass


class Sender:
    """In the place of OpenCV's capture of a stream: frame N is 'N', sent when the test allows it."""

    def __init__(self):
        self.sent, self.allowed, self.asked = 0, threading.Semaphore(0), threading.Semaphore(0)
        self.is_released = False

    def read(self):
        self.asked.release()
        self.allowed.acquire()
        self.sent += 1
        return self.sent not in (5, 6, 7), str(self.sent)

    def release(self):
        self.is_released = True


def test_what_is_slower_than_a_stream_gets_its_newest_frame():
    sender = Sender()
    newest = _NewestFrames(sender)

    def send(count):
        for _ in range(count):
            sender.asked.acquire()  # for it is asked once the one before is there
            sender.allowed.release()
        sender.asked.acquire()
        sender.asked.release()

    send(4)
    assert newest.read() == (True, '4')
    sender.allowed.release(4)
    assert [newest.read()[0] for _ in range(3)] == [False] * 3  # none of those that are broken is dropped
    assert newest.read() == (True, '8')
    sender.allowed.release(9)
    newest.release()
    assert sender.is_released


@pytest.mark.parametrize(
    ('source', 'is_one'),
    [
        ('rtsp://me:pass@host/live', True),
        ('http://host/clip.MP4?a=b.jpg', True),
        ('https://host/list.m3u8', True),
        ('http://host/street.jpg', False),
        ('http://host/video.cgi', False),
        ('stream:http://host/video.cgi', True),
        ('clip.mp4', False),
    ],
)
def test_what_is_a_stream_and_what_an_image(source, is_one):
    assert is_stream(source) is is_one
    assert is_video(source) is (is_one or source == 'clip.mp4')


@pytest.mark.parametrize('address', ['rtsp://me:pass@host:554/user=me&password=pass?channel=1', 'rtsp://host:554'])
def test_of_an_address_scheme_host_and_port_are_shown(address):
    assert shown(address) == shown(f'stream:{address}') == 'rtsp://host:554'


@pytest.mark.parametrize(
    'address', ['rtps://me:pass@host/live', 'file:///etc/passwd', 'rtsp://me:pass@', 'stream:clip.mp4']
)
def test_an_address_that_is_none_is_refused_without_its_password(address):
    with pytest.raises(UserError, match=r'rtsp://, rtsps://, http:// or https://|stream: stands before') as raised:
        find_inputs([address], 'out')
    assert 'pass@' not in str(raised.value)
