"""``fasternet-mm app`` before its page is open."""

import os
import re

import pytest

from fasternet_mm.engine.packaged_configs import config_names
from fasternet_mm.errors import UserError

pytest.importorskip('gradio', reason="the page needs the extra 'app'")

from fasternet_mm.cli import app


def test_without_a_model_and_without_a_demo_the_message_names_a_config_that_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='no model is named') as error:
        app._newest_demo()
    assert re.search(r'fasternet-mm train (\S+)', str(error.value))[1] in config_names()


def test_the_demo_that_was_trained_last_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seconds, name in enumerate(['old_shapes', 'new_shapes', 'mine']):
        folder = tmp_path / 'work_dirs' / name
        folder.mkdir(parents=True)
        (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
        (folder / 'epoch_1.pth').touch()
        os.utime(folder / 'epoch_1.pth', (seconds, seconds))
    (tmp_path / 'work_dirs' / 'untrained_shapes').mkdir()
    assert app._newest_demo() == os.path.join('work_dirs', 'new_shapes')


def test_example_images_are_offered_to_a_model_that_knows_what_is_on_them():
    shapes = ['circle', 'square', 'triangle', 'star', 'cross', 'ring']
    assert app._examples(['person']) == []
    assert len(app._examples(shapes)) == app.EXAMPLES
