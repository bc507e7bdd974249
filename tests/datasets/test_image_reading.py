import io
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from fasternet_mm.datasets import image_reading as images
from fasternet_mm.datasets.image_reading import read_image
from fasternet_mm.errors import UserError


@pytest.fixture
def photo(fixtures):
    return fixtures / '000000000785.jpg'


@pytest.fixture
def serve(monkeypatch):
    """The URL of a server that gives this answer to everybody."""
    monkeypatch.setenv('no_proxy', '*')
    servers = []

    def serve(content=b'', status=200, **headers):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        servers.append(server)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f'http://127.0.0.1:{server.server_port}/a/photo.jpg'

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_files_are_read_as_in_training(photo, tmp_path):
    png = tmp_path / 'a.png'
    cv2.imwrite(str(png), cv2.imread(str(photo))[:50, :40])
    for file in (photo, png):
        assert np.array_equal(read_image(file), mmcv.imread(str(file)))


def test_every_kind_of_source_gives_the_same_pixels(photo, tmp_path, serve):
    pixels = mmcv.imread(str(photo))[:60, :50]
    file = tmp_path / 'a.png'
    cv2.imwrite(str(file), pixels)
    rgb, content = pixels[..., ::-1], file.read_bytes()
    for source in (
        file,
        str(file),
        content,
        bytearray(content),
        memoryview(content),
        pixels,
        Image.fromarray(rgb),
        Image.open(file),
        serve(content),
        serve(content, **{'Content-Length': str(len(content))}),
    ):
        assert np.array_equal(read_image(source), pixels), source
    assert np.array_equal(read_image(rgb, 'rgb'), pixels)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_an_image_is_turned_as_its_camera_says(orientation, tmp_path):
    """Golden values: what a viewer shows, from EXIF's definition of where row 0 and column 0 are."""
    corners = Image.fromarray(np.zeros((32, 48, 3), np.uint8))
    corners.paste((255, 0, 0), (0, 0, 24, 16))  # red where row 0 and column 0 meet
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(corners, 'JPEG', exif=exif, quality=95)
    row_0, column_0 = [
        ('top', 'left'),
        ('top', 'right'),
        ('bottom', 'right'),
        ('bottom', 'left'),
        ('left', 'top'),
        ('right', 'top'),
        ('right', 'bottom'),
        ('left', 'bottom'),
    ][orientation - 1]
    vertical, horizontal = sorted((row_0, column_0), key=lambda side: side in ('left', 'right'))
    (tmp_path / 'a.jpg').write_bytes(content)
    for source in (tmp_path / 'a.jpg', content, Image.open(io.BytesIO(content))):
        actual = read_image(source)
        assert actual.shape == ((32, 48, 3) if orientation < 5 else (48, 32, 3))
        y, x = 4 if vertical == 'top' else -4, 4 if horizontal == 'left' else -4
        assert actual[y, x, 2] > 200
        assert actual[-y, -x, 2] < 50


COLOR = (200, 100, 40)
GRAY_OF_COLOR = 123


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'JPEG', 'WEBP', 'GIF', 'BMP'])
@pytest.mark.parametrize('mode', ['RGB', 'L', '1', 'P', 'LA', 'RGBA', 'CMYK', 'I;16', 'I'])
def test_every_mode_of_an_image_becomes_eight_bits_of_color(mode, kind):
    image = Image.new('RGB', (40, 30), COLOR)
    expected = COLOR
    if mode in ('L', 'LA', 'I;16', 'I'):
        expected = (GRAY_OF_COLOR,) * 3
    if mode == '1':
        image, expected = Image.new('RGB', (40, 30), 'white'), (255, 255, 255)
    if mode.startswith('I'):
        values = np.full((30, 40), GRAY_OF_COLOR * 256 + 200)
        image = Image.fromarray(values.astype(np.uint16 if mode == 'I;16' else np.int32))
    elif mode == 'LA':
        image = image.convert('LA')
        image.putalpha(255)
    else:
        image = image.quantize(8) if mode == 'P' else image.convert(mode)
    sources = [image]
    try:
        sources.append(encoded(image, kind))
    except (OSError, KeyError, ValueError):  # the format has no such mode
        assert (kind, mode) not in {('PNG', 'I;16'), ('PNG', 'P'), ('PNG', 'RGBA'), ('JPEG', 'CMYK'), ('TIFF', 'CMYK')}
    if mode.startswith('I') and (kind, mode) not in {('PNG', 'I;16'), ('PNG', 'I'), ('TIFF', 'I;16')}:
        sources = sources[:1]  # Pillow cuts the others off at 255, or writes 32 bits
    for source in sources:
        actual = read_image(source)
        assert (actual.shape, actual.dtype) == ((30, 40, 3), np.uint8)
        assert np.abs(actual[10, 10, ::-1].astype(int) - expected).max() <= 4, type(source)


