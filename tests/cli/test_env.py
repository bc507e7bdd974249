"""``fasternet-mm env``, whatever is missing or broken."""

import importlib
import importlib.metadata
import importlib.util
import json
import sys

import pytest

from fasternet_mm.cli import env
from fasternet_mm.version import __version__


def distributions(monkeypatch, requires=(), **versions):
    """Lets our metadata require ``requires``, and changes versions of distributions; None takes one away."""
    real = importlib.metadata.version

    def version(name):
        found = versions[name] if name in versions else real(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, 'version', version)
    monkeypatch.setattr(importlib.metadata, 'requires', lambda name: list(requires))


@pytest.fixture
def broken(monkeypatch):
    """Makes the import of modules fail."""

    def break_modules(**errors):
        real = importlib.import_module

        def import_module(name, package=None):
            if name in errors:
                raise errors[name]
            return real(name, package)

        monkeypatch.setattr(importlib, 'import_module', import_module)

    return break_modules


def test_a_sound_installation_has_nothing_to_mend(monkeypatch, command):
    distributions(monkeypatch, ['torch>=2.1', 'setuptools<999', 'mmdet<3; extra == "tested"'])
    done = command('env')
    assert done.returncode == 0, done.stdout
    lines = dict(line.split('  ', 1) for line in done.stdout.splitlines() if '  ' in line)
    assert lines['fasternet-mm'].strip().startswith(f'{__version__} in ')
    assert (
        lines['torch'].strip() == f'{sys.modules["torch"].__version__} from torch {importlib.metadata.version("torch")}'
    )
    assert ' from mmcv-lite ' in lines['mmcv']
    assert lines["mmcv's operators"].strip().startswith('of this package: ')
    assert 'CPU' in lines
    assert done.stdout.endswith('\nall is well\n')


def test_json_has_the_same_for_bug_reports(monkeypatch, command):
    distributions(monkeypatch, ['torch<2'])
    done = command('env', '--json')
    assert done.returncode == 1
    content = json.loads(done.stdout)
    assert content['fasternet-mm'].startswith(__version__)
    assert content['problems'] == [
        f"torch is {importlib.metadata.version('torch')}, which is not accepted: pip install 'torch<2'"
    ]


@pytest.mark.parametrize(
    ('requirement', 'versions', 'problem'),
    [
        (
            'setuptools<81',
            dict(setuptools='82.0'),
            'setuptools is 82.0, which is not accepted (newer ones',
        ),
        ('setuptools<81', dict(setuptools=None), "setuptools is not installed: pip install 'setuptools<81'"),
        (
            'mmdet<3.4; extra == "openmmlab"',
            dict(mmdet='3.4.1'),
            'mmdet is 3.4.1, which is not accepted: pip',
        ),
        ('onedl-mmdetection>=3.5; extra == "onedl"', {}, None),
        ('mmdet==9; extra == "tested"', {}, None),
        ('torch>=2.1', dict(torch='2.14.1+cu130'), None),
    ],
)
def test_versions_outside_the_accepted_ones_are_named(requirement, versions, problem, monkeypatch):
    distributions(monkeypatch, [requirement], **versions)
    problems = env._outside_ranges('openmmlab')
    assert len(problems) == (problem is not None)
    assert all(text.startswith(problem) for text in problems)


def test_with_onedls_libraries_their_versions_count(monkeypatch):
    monkeypatch.setattr(importlib.metadata, 'packages_distributions', lambda: dict(mmdet=['onedl-mmdetection']))
    ours = ['mmdet<3; extra == "openmmlab"', 'onedl-mmdetection>=3.5; extra == "onedl"']
    distributions(monkeypatch, ours, **{'onedl-mmdetection': '3.4'})
    assert env.describe()[1] == [
        "onedl-mmdetection is 3.4, which is not accepted: pip install 'onedl-mmdetection>=3.5'"
    ]


def test_two_distributions_in_one_folder_are_named(monkeypatch):
    monkeypatch.setattr(importlib.metadata, 'packages_distributions', lambda: dict(mmcv=['mmcv', 'mmcv-lite']))
    assert (
        'mmcv and mmcv-lite overwrite each other: pip uninstall --yes mmcv mmcv-lite, then install one of them'
        in env.describe()[1]
    )


@pytest.mark.parametrize('name', [*env.LIBRARIES, 'mmcv._ext'])
def test_a_library_that_does_not_work_is_named_and_the_rest_is_told(name, broken, command):
    broken(**{name: OSError('undefined symbol: x')})
    done = command('env', '--json')
    assert done.returncode == 1
    content = json.loads(done.stdout)
    assert any('undefined symbol: x' in problem for problem in content['problems'])
    assert content['Python'].startswith('3.')


def test_nothing_needs_to_be_there(monkeypatch, broken, command):
    broken(**{name: ImportError(f'No module named {name!r}') for name in [*env.LIBRARIES, 'mmcv._ext']})
    monkeypatch.setattr(importlib.metadata, 'packages_distributions', dict)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    distributions(monkeypatch)
    done = command('env')
    assert done.returncode == 1
    for name, source in (('mmdet', "'fasternet-mm[openmmlab]'"), ('torch', '--upgrade fasternet-mm')):
        assert (
            f"- {name} cannot be imported (ImportError: No module named '{name}'): pip install {source}\n"
            in done.stdout
        )


def test_a_missing_extra_is_told_with_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert env._extra('onnx') == "without onnx, onnxruntime; to install: pip install 'fasternet-mm[onnx]'"


def test_metadata_that_cannot_be_read_are_no_crash(monkeypatch):
    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, 'requires', requires)
    [problem] = env._outside_ranges('openmmlab')
    assert 'pip install fasternet-mm' in problem
