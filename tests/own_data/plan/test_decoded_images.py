"""What passes is what training's own loader reads, and is not read again."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from own_layouts import made, write_coco, write_images
from PIL import ExifTags, Image

from fasternet_mm.own_data.layouts.problems import Fault
from fasternet_mm.own_data.layouts.recognition import read_own_data
from fasternet_mm.own_data.plan import decoded_images
from fasternet_mm.own_data.plan.data_checks import check_own_data
from fasternet_mm.own_data.plan.decoded_images import decode_images


def noise(mode='RGB', size=(60, 40)):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def turned():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def save_cut(path):
    """All but the last fifth."""
    noise().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5])


FILES = {
    'sound.jpg': lambda path: noise().save(path),
    'cmyk.jpg': lambda path: noise('CMYK').save(path),
    'gray.jpg': lambda path: noise('L').save(path),
    'turned.jpg': lambda path: noise().save(path, exif=turned()),
    'turned.png': lambda path: noise().save(path, exif=turned()),
    'gif.jpg': lambda path: noise('P').save(path, 'gif'),
    'palette.png': lambda path: noise('P').save(path),
    'bits.png': lambda path: noise('1').save(path),
    'alpha.png': lambda path: noise('RGBA').save(path),
    '16 bits.png': lambda path: Image.fromarray(np.full((40, 60), 4000, np.uint16)).save(path),
    'moving.png': lambda path: noise().save(path, save_all=True, append_images=[noise('L').convert('RGB')]),
    'moving.webp': lambda path: noise().save(path, save_all=True, append_images=[noise('L').convert('RGB')]),
    'pages.tif': lambda path: noise().save(path, save_all=True, append_images=[noise('L', (9, 9))]),
    'float.tif': lambda path: Image.fromarray(np.ones((40, 60), np.float32)).save(path),
    'integers.tif': lambda path: Image.fromarray(np.ones((40, 60), np.int32)).save(path),
    'sound.bmp': lambda path: noise().save(path),
    'sound.webp': lambda path: noise().save(path),
    'empty.jpg': lambda path: path.write_bytes(b''),
    'page.jpg': lambda path: path.write_text('<html>'),
}


def loaded(path):
    """Height and width as MMDetection's first step gives them; None where it raises."""
    try:
        return LoadImageFromFile()(dict(img_path=str(path)))['img'].shape[:2]
    except Exception:
        return None


@pytest.mark.parametrize('name', FILES)
def test_an_image_is_sound_if_training_reads_it_and_has_the_size_that_it_has_there(name, tmp_path):
    path = tmp_path / name
    FILES[name](path)
    images, problems = decode_images(tmp_path, [path])
    expected = loaded(path)
    assert [image.size for image in images.values()] == ([expected] if expected else [])
    assert [problem.file for problem in problems] == ([] if expected else [str(path)])


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'tif', 'webp'])
def test_a_file_that_is_cut_off_is_named_whatever_opencv_makes_of_the_rest(suffix, tmp_path):
    path = tmp_path / f'cut.{suffix}'
    save_cut(path)
    _, (problem,) = decode_images(tmp_path, [path])
    assert problem.kind == Fault.UNREADABLE
    assert str(problem).startswith(f'{path}: is cut off or broken')


@pytest.fixture
def decoded(monkeypatch):
    """The number of images that were decoded."""
    calls = []
    original = cv2.imdecode
    monkeypatch.setattr(cv2, 'imdecode', lambda *args: calls.append(1) or original(*args))
    return calls


@pytest.fixture
def images(tmp_path):
    names = [f'p{number:05d}.png' for number in range(5)]
    write_images(tmp_path, names)
    return [tmp_path / name for name in names]


def cache_files():
    return [*Path(os.environ['XDG_CACHE_HOME']).rglob('*.json')]


def test_sound_images_are_decoded_once_and_again_only_where_they_changed(images, decoded, tmp_path):
    first = decode_images(tmp_path, images)
    assert len(decoded) == 5
    assert decode_images(tmp_path, images) == first
    assert len(decoded) == 5
    write_images(tmp_path, ['p00077.png'])
    content = (tmp_path / 'p00077.png').read_bytes()
    images[2].write_bytes(content)
    again = decode_images(tmp_path, images)
    assert len(decoded) == 6
    changed = [path for path in images if again[0][path] != first[0][path]]
    assert changed == [images[2]]
    before = images[3].stat()
    images[3].write_bytes(images[3].read_bytes())
    os.utime(images[3], ns=(before.st_mtime_ns, before.st_mtime_ns))  # as archives with a fixed time do
    decode_images(tmp_path, images)
    assert len(decoded) == 7


