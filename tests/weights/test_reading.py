import errno
import io
import json
import os
import pickle
import tarfile
import zipfile

import pytest
import torch
from malicious import Payload, evil_pickles
from mmengine.logging import HistoryBuffer, MessageHub
from safetensors.torch import save, save_file

from fasternet_mm.errors import UserError
from fasternet_mm.weights.reading import check_file, read_file


def read(path, **kwargs):
    return read_file(path, str(path), **kwargs)


@pytest.mark.parametrize('where', evil_pickles())
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('mmap', [True, False])
def test_code_in_a_checkpoint_is_refused_by_name_and_never_runs(tmp_path, monkeypatch, where, zipped, mmap):
    monkeypatch.chdir(tmp_path)
    torch.save(evil_pickles()[where], 'evil.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r'evil.pth is refused: it asks to run .*open'):
        read(tmp_path / 'evil.pth', mmap=mmap)
    assert os.listdir() == ['evil.pth']


def test_a_bare_pickle_with_code_never_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'evil.pth').write_bytes(pickle.dumps(Payload()))
    with pytest.raises(UserError, match=r'evil.pth is (refused|broken)'):
        read(tmp_path / 'evil.pth')
    assert os.listdir() == ['evil.pth']


def test_config_text_is_left_out_since_mmengine_would_execute_it_on_resume(tmp_path):
    torch.save(dict(meta=dict(epoch=3, cfg='import os', config='import os'), state_dict={}), tmp_path / 'net.pth')
    assert read(tmp_path / 'net.pth')['meta'] == dict(epoch=3)


def test_mmengines_training_history_loads(tmp_path):
    hub = MessageHub.get_instance('history')
    hub.update_scalar('train/loss', torch.tensor(1.5))
    hub.update_scalar('train/lr', 0.1)
    torch.save(dict(message_hub=hub.state_dict(), state_dict={}), tmp_path / 'net.pth')
    scalars = read(tmp_path / 'net.pth')['message_hub']['log_scalars']
    assert scalars['train/loss'].current() == 1.5


def test_getattr_is_allowed_for_a_historys_own_statistics_alone(tmp_path):
    class Reach:
        def __reduce__(self):
            return getattr, (HistoryBuffer, '__init__')

    torch.save(dict(state_dict={}, extra=Reach()), tmp_path / 'evil.pth')
    with pytest.raises(UserError, match=r'evil.pth is refused: it asks to run getattr.__init__'):
        read(tmp_path / 'evil.pth')


def good(path, **kwargs):
    torch.save(dict(weight=torch.arange(50_000.0)), path, **kwargs)
    return path


@pytest.mark.parametrize('mmap', [True, False])
@pytest.mark.parametrize('kind', ['zip', 'pickle', 'safetensors'])
def test_every_format_comes_back_as_saved(tmp_path, kind, mmap):
    path = tmp_path / 'file without a telling name'
    if kind == 'safetensors':
        save_file(dict(weight=torch.arange(50_000.0)), path)
    else:
        good(path, _use_new_zipfile_serialization=kind == 'zip')
    assert check_file(path, 'net') == kind
    assert torch.equal(read(path, mmap=mmap)['weight'], torch.arange(50_000.0))


