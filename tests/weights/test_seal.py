import errno
from pathlib import Path

import pytest
import torch

from fasternet_mm.errors import UserError
from fasternet_mm.weights.reading import check_file, read_file
from fasternet_mm.weights.seal import seal

CONTENT = dict(meta=dict(iter=7), state_dict=dict(weight=torch.arange(60.0).view(3, 20), bias=torch.ones(3)))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(CONTENT, path)
    return path


@pytest.fixture
def sealed(file):
    seal(file)
    return file


def is_whole(file: Path) -> bool:
    try:
        return check_file(file, 'net', thorough=True) == 'zip'
    except UserError:
        return False


@pytest.mark.parametrize('mmap', [False, True])
def test_pytorch_and_this_package_read_a_sealed_file_as_any_other(mmap, sealed):
    assert is_whole(sealed)
    for content in (torch.load(sealed, weights_only=True, mmap=mmap), read_file(sealed, 'net', mmap)):
        assert content['meta'] == CONTENT['meta']
        assert all(torch.equal(content['state_dict'][name], value) for name, value in CONTENT['state_dict'].items())


def test_one_wrong_bit_anywhere_is_found(sealed):
    whole = sealed.read_bytes()
    missed = []
    for place in [*range(0, len(whole) - 300, 3), *range(len(whole) - 300, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        sealed.write_bytes(damaged)
        if is_whole(sealed):
            missed.append(place)
    assert missed == []


def test_a_file_that_is_cut_anywhere_is_found(sealed):
    whole = sealed.read_bytes()
    missed = []
    for length in [*range(0, len(whole) - 200, 40), *range(len(whole) - 200, len(whole))]:
        sealed.write_bytes(whole[:length])
        if is_whole(sealed):
            missed.append(length)
    assert missed == []


def test_in_a_file_without_a_seal_a_wrong_bit_of_a_tensor_is_found(file):
    assert is_whole(file)
    content = file.read_bytes()
    file.write_bytes(content.replace(CONTENT['state_dict']['weight'].numpy().tobytes(), bytes(240)))
    with pytest.raises(UserError, match=r"net is damaged \(the checksum of 'epoch_1/data/0' differs\)"):
        check_file(file, 'net', thorough=True)


@pytest.mark.parametrize('damage', [lambda content: content[:-300], lambda content: content.replace(bytes(4), b'1234')])
def test_what_was_not_written_as_it_was_meant_is_not_sealed(damage, file):
    file.write_bytes(damage(file.read_bytes()))
    before = file.read_bytes()
    with pytest.raises(OSError, match='what is read back is not what was written') as caught:
        seal(file)
    assert caught.value.errno == errno.EIO
    assert file.read_bytes() == before
