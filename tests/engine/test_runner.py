import pytest
import torch
from mmengine.fileio import get_file_backend

from fasternet_mm.engine.runner import check_writable, latest_checkpoint
from fasternet_mm.engine.storage import register_atomic_backend, write_atomically
from fasternet_mm.errors import UserError


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / 'epoch_1.pth'
    write_atomically(target, b'old')

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr('os.fsync', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, b'new')
    assert target.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [target]


def test_checkpoints_go_through_the_atomic_backend(tmp_path, monkeypatch):
    register_atomic_backend()
    written = []
    monkeypatch.setattr('fasternet_mm.engine.storage.write_atomically', lambda *args: written.append(args))
    get_file_backend(str(tmp_path), backend_args=dict(backend='atomic')).put(b'content', str(tmp_path / 'x.pth'))
    assert written == [(str(tmp_path / 'x.pth'), b'content')]


def test_the_latest_checkpoint_is_the_newest_file(tmp_path):
    assert latest_checkpoint(str(tmp_path)) is None
    for age, name in enumerate(('epoch_9.pth', 'epoch_10.pth', 'best_map.pth')):
        torch.save({}, tmp_path / name)
        import os

        os.utime(tmp_path / name, (age, age))
    assert latest_checkpoint(str(tmp_path)).endswith('epoch_10.pth')


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'file.inside cannot be written \(Not a directory\)'):
        check_writable(str(tmp_path / 'file' / 'inside'))
