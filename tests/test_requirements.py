"""Pinned versions against what they say of themselves."""

from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

SUPPORTED = SpecifierSet(metadata.metadata('fasternet-mm')['Requires-Python'])
PYTHONS = [version for version in ('3.9', '3.10', '3.11', '3.12', '3.13', '3.14') if version in SUPPORTED]


@pytest.mark.parametrize('kind', ['', '-test', '-onnx', '-openvino', '-int8', '-benchmark'])
def test_pinned_versions_install_on_every_supported_python(root, kind):
    assert PYTHONS == ['3.10', '3.11', '3.12', '3.13']
    lines = (root / f'requirements{kind}.txt').read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith('#')]
    names = {pin.name for pin in pins}
    for version in PYTHONS:
        chosen = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({'python_version': version})]
        assert sorted(pin.name for pin in chosen) == sorted(names), version
        for pin in chosen:
            found = metadata.distribution(pin.name)
            if found.version in pin.specifier:  # what is pinned for another Python is not at hand
                assert version in SpecifierSet(found.metadata.get('Requires-Python', '')), (pin.name, version)
