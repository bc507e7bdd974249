from pathlib import Path

import pytest

from fasternet_mm.engine import packaged_configs
from fasternet_mm.engine.config import load_config
from fasternet_mm.engine.packaged_configs import config_names, config_path
from fasternet_mm.engine.work_dir import config_and_checkpoint
from fasternet_mm.errors import UserError

NAME = 'shapes/mask_rcnn_fasternet_t0_shapes'


def test_every_config_but_the_bases_has_a_name(root):
    assert {f'{name}.py' for name in config_names()} == {
        path.relative_to(root / 'configs').as_posix()
        for path in root.glob('configs/**/*.py')
        if '_base_' not in path.parts
    }
    assert NAME in config_names()


@pytest.mark.parametrize('suffix', ['', '.py'])
def test_a_name_stands_for_the_packaged_file(suffix, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(config_path(NAME + suffix)).samefile(root / f'configs/{NAME}.py')


def test_a_file_goes_before_the_packaged_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('mask_rcnn_fasternet_s.py').write_text('a = 1')
    assert config_path('mask_rcnn_fasternet_s.py') == 'mask_rcnn_fasternet_s.py'
    assert load_config('mask_rcnn_fasternet_s.py').a == 1
    assert load_config('mask_rcnn_fasternet_s').model.type == 'MaskRCNN'


def test_a_config_goes_by_its_name_wherever_one_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(NAME).model.type == 'MaskRCNN'
    assert config_and_checkpoint(NAME, 'net.pth') == (config_path(NAME), 'net.pth')


def test_in_a_wheel_the_configs_are_in_the_package(tmp_path, monkeypatch):
    (tmp_path / '.mim/configs/shapes').mkdir(parents=True)
    (tmp_path / '.mim/configs/shapes/mine.py').touch()
    monkeypatch.setattr(packaged_configs, 'PACKAGE', tmp_path)
    assert config_names() == ['shapes/mine']
    assert config_path('shapes/mine') == str(tmp_path / '.mim/configs/shapes/mine.py')


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ('mask_rcn_fasternet_s', "did you mean 'mask_rcnn_fasternet_s'?"),
        ('{folder}/mime.py', "did you mean '{folder}/mine.py'?"),
        ('zzz', 'give a file, or the name of a config that comes with the package, such as faster_rcnn_fasternet_l'),
        ('_base_/runtime', 'does not exist'),
    ],
)
def test_the_nearest_is_named(config, message, tmp_path):
    (tmp_path / 'mine.py').touch()
    config = config.format(folder=tmp_path)
    with pytest.raises(UserError) as error:
        config_path(config)
    assert str(error.value).startswith(f'config {config} does not exist: ')
    assert message.format(folder=tmp_path) in str(error.value)
