"""The files in dist/ that `make release-check` built: what they hold, and that one version is named everywhere."""

import subprocess
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

from fasternet_mm.version import __version__

IN_WHEEL = {
    'fasternet_mm/': 'fasternet_mm/',
    'configs/': 'fasternet_mm/.mim/configs/',
    'tools/': 'fasternet_mm/.mim/tools/',
    'model-index.yml': 'fasternet_mm/.mim/model-index.yml',
}
"""Where the wheel has a file or what is in a folder."""

NOT_IN_SDIST = 'tests/', 'docs/', 'mkdocs.yml', '.', 'Dockerfile'
"""What the sdist does without: a clone has it."""


@pytest.fixture(scope='module')
def committed(root) -> list[str]:
    listed = subprocess.run(['git', 'ls-files'], cwd=root, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


@pytest.fixture(scope='module')
def sdist(root) -> Path:
    (path,) = (root / 'dist').glob('*.tar.gz')
    return path


@pytest.fixture(scope='module')
def wheel(root) -> Path:
    (path,) = (root / 'dist').glob('*.whl')
    return path


def test_one_version_is_named_everywhere(root, sdist, wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith('.dist-info/METADATA')]
        metadata = message_from_bytes(archive.read(name))
    citation = yaml.safe_load((root / 'CITATION.cff').read_text())
    assert sdist.name == f'fasternet_mm-{__version__}.tar.gz'
    assert wheel.name == f'fasternet_mm-{__version__}-py3-none-any.whl'
    assert metadata['Version'] == citation['version'] == __version__


def test_the_sdist_is_what_is_committed_without_tests_and_docs(sdist, committed):
    with tarfile.open(sdist) as archive:
        names = {member.name.partition('/')[2] for member in archive.getmembers() if member.isfile()}
    made = {name for name in names if name in ('PKG-INFO', 'setup.cfg') or '.egg-info/' in name}
    expected = {name for name in committed if not name.startswith(NOT_IN_SDIST)}
    assert sorted(names - made - expected) == []
    assert sorted(expected - names) == []


def test_the_wheel_has_all_of_the_package_the_configs_and_the_tools(wheel, committed):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if '.dist-info/' not in name}
    expected = {
        target + name.removeprefix(source)
        for name in committed
        for source, target in IN_WHEEL.items()
        if name.startswith(source)
    }
    assert sorted(names - expected) == []
    assert sorted(expected - names) == []
