"""Pinned versions against what they say of themselves, and against what the package's metadata accept."""

from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from setuptools.config.pyprojecttoml import read_configuration

NOT_FOR_TESTS = ('onedl-', 'mm', 'wandb', 'clearml', 'mkdocs', 'build', 'twine', 'nbclient', 'ipykernel')
"""How the names of packages begin that need not be there: the other line of OpenMMLab's, and those that other make
targets install or tests have stand-ins for."""

FILES = sorted(Path(__file__).parent.parent.glob('requirements*.txt'))


def read(path: Path) -> list[Requirement]:
    lines = path.read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith('#')]


@pytest.fixture(scope='module')
def project(root) -> dict:
    return read_configuration(root / 'pyproject.toml', expand=False)['project']


@pytest.fixture(scope='module')
def pythons(project) -> list[str]:
    """The supported versions of Python."""
    supported = SpecifierSet(project['requires-python'])
    return [version for version in ('3.9', '3.10', '3.11', '3.12', '3.13', '3.14') if version in supported]


@pytest.mark.parametrize(
    'file', [file for file in FILES if file.stem != 'requirements-openmmlab'], ids=lambda file: file.stem
)
def test_pinned_versions_install_on_every_supported_python(pythons, file):
    assert pythons == ['3.10', '3.11', '3.12', '3.13']
    pins = read(file)
    names = {pin.name for pin in pins}
    for version in pythons:
        chosen = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({'python_version': version})]
        assert sorted(pin.name for pin in chosen) == sorted(names), version
        for pin in chosen:
            assert [specifier.operator for specifier in pin.specifier] == ['=='], pin
            try:
                installed = metadata.distribution(pin.name)
            except metadata.PackageNotFoundError:
                assert pin.name.startswith(NOT_FOR_TESTS)
                continue
            if installed.version in pin.specifier:  # what is pinned for another Python is not at hand
                assert version in SpecifierSet(installed.metadata.get('Requires-Python', '')), (pin.name, version)


def test_pinned_versions_are_those_that_the_metadata_accept(root, project):
    accepted = [Requirement(text) for text in project['dependencies']] + read(root / 'requirements-openmmlab.txt')
    pins = read(root / 'requirements.txt')
    pinned_names = {canonicalize_name(pin.name) for pin in pins}
    assert pinned_names == {canonicalize_name(requirement.name) for requirement in accepted}
    for requirement in accepted:
        for pin in pins:
            if canonicalize_name(pin.name) == canonicalize_name(requirement.name):
                (version,) = [specifier.version for specifier in pin.specifier]
                assert requirement.specifier.contains(version), (requirement, pin)
