"""What strangers send, good and bad."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fasternet_mm.errors import UserError
from fasternet_mm.serving.uploads import Limits, UploadTooLarge, read_upload

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'
EPS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n'


def encoded(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def colors(height=40, width=60):
    """Every channel and side differs, and neighbors are alike, as in photos."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 6, columns * 4, 255 - rows * 6], axis=2).astype(np.uint8)


def black_png(height, width):
    """A PNG of one bit a pixel, packed row by row: the image itself is never in memory. The width is one of eights."""

    def chunk(kind, content):
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    packer = zlib.compressobj()
    rows = b''.join([*(packer.compress(bytes(1 + width // 8)) for _ in range(height)), packer.flush()])
    header = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')


@pytest.fixture
def nothing_is_decoded(monkeypatch):
    monkeypatch.setattr('fasternet_mm.serving.uploads.read_image', lambda content: pytest.fail('it was decoded'))
    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', lambda image: pytest.fail('it was decoded'))


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF', 'GIF'])
def test_images_are_read_as_blue_green_red(kind):
    pixels = colors() if kind != 'GIF' else np.full((40, 60, 3), (200, 100, 50), np.uint8)
    image = read_upload(encoded(Image.fromarray(pixels), kind), Limits())
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[..., ::-1], pixels)


@pytest.mark.parametrize('kind', ['JPEG', 'WEBP'])
def test_compressed_photos_are_read(kind):
    image = read_upload(encoded(Image.fromarray(colors()), kind, quality=95), Limits())
    assert np.abs(image[..., ::-1].astype(int) - colors()).mean() < 4


def test_a_photo_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    image = read_upload(encoded(Image.fromarray(colors(40, 60)), 'JPEG', exif=exif), Limits())
    assert image.shape == (60, 40, 3)


def test_a_phones_jpeg_with_a_small_copy_inside_is_one_image():
    pixels = Image.fromarray(colors())
    file = encoded(pixels, 'MPO', save_all=True, append_images=[pixels.resize((30, 20))])
    assert read_upload(file, Limits()).shape == (40, 60, 3)


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        (b'', 'the file is empty: send an image'),
        (b'only text in a file named photo.jpg', 'the file is not an image of a kind that is accepted: send JPEG, '),
        (SVG, 'the file is not an image of a kind that is accepted: send JPEG, '),
        (EPS, 'the file is not an image of a kind that is accepted: send JPEG, '),
        (b'\x89PNG\r\n\x1a\n', 'the file is not an image of a kind that is accepted: send JPEG, '),
    ],
    ids=['empty', 'text', 'svg', 'eps', 'first bytes'],
)
def test_what_is_no_image_is_refused_in_a_sentence(content, sentence):
    with pytest.raises(UserError) as refusal:
        read_upload(content, Limits())
    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF'])
@pytest.mark.parametrize('share', [0.01, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_refused(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    with pytest.raises(UserError, match=r'^the file is (not an image|cut off)'):
        read_upload(content[: int(len(content) * share)], Limits())


@pytest.mark.parametrize('kind', ['GIF', 'PNG', 'WEBP', 'TIFF'])
def test_several_frames_are_refused(kind):
    frames = [Image.new('RGB', (20, 20), color) for color in ('red', 'green', 'blue')]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match='several frames or pages, and only single images are accepted: send one'):
        read_upload(content, Limits())


@pytest.mark.usefixtures('nothing_is_decoded')
def test_a_bomb_is_refused_by_its_header():
    bomb = black_png(20_000, 20_000)
    assert len(bomb) < 1e6
    with pytest.raises(UploadTooLarge, match='more than 64 megapixels, the most that is accepted: send a smaller one'):
        read_upload(bomb, Limits())


@pytest.mark.parametrize(
    ('limits', 'sentence'),
    [
        (
            dict(megapixels=0.0099),
            'the image has more than 0.0099 megapixels, the most that is accepted: send a smaller',
        ),
        (dict(megabytes=0.00005), 'the file has more than 5e-05 MB, the most that is accepted: send a smaller one'),
    ],
)
@pytest.mark.usefixtures('nothing_is_decoded')
def test_above_a_limit_nothing_is_decoded(limits, sentence):
    with pytest.raises(UploadTooLarge, match=sentence):
        read_upload(black_png(125, 80), Limits(**limits))


@pytest.mark.usefixtures('nothing_is_decoded')
def test_a_small_image_in_a_huge_tile_is_refused():
    """Decoders take memory for whole tiles: a gigabyte for these 198 bytes."""
    fields = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: 32_752, 323: 32_752, 324: 8, 325: 64}
    entries = b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in fields.items())
    content = b'II*\0' + struct.pack('<I', 72) + bytes(64) + struct.pack('<H', len(fields)) + entries + bytes(4)
    with pytest.raises(UploadTooLarge, match='more than 64 megapixels'):
        read_upload(content, Limits())


def test_a_jpeg_of_very_many_scans_is_refused(monkeypatch):
    """Ten thousand times the last scan of a progressive JPEG: 400 kB that would take minutes."""
    content = encoded(Image.new('L', (2000, 1000)), 'JPEG', progressive=True)
    scan = content[content.rindex(b'\xff\xda') : -2]
    assert read_upload(content[:-2] + 10 * scan + content[-2:], Limits()).shape == (1000, 2000, 3)
    monkeypatch.setattr('fasternet_mm.serving.uploads.read_image', lambda content: pytest.fail('it was decoded'))
    with pytest.raises(UserError, match='a JPEG of unusually many scans: save it anew, as a usual JPEG or as PNG'):
        read_upload(content[:-2] + 10_000 * scan + content[-2:], Limits())


def test_what_just_keeps_the_limits_is_read():
    content = black_png(125, 80)
    assert read_upload(content, Limits(megapixels=0.01, megabytes=len(content) / 1e6)).shape == (125, 80, 3)


@pytest.mark.parametrize(
    'limits', [dict(megabytes=0), dict(megabytes=float('nan')), dict(megabytes=float('inf')), dict(megapixels=179)]
)
def test_limits_that_cannot_be_kept_are_refused(limits):
    with pytest.raises(UserError, match='give a number above 0'):
        Limits(**limits)