def test_a_broken_image_is_named_each_time(images, tmp_path):
    images[1].write_bytes(images[1].read_bytes()[:-40])
    for _ in range(2):
        sound, (problem,) = decode_images(tmp_path, images)
        assert problem.file == str(images[1])
        assert list(sound) == [images[0], *images[2:]]


INFINITE = json.dumps(dict(decoders=decoded_images.DECODERS, images={'1 2 p00000.png': [float('inf'), 4, '']})).encode()


@pytest.mark.parametrize('content', [b'', b'{', b'[]', b'{"decoders": 1}', INFINITE, b'\xff\x00', b'[' * 100_000])
def test_a_broken_memory_is_no_memory(content, images, decoded, tmp_path):
    decode_images(tmp_path, images)
    (file,) = cache_files()
    file.write_bytes(content)
    assert len(decode_images(tmp_path, images)[0]) == 5
    assert len(decoded) == 10
    decode_images(tmp_path, images)
    assert len(decoded) == 10


def test_other_decoders_are_asked_again(images, decoded, monkeypatch, tmp_path):
    decode_images(tmp_path, images)
    monkeypatch.setattr(decoded_images, 'DECODERS', [1, '9.9', '9.9'])
    decode_images(tmp_path, images)
    assert len(decoded) == 10


def test_where_nothing_can_be_remembered_images_are_decoded_each_time(images, decoded, monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(images[0]))  # a file, in which no folder can be made
    for _ in range(2):
        assert len(decode_images(tmp_path, images)[0]) == 5
    assert len(decoded) == 10


@pytest.mark.parametrize('cache', ['relative', ''])
def test_without_a_home_nothing_is_remembered(cache, images, decoded, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', cache)
    monkeypatch.setattr(os.path, 'expanduser', lambda path: path)  # as for a user whom the system does not know
    for _ in range(2):
        assert len(decode_images(tmp_path, images)[0]) == 5
    assert len(decoded) == 10
    assert sorted(tmp_path.iterdir()) == images


def test_what_was_decoded_before_an_interruption_is_remembered(images, decoded, monkeypatch, tmp_path):
    original = decoded_images._decode

    def interrupted(path):
        if path == images[3]:
            raise KeyboardInterrupt
        return original(path)

    monkeypatch.setattr(decoded_images, '_decode', interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode_images(tmp_path, images)
    monkeypatch.setattr(decoded_images, '_decode', original)
    decoded.clear()
    decode_images(tmp_path, images)
    assert len(decoded) == 2


def thin(tmp_path, height, width):
    """Data of five images of 64x48, the last of them replaced."""
    splits = {'train': {name: [] for name in made(train=5)['train']}}
    splits['train']['p00000.png'] = [('bird', [1, 1, 40, 40], None)]
    write_coco(tmp_path, splits)
    path = tmp_path / 'annotations/instances_train2017.json'
    cv2.imwrite(str(tmp_path / 'images/train/p00004.png'), np.zeros((height, width, 3), np.uint8))
    text = path.read_text()
    mark = '"file_name": "p00004.png", "width": 64, "height": 48'
    assert mark in text
    path.write_text(text.replace(mark, f'"file_name": "p00004.png", "width": {width}, "height": {height}'))
    return read_own_data(str(tmp_path), True)


@pytest.mark.parametrize(
    ('size', 'largest', 'resized'),
    [
        ((2, 500), None, '0x51'),  # 64 x 0.8, by which images vary, is 51; 2 x 51 / 500 is 0.2
        ((500, 2), None, '51x0'),
        ((4, 500), None, '0x51'),
        ((5, 500), None, None),  # 0.51, which is rounded to 1
        ((2, 500), (600, 800), None),
        ((2, 500), (100, 150), '0x120'),
    ],
)
def test_an_image_that_would_be_resized_to_nothing_is_named(size, largest, resized, tmp_path):
    problems = [p for p in check_own_data(thin(tmp_path, *size), largest).problems if p.kind == Fault.TOO_THIN]
    if resized is None:
        assert not problems
    else:
        assert f'{size[0]}x{size[1]} (H x W) is resized to {resized}, since images have to fit' in str(problems[0])
        assert 'p00004.png' in problems[0].file
