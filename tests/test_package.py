"""The package as people install it: the source distribution, the wheel that is built from it, and that wheel alone."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

import fasternet_mm
from fasternet_mm.models.published import CLASSIFIERS, MASK_RCNN
from fasternet_mm.weights.catalog import CATALOG

NOT_SOURCE = shutil.ignore_patterns('.*', 'data', 'work_dirs', 'build', 'dist', '*.egg-info', '__pycache__')
WITHOUT_OPENMMLAB = """
import sys
class Hidden:
    def find_spec(self, name, path, target=None):
        if name in ('mmengine', 'mmcv', 'mmdet', 'mmseg'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Hidden())
"""
"""Python after which none of OpenMMLab's libraries can be imported."""


def run(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def build(kind: str, source: Path, target: Path) -> Path:
    """The file that the build backend makes of a source tree, as pip and build call it."""
    backend = f'import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])'
    run(sys.executable, '-c', backend, target, cwd=source)
    (file,) = target.iterdir()
    return file


@pytest.fixture(scope='module')
def wheel(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('build')
    source = shutil.copytree(root, folder / 'source', ignore=NOT_SOURCE)
    for cache in ('fasternet_mm/__pycache__', 'configs/__pycache__', 'tools/__pycache__'):
        (source / cache).mkdir()
        (source / cache / 'stale.cpython-311.pyc').touch()
    with tarfile.open(build('sdist', source, folder / 'sdist')) as archive:
        archive.extractall(folder / 'unpacked', filter='data')
    (unpacked,) = (folder / 'unpacked').iterdir()
    return build('wheel', unpacked, folder / 'wheel')


@pytest.fixture(scope='module')
def environment(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel and the libraries of this one, which does not see the clone."""
    folder = tmp_path_factory.mktemp('environment')
    run(sys.executable, '-m', 'venv', '--without-pip', folder, cwd=folder)
    python = folder / 'bin' / 'python'
    pip = [sys.executable, '-m', 'pip', '--python', python]
    run(*pip, 'install', '--quiet', '--no-index', '--no-deps', '--no-compile', wheel, cwd=folder)
    (packages,) = folder.glob('lib/python*/site-packages')
    # A folder that is added by a .pth file has its own .pth files ignored, and with them this clone's.
    libraries = [path for path in sys.path if path.endswith('-packages')]
    (packages / 'libraries.pth').write_text('\n'.join(libraries))
    return folder


def test_the_wheel_has_all_that_the_package_reads_and_nothing_else(root, wheel):
    folders = [
        ('fasternet_mm', 'fasternet_mm', '*.py'),
        ('fasternet_mm', 'fasternet_mm', '*.html'),
        ('configs', 'fasternet_mm/.mim/configs', '*.py'),
        ('tools', 'fasternet_mm/.mim/tools', '*.*'),
    ]
    expected = {
        f'{target}/{path.relative_to(root / folder).as_posix()}'
        for folder, target, pattern in folders
        for path in (root / folder).rglob(pattern)
        if '__pycache__' not in path.parts
    }
    expected |= {'fasternet_mm/.mim/model-index.yml', 'fasternet_mm/py.typed'}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if '.dist-info/' not in name}
    assert sorted(names - expected) == []
    assert sorted(expected - names) == []


def test_the_wheel_alone_brings_the_command_and_the_configs(environment, tmp_path):
    binaries = environment / 'bin'
    help_text = run(binaries / 'fasternet-mm', '--help', cwd=tmp_path)
    assert all(f'\n    {command} ' in help_text for command in ('train', 'test', 'predict', 'export', 'env'))
    program = """
import fasternet_mm
from fasternet_mm.engine.packaged_configs import config_path
from mmengine.config import Config
print(fasternet_mm.__file__)
print(config_path('shapes/mask_rcnn_fasternet_t0_shapes'))
print(Config.fromfile(config_path('mask_rcnn_fasternet_s')).model.backbone.arch)
"""
    module, config, arch = run(binaries / 'python', '-c', program, cwd=tmp_path).splitlines()[-3:]
    (package,) = environment.glob('lib/python*/site-packages/fasternet_mm')
    assert module == str(package / '__init__.py')
    assert config == str(package / '.mim/configs/shapes/mask_rcnn_fasternet_t0_shapes.py')
    assert arch == 's'


def test_metadata_require_neither_openmmlab_nor_onedl(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith('.dist-info/METADATA')]
        described = message_from_bytes(archive.read(name))
    required = [text for text in described.get_all('Requires-Dist') if 'extra ==' not in text]
    assert 'torch>=2.1' in required
    assert not [text for text in required if text.startswith(('mm', 'onedl'))]
    assert {'openmmlab', 'onedl', 'tested'} <= set(described.get_all('Provides-Extra'))


def test_without_either_stack_the_package_names_both():
    program = WITHOUT_OPENMMLAB + 'import fasternet_mm; fasternet_mm.FasterNet'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    message = done.stderr.splitlines()[-1]
    assert message == (
        "fasternet_mm.extras.MissingOpenMMLab: mmengine is not installed: pip install 'fasternet-mm[openmmlab]' for "
        "OpenMMLab's own releases, or 'fasternet-mm[onedl]' for OneDL's maintained fork of them"
    )


def test_a_missing_library_of_another_kind_is_not_blamed_on_openmmlab():
    program = "import sys; sys.modules['torch'] = None; import fasternet_mm; fasternet_mm.FasterNet"
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith('ModuleNotFoundError: import of torch halted')


@pytest.fixture(scope='module')
def model_index(root) -> dict[str, dict]:
    """The models of model-index.yml by their names."""
    index = yaml.safe_load((root / 'model-index.yml').read_text())
    collections = {collection['Name'] for collection in index['Collections']}
    models = {model['Name']: model for model in index['Models']}
    assert len(models) == len(index['Models'])
    assert {model['In Collection'] for model in models.values()} == collections
    return models


def test_the_model_index_has_every_published_checkpoint_and_no_other(model_index):
    assert {name: model['Weights'] for name, model in model_index.items()} == {
        name: published.url for name, published in CATALOG.items()
    }
    assert all(urlsplit(model['Weights']).scheme == 'https' for model in model_index.values())


def test_configs_of_the_model_index_exist_and_build_the_model(root, model_index):
    for name, model in model_index.items():
        config = root / model['Config']
        assert config.is_file(), name
        assert config.stem == Path(CATALOG[name].config).stem


def test_figures_of_the_model_index_are_the_published_ones(model_index):
    for name, model in model_index.items():
        metrics = {key: value for result in model['Results'] for key, value in result['Metrics'].items()}
        arch = CATALOG[name].arch
        if name.endswith('_in1k'):
            parameters, multiply_adds, top1 = CLASSIFIERS[arch]
            assert metrics == {'Top 1 Accuracy': top1}
        else:
            parameters, multiply_adds = MASK_RCNN.get(arch, (None, None))
            assert CATALOG[name].figures == f'COCO box AP {metrics["box AP"]}, mask AP {metrics["mask AP"]}'
        described = model['Metadata']
        assert described.get('Parameters') == (parameters and pytest.approx(parameters * 1e6)), name
        assert described.get('FLOPs') == (multiply_adds and pytest.approx(multiply_adds * 1e9)), name


def test_the_citation_has_the_version_of_the_package(root):
    citation = yaml.safe_load((root / 'CITATION.cff').read_text())
    assert citation['cff-version'] == '1.2.0'
    assert citation['version'] == fasternet_mm.__version__
    assert citation['preferred-citation']['title'].startswith("Run, Don't Walk")