def test_transparency_is_left_out_as_in_training(tmp_path):
    image = Image.new('RGBA', (40, 30), (*COLOR, 20))
    image.save(tmp_path / 'a.png')
    assert np.array_equal(mmcv.imread(str(tmp_path / 'a.png')), read_image(tmp_path / 'a.png'))
    for source in (tmp_path / 'a.png', image, np.asarray(image)[..., [2, 1, 0, 3]]):
        assert tuple(read_image(source)[5, 5, ::-1]) == COLOR


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        (np.zeros((5, 5, 3)), r'float64 \(5, 5, 3\) is not an image'),
        (np.zeros((5, 5, 2), np.uint8), 'is not an image'),
        (np.zeros((2, 5, 5, 3), np.uint8), 'is not an image'),
        (np.zeros((0, 5, 3), np.uint8), 'is not an image'),
        (np.zeros((5, 5), bool), 'is not an image'),
        (Image.new('F', (5, 5)), 'range of an image of floating-point numbers is unknown'),
        (Image.fromarray(np.full((5, 5), 70000, np.int32)), 'above 65535 is unknown'),
        (encoded(Image.new('F', (5, 5)), 'TIFF'), r'^\d+ bytes: the range of an image of floating-point numbers'),
        (b'', '0 bytes is not an image'),
        (b'GIF89a and no more', '18 bytes is not an image'),
        (3, 'type int is not read as an image'),
        ('nowhere.jpg', 'nowhere.jpg cannot be read'),
        ('file:///etc/hostname', 'cannot be read'),
        ('.', 'cannot be read'),
        (Path(__file__), 'is not an image that can be read'),
    ],
)
def test_what_is_no_image_is_said_so(source, message):
    with pytest.raises(UserError, match=message):
        read_image(source)


def test_addresses_are_followed_safely(serve, photo, tmp_path, monkeypatch):
    refused = partial(pytest.raises, UserError)
    with refused(match='Redirection to .* is not allowed'):
        read_image(serve(status=302, Location=f'file://{photo.resolve()}'))
    with refused(match='the server answers 404'):
        read_image(serve(status=404))
    with refused(match='it ends after 3 of 10 bytes'):
        read_image(serve(b'abc', **{'Content-Length': '10'}))
    with refused(match='is not an image'):
        read_image(serve(b'<html>log in</html>'))
    monkeypatch.setattr(images, 'MAX_BYTES', 1000)
    with refused(match='has more than 1,000 bytes'):
        read_image(serve(photo.read_bytes()))
    with refused(match='cannot be reached'):
        read_image('http://127.0.0.1:9/a.jpg')


def as_opencv_4(monkeypatch):
    """OpenCV 4 decodes the beginning of a JPEG, and leaves the rest gray."""
    monkeypatch.setattr(images.cv2, 'imdecode', lambda content, flags: np.full((40, 40, 3), 128, np.uint8))


@pytest.mark.parametrize('options', [dict(), dict(progressive=True), dict(exif=True)])
@pytest.mark.parametrize('missing', [2, 500])
def test_a_jpeg_that_is_cut_off_is_no_image(options, missing, photo, tmp_path, monkeypatch):
    with Image.open(photo) as image:
        if options.pop('exif', False):  # a camera's small image, with an end of its own
            small = encoded(image.resize((32, 32)), 'JPEG')
            options['exif'] = b'Exif\0\0' + small
        content = encoded(image, 'JPEG', **options)
    (tmp_path / 'a.jpg').write_bytes(content)
    assert read_image(tmp_path / 'a.jpg').shape == (*image.size[::-1], 3)
    (tmp_path / 'a.jpg').write_bytes(content[:-missing])
    as_opencv_4(monkeypatch)
    with pytest.raises(UserError, match=r'a\.jpg is cut off, it is only the beginning of an image'):
        read_image(tmp_path / 'a.jpg')


def test_what_comes_after_the_end_of_a_jpeg_does_not_matter(photo):
    content = photo.read_bytes()
    np.testing.assert_array_equal(read_image(content + content[:900]), read_image(content))


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'TIFF', 'PNG'])
def test_of_several_frames_the_first_is_taken_and_that_is_said(kind, tmp_path, logged_warnings):
    frames = [Image.new('RGB', (40, 30), (level, level, level)) for level in (50, 200)]
    path = tmp_path / f'a.{kind.lower()}'
    frames[0].save(path, kind)
    assert abs(read_image(path).mean() - 50) < 2
    assert logged_warnings() == []
    frames[0].save(path, kind, save_all=True, append_images=frames[1:])
    assert abs(read_image(path).mean() - 50) < 2
    assert logged_warnings() == [f'{path} has several frames: the first is taken']