def packed(size):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('net/data.pkl', b'\0' * size)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', r'is empty \(0 bytes\)'),
        (b'\xef\xbb\xbf\n <!DOCTYPE html><title>404', r'is a web page'),
        (b'<html>', r'is a web page'),
        (b'version https://git-lfs.github.com/spec/v1\noid', r'is a Git LFS pointer'),
        (b'not a checkpoint', r'is broken, or no checkpoint'),
        (b'\x89PNG\r\n\x1a\n' + bytes(50), r'is broken, or no checkpoint'),
        (b'PK\x03\x04 cut short', r'is cut short or damaged'),
        (pickle.dumps(3), r'(is broken|holds a int)'),
        (packed(10_000_000), r'is refused: its 9,\d\d\d bytes would unpack to 10,000,000'),
        ((10**15).to_bytes(8, 'little') + b'{"a":', r'is cut short or damaged'),
        (save(dict(weight=torch.zeros(100)))[:-1], r'is cut short or damaged'),
        (save(dict(weight=torch.zeros(100)))[:40], r'is cut short or damaged'),
    ],
)
def test_what_is_not_a_whole_checkpoint_is_told(tmp_path, content, message):
    (tmp_path / 'net.pth').write_bytes(content)
    with pytest.raises(UserError, match=f'checkpoint .*net.pth {message}'):
        read(tmp_path / 'net.pth')


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('part', [0.001, 0.5, 0.999])
@pytest.mark.parametrize('mmap', [True, False])
def test_a_file_that_was_cut_anywhere_is_refused(tmp_path, zipped, part, mmap):
    path = good(tmp_path / 'net.pth', _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(UserError, match=r'net.pth is (cut short|broken)'):
        read(path, mmap=mmap)


def test_a_tensor_that_claims_more_than_is_stored_is_refused(tmp_path):
    content = good(tmp_path / 'net.pth').read_bytes()
    forged = content.replace(b'M\x50\xc3', b'M\xff\xff')  # 50,000 becomes 65,535
    assert forged != content
    (tmp_path / 'net.pth').write_bytes(forged)
    for mmap in (True, False):
        with pytest.raises(UserError, match=r'net.pth is broken'):
            read(tmp_path / 'net.pth', mmap=mmap)


def test_an_archive_that_lost_its_beginning_is_broken_not_unreadable(tmp_path):
    content = good(tmp_path / 'net.pth').read_bytes()
    (tmp_path / 'net.pth').write_bytes(content[:4] + content[200:])
    for mmap in (True, False):
        with pytest.raises(UserError, match=r'net.pth is (broken|cut short or damaged)'):
            read(tmp_path / 'net.pth', mmap=mmap)


def test_a_changed_byte_is_noticed_where_it_is_looked_for(tmp_path):
    path = good(tmp_path / 'net.pth')
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    check_file(path, 'net.pth')
    with pytest.raises(UserError, match=r"net.pth is damaged \(the checksum of 'net/data/0' differs\)"):
        check_file(path, 'net.pth', thorough=True)


@pytest.mark.filterwarnings('ignore:.torch.jit.script. is deprecated')
def test_a_scripted_model_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / 'net.pt'))
    with pytest.raises(UserError, match=r'net.pt is refused: it is a TorchScript program'):
        read(tmp_path / 'net.pt')


def safetensors_of(length):
    """A whole file whose header has that many bytes."""
    header = json.dumps(dict(weight=dict(dtype='F32', shape=[2], data_offsets=[0, 8])), separators=(',', ':'))
    return length.to_bytes(8, 'little') + header.encode().ljust(length) + bytes(8)


@pytest.mark.parametrize('spelled', [b'<', b' <', b'\t<', b'\n <'])
def test_a_safetensors_file_is_no_web_page_whatever_its_length_spells(tmp_path, spelled):
    content = safetensors_of(int.from_bytes(spelled, 'little') | (1 << 8 if spelled == b'<' else 0))
    if spelled != b'<':
        assert content.startswith(spelled)
    (tmp_path / 'net').write_bytes(content)
    assert torch.equal(read(tmp_path / 'net')['weight'], torch.zeros(2))
    (tmp_path / 'net').write_bytes(content[:-1])
    with pytest.raises(UserError, match='net is cut short or damaged'):
        read(tmp_path / 'net')


@pytest.mark.parametrize('name', ['sys_info', b'\x80ys_info'.decode('latin1')])
def test_a_tar_archive_of_the_first_pytorch_is_named(tmp_path, name):
    with tarfile.open(tmp_path / 'net.pth', 'w', encoding='latin1') as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(
        UserError, match=r'net.pth is a tar archive, of the first versions of PyTorch.* save its tensors'
    ):
        read(tmp_path / 'net.pth')


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (MemoryError(), 'net.pth does not fit into the memory that is free'),
        (OSError(errno.EIO, os.strerror(errno.EIO)), r'net.pth cannot be read \(Input/output error\)'),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), r'net.pth cannot be read \(Cannot allocate memory\)'),
    ],
)
def test_what_the_machine_lacks_is_not_the_files_fault(tmp_path, monkeypatch, error, message):
    def fail(*args):
        raise error

    monkeypatch.setattr('fasternet_mm.weights.reading.read_archive', fail)
    with pytest.raises(UserError, match=message) as raised:
        read(good(tmp_path / 'net.pth'))
    assert 'broken' not in str(raised.value)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    path = good(tmp_path / 'net.pth')

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr('builtins.open', refuse)
    with pytest.raises(UserError, match=r'net.pth cannot be read \(Permission denied\): give a file that you may read'):
        read(path)
