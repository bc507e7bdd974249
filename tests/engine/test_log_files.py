import errno
import json
import logging
import os

import pytest
from mmengine.registry import VISBACKENDS

from fasternet_mm.engine.log_files import survive_full_disk


def test_figures_that_cannot_be_written_are_missing_and_said_once(tmp_path, monkeypatch, capsys):
    backend = VISBACKENDS.build(dict(type='fasternet_mm.LocalVisBackend', save_dir=str(tmp_path)))

    def half(value, file, file_format):
        file.write('{"lo')
        file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    backend.add_scalars(dict(loss=1.0), step=1)
    with monkeypatch.context() as full:
        full.setattr('mmengine.visualization.vis_backend.dump', half)
        backend.add_scalars(dict(loss=2.0), step=2)
        backend.add_scalars(dict(loss=3.0), step=3)
    backend.add_scalars(dict(loss=4.0), step=4)
    lines = (tmp_path / 'scalars.json').read_text().splitlines()
    assert [json.loads(line) for line in lines] == [dict(loss=1.0, step=1), dict(loss=4.0, step=4)]
    assert capsys.readouterr().err.splitlines() == [
        f'{tmp_path}/scalars.json cannot be written (No space left on device): training goes on, and lines of it may '
        'be missing'
    ]


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='the system has no disk that is always full')
def test_a_log_that_cannot_be_written_is_said_once(capsys):
    logger = logging.Logger('run')
    logger.addHandler(logging.FileHandler('/dev/full'))
    survive_full_disk(logger)
    for line in ('first', 'second'):
        logger.info(line)
    logger.info('%d', 'a word')  # a mistake in the code, which logging shows
    said = capsys.readouterr().err
    assert said.startswith('/dev/full cannot be written (No space left on device): training goes on')
    assert said.count('No space') == 1
    assert "Arguments: ('a word',)" in said
