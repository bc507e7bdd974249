"""Images that are read from their files by parts, against what OpenCV and Pillow read of the whole."""

import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from fasternet_mm.datasets.image_reading import read_image
from fasternet_mm.datasets.large_images import LargeImage, is_large
from fasternet_mm.errors import UserError

vips = pytest.importorskip('pyvips')

PIXELS = np.random.default_rng(0).integers(0, 256, (210, 330, 4)).astype(np.uint8)
PIXELS[..., 3] = 255  # OpenCV darkens what is transparent in a TIFF

ORIENTATION = 274
"""The number of TIFF's tag."""


def turned(path):
    Image.fromarray(PIXELS[..., :3]).save(path, tiffinfo={ORIENTATION: 6})


FILES = {
    'strips': lambda path: Image.fromarray(PIXELS[..., :3]).save(path),
    'compressed': lambda path: Image.fromarray(PIXELS[..., :3]).save(path, compression='tiff_lzw'),
    'gray': lambda path: Image.fromarray(PIXELS[..., 0]).save(path),
    'transparent': lambda path: Image.fromarray(PIXELS).save(path),
    'palette': lambda path: Image.fromarray(PIXELS[..., :3]).quantize(64).save(path),
    'turned': turned,
    'gray-16': lambda path: cv2.imwrite(str(path), PIXELS[..., 0].astype(np.uint16) * 257),
    'color-16': lambda path: cv2.imwrite(str(path), PIXELS[..., :3].astype(np.uint16) * 200),
    'tiles': lambda path: vips.Image.new_from_array(PIXELS[..., :3]).tiffsave(
        str(path), tile=True, tile_width=64, tile_height=64, compression='deflate'
    ),
}


@pytest.mark.parametrize('kind', FILES)
def test_parts_are_those_of_the_whole_image(kind, tmp_path):
    FILES[kind](tmp_path / 'image.tif')
    whole, image = read_image(tmp_path / 'image.tif'), LargeImage(tmp_path / 'image.tif')
    assert image.shape == whole.shape
    for top, left in ((0, 0), (57, 110), (100, 3)):
        part = image[top : top + 100, left : left + 90]
        assert part.dtype == np.uint8
        difference = np.abs(part.astype(int) - whole[top : top + 100, left : left + 90])
        assert difference.max() <= (1 if kind == 'color-16' else 0)  # OpenCV 5 rounds


def test_the_reduced_image_shows_the_whole(tmp_path):
    smooth = cv2.resize(PIXELS[:6, :8, :3], (2400, 1800), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / 'image.tif'), smooth)
    reduced = LargeImage(tmp_path / 'image.tif').reduced
    assert reduced.shape == (1536, 2048, 3)
    expected = cv2.resize(smooth, (2048, 1536), interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(int) - expected).mean() < 2


def test_large_is_what_pillow_warns_of(tmp_path, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / 'image.tif')
    (tmp_path / 'text.tif').write_text('no image')
    for limit, large in ((210 * 330, False), (210 * 330 - 1, True), (100, True)):  # of twice the limit it is an error
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
        assert is_large(tmp_path / 'image.tif') == large
    assert not is_large(tmp_path / 'text.tif')


def refused(path):
    with pytest.raises(UserError) as refusal:
        LargeImage(path)
    return str(refusal.value)


def test_other_formats_are_refused_with_what_to_do_before_a_package_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyvips', None)
    Image.fromarray(PIXELS).save(tmp_path / 'image.png')
    assert 'its format cannot be read by parts: save it as a tiled TIFF, as by: vips tiffsave' in refused(
        tmp_path / 'image.png'
    )


def test_a_file_of_another_format_that_is_named_tiff_is_refused(tmp_path):
    """libvips reads many formats, some by programs of doubtful safety; here only its reader of TIFF is called."""
    Image.fromarray(PIXELS).save(tmp_path / 'image.png')
    (tmp_path / 'image.png').rename(tmp_path / 'image.tif')
    assert 'is not a TIFF that can be read' in refused(tmp_path / 'image.tif')


def test_numbers_without_a_range_are_refused(tmp_path):
    Image.fromarray(PIXELS[..., 0].astype(np.float32)).save(tmp_path / 'image.tif')
    assert refused(tmp_path / 'image.tif').endswith(
        'has 1 channels of the type float: use 1 to 4 channels of 8 or 16 bits'
    )


def test_a_file_that_is_cut_off_is_named(tmp_path):
    FILES['tiles'](tmp_path / 'whole.tif')
    content = (tmp_path / 'whole.tif').read_bytes()
    vips.Image.new_from_array(PIXELS[..., :3]).tiffsave(str(tmp_path / 'image.tif'), tile=True, tile_width=64)
    content = bytearray((tmp_path / 'image.tif').read_bytes())
    (tmp_path / 'image.tif').write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r'image\.tif is not a TIFF that can be read \(.*\): copy it again'):
        LargeImage(tmp_path / 'image.tif')[150:210, 200:330]
